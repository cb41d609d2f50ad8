"""The connection of nobody, on which described HTTP requests arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mesh_codecs.events import Data, ResponseHeaders

if TYPE_CHECKING:
    from mesh_proxy.listener.listener import Listener
    from mesh_proxy.stream.info import ConnectionInfo


class Caller:
    """Of HTTP: keeps the answer that a real caller would get."""

    def __init__(self, info: ConnectionInfo, owner: Listener) -> None:
        self.info = info
        self.owner = owner
        self.write_blocked = False
        self.status = 0
        self.body = b""

    def send(self, event: Any) -> None:
        if isinstance(event, ResponseHeaders):
            self.status = event.status
            self.body = event.headers.first.get(b"grpc-message", b"") or event.headers.first.get(b"location", b"")
        elif isinstance(event, Data):
            self.body += event.data

    def _nothing(self, *arguments: Any) -> None:
        pass

    pause_reading = resume_reading = reset_stream = measure = stream_done = _nothing
    response_begins = response_precedes_request = close_after_response = tunnel_opened = _nothing
