"""The state of a connection between requests as bytes, so that a new process can go on with it (hot upgrade).

JSON with bytes as latin-1 text: small, readable in a log of a failed hand-over, and without any code in it.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final

from mesh_codecs.headers import Pairs
from mesh_codecs.http2.connection import Http2Codec
from mesh_codecs.http2.settings import Http2Settings

_VERSION: Final = 1


def export_state(codec: Http2Codec) -> bytes:
    """Describe a codec; see `Http2Codec.export_state`."""
    decoder, encoder, guard = codec._decoder, codec._encoder, codec._guard
    return json.dumps(
        {
            "version": _VERSION,
            "downstream": codec.downstream,
            "settings": dataclasses.asdict(codec.settings),
            "last_peer_id": codec._last_peer_id,
            "next_id": codec._next_id,
            "last_sent_id": codec._last_sent_id,
            "we_reset": list(codec._we_reset.items()),
            "forgotten_up_to": codec._forgotten_up_to,
            "send_window": codec._send_window,
            "recv_window": codec._recv_window,
            # What was read but not delivered stays with the old process; its credit is due all the same.
            "unreturned": codec._unreturned + sum(codec._owed.values()),
            "local_initial_window": codec._local_initial_window,
            "settings_acknowledged": codec._settings_acknowledged,
            "settings_received": codec._settings_received,
            "settings_expected": codec._settings_expected,
            "preface_read": codec._preface_read,
            "peer_initial_window": codec._peer_initial_window,
            "peer_max_frame_size": codec._peer_max_frame_size,
            "peer_max_streams": codec._peer_max_streams,
            "peer_allows_connect": codec._peer_allows_connect,
            "decoder": {
                "table": _text(decoder.export_table()),
                "size": decoder.table_size,
                "limit": decoder.limit,
                "suspect": decoder.suspect,
            },
            "encoder": {
                "table": _text(encoder.export_table()),
                "size": encoder.table_size,
                "pending": encoder.pending_sizes,
            },
            "streams": guard.streams,
            "data_frames_sent": guard.data_frames_sent,
            "unparsed": bytes(codec._buffer).decode("latin-1"),
            "wanted": codec._wanted,
            "output": b"".join(codec._out).decode("latin-1"),
        }
    ).encode()


def import_state(state: bytes) -> Http2Codec:
    """Make the codec that a description stands for; see `Http2Codec.import_state`."""
    try:
        values: dict[str, Any] = json.loads(state)
        if values["version"] != _VERSION:
            raise ValueError(f"version {values['version']!r}, not {_VERSION}")
        return _rebuild(values)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not a state of an HTTP/2 connection: {error!r}") from None


def _rebuild(values: dict[str, Any]) -> Http2Codec:
    codec = Http2Codec(downstream=values["downstream"], settings=Http2Settings(**values["settings"]))
    codec._last_peer_id = values["last_peer_id"]
    codec._next_id = values["next_id"]
    codec._last_sent_id = values["last_sent_id"]
    codec._we_reset = {stream_id: in_flight for stream_id, in_flight in values["we_reset"]}
    codec._forgotten_up_to = values["forgotten_up_to"]
    codec._send_window = values["send_window"]
    codec._recv_window = values["recv_window"]
    codec._local_initial_window = values["local_initial_window"]
    codec._settings_acknowledged = values["settings_acknowledged"]
    codec._settings_received = values["settings_received"]
    codec._settings_expected = values["settings_expected"]
    codec._special = codec._settings_expected
    codec._preface_read = values["preface_read"]
    codec._peer_initial_window = values["peer_initial_window"]
    codec._peer_max_frame_size = values["peer_max_frame_size"]
    codec._peer_max_streams = values["peer_max_streams"]
    codec._peer_allows_connect = values["peer_allows_connect"]
    decoder = values["decoder"]
    codec._decoder.limit = decoder["limit"]
    codec._decoder.import_table(_pairs(decoder["table"]), decoder["size"])
    codec._decoder.suspect = decoder["suspect"]
    codec._memo_generation = codec._decoder.generation
    encoder = values["encoder"]
    codec._encoder.import_table(_pairs(encoder["table"]), encoder["size"], encoder["pending"])
    codec._guard.streams = values["streams"]
    codec._guard.data_frames_sent = values["data_frames_sent"]
    codec._buffer += values["unparsed"].encode("latin-1")
    codec._wanted = values["wanted"]
    output = values["output"].encode("latin-1")
    codec._out = [output] if output else []
    codec._return_connection_credit(values["unreturned"])
    return codec


def _text(pairs: Pairs) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]


def _pairs(texts: list[list[str]]) -> Pairs:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in texts]
