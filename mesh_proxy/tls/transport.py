"""TLS between a connection and its socket: the protocol of the socket's transport, and the transport of what lies above.

OpenSSL works on two buffers in memory; nothing of asyncio's own TLS is used. So bytes that a listener filter has read already
can be taken in, a peer's certificate is checked before anything goes up, and what is written at once leaves in one write.

A peer that ends without TLS's own farewell (close_notify) may have been cut off by somebody between us: the connection is then
lost, not ended, and a body that only its end delimits is not taken for complete.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any, Final, cast

RECORD: Final = 16_384
"""most bytes in a record (RFC 8446, 5.1)"""


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """Abstract: `TlsServer` and `TlsClient` add how a connection begins."""

    __slots__ = (
        "_app",
        "_closing",
        "_fault",
        "_in",
        "_in_write",
        "_inner",
        "_out",
        "_out_read",
        "_paused",
        "_peer_ended",
        "_raw",
        "_raw_write",
        "_read",
        "_said_goodbye",
        "_tls_write",
        "tls_object",
    )

    def __init__(self) -> None:
        super().__init__()
        self._app: asyncio.Protocol | None = None
        """what lies above; None before the handshake is done, and after the end"""
        self._raw: asyncio.Transport
        self._closing = False
        self._paused = False
        self._peer_ended = False
        """it said that it sends no more"""
        self._said_goodbye = False
        self._fault: Exception | None = None

    def _begin(self, context: ssl.SSLContext, server_side: bool, server_name: str | None, session: Any = None) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._in, self._out = incoming, outgoing
        self.tls_object = context.wrap_bio(incoming, outgoing, server_side, server_name, session)
        self._in_write, self._out_read = incoming.write, outgoing.read
        self._inner: Any = self.tls_object._sslobj  # type: ignore[attr-defined]  # without the wrapper, which adds a call to each
        self._read, self._tls_write = self._inner.read, self._inner.write

    # -- the socket's side

    def _attach(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast("asyncio.Transport", transport)
        self._raw_write = self._raw.write

    def data_received(self, data: bytes) -> None:
        self._in_write(data)
        app = self._app
        if app is None:
            if self._handshake():
                self._deliver()
            return
        if self._paused:
            return
        # Nearly always one record came. There is less in it than came, so a buffer of that size is not filled: one that is, has
        # more behind it, of a record that began earlier.
        size = len(data)
        try:
            piece = self._read(size)
        except ssl.SSLError as error:
            self._give([], error)
            return
        if self._in.pending or self._out.pending or not 0 < len(piece) < size:
            self._deliver(piece, len(piece) == size)
        else:
            app.data_received(piece)

    def _handshake(self) -> bool:
        """Go on with it. True when there is something above now."""
        if self._closing:
            return False
        try:
            self.tls_object.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._flush()  # the alert
            self._handshake_failed(error)
            return False
        self._established()
        return self._app is not None

    def _handshake_failed(self, error: ssl.SSLError) -> None:
        raise NotImplementedError

    def _established(self) -> None:
        """The handshake is done: look at the peer, and either begin or give up. What OpenSSL has to send is not sent yet."""
        raise NotImplementedError

    def _flush(self) -> None:
        if self._out.pending:
            self._raw_write(self._out_read())

    def _deliver(self, piece: bytes | None = None, filled: bool = False) -> None:
        """Give up what can be decrypted now, in one piece.

        Args:
            piece: what was read already
            filled: it is only the beginning of a record
        """
        if self._paused:
            return
        read, incoming = self._read, self._in
        pieces: list[bytes] = []
        try:
            while True:
                if piece is None:
                    piece = read(RECORD)
                pieces.append(piece)
                if not piece or not (filled or incoming.pending):
                    break
                piece, filled = None, False
        except ssl.SSLError as error:
            self._give(pieces, error)  # a variable of ours would keep the error, which keeps this call and so the connection
            return
        self._give(pieces)

    def _give(self, pieces: list[bytes], fault: ssl.SSLError | None = None) -> None:
        """These were read, and then that happened; an empty one is the peer's farewell."""
        if self._out.pending:
            self._raw_write(self._out_read())
        ended = bool(pieces) and not pieces[-1]
        if ended:
            pieces.pop()
        app = self._app
        if pieces and app is not None:
            app.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if ended:
            self._on_goodbye()
        elif fault is not None and not isinstance(fault, ssl.SSLWantReadError):
            self._broken(fault)

    def _broken(self, error: ssl.SSLError) -> None:
        """A record that is not the peer's, or an alert."""
        self._fault = ConnectionResetError(f"TLS: {error.reason or error}")
        self._closing = True
        self._raw.close()

    def _on_goodbye(self) -> None:
        if self._peer_ended:
            return
        self._peer_ended = True
        if self._app is None or not self._app.eof_received():
            self.close()

    def eof_received(self) -> bool:
        if self._app is None or self._closing:
            return False
        if self._peer_ended:
            return True
        self._fault = ConnectionResetError("TLS: the peer ended without close_notify")
        self._closing = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        app, self._app = self._app, None
        if app is not None:
            app.connection_lost(exc or self._fault)
        else:
            self._lost_early(exc)

    def _lost_early(self, exc: Exception | None) -> None:
        """The connection ended before the handshake."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        if self._app is not None:
            self._app.pause_writing()

    def resume_writing(self) -> None:
        if self._app is not None:
            self._app.resume_writing()

    # -- the side of what lies above

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        if self._closing or self._said_goodbye or not data:
            return
        try:
            size = self._tls_write(data)
            if size < len(data):
                rest = memoryview(data)
                while size < len(data):
                    size += self._tls_write(rest[size : size + RECORD])
        except ssl.SSLError as error:
            self._broken(error)
            return
        self._raw_write(self._out_read())

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Small pieces share records."""
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """We send no more; the peer may."""
        if not self._closing:
            self._say_goodbye()
            self._raw.write_eof()

    def can_write_eof(self) -> bool:
        """See above."""
        return True

    def _say_goodbye(self) -> None:
        if self._said_goodbye:
            return
        self._said_goodbye = True
        try:
            self.tls_object.unwrap()
        except (ssl.SSLError, ValueError):
            pass  # it waits for the peer's farewell, for which we do not
        self._flush()

    def close(self) -> None:
        """Say goodbye, send what is there, end."""
        if self._closing:
            return
        self._closing = True
        if self._app is not None:
            self._say_goodbye()
        self._raw.close()

    def abort(self) -> None:
        """End now."""
        self._closing = True
        self._raw.abort()

    def is_closing(self) -> bool:
        """It is about to end, or has."""
        return self._closing or self._raw.is_closing()

    def pause_reading(self) -> None:
        """Give nothing up until told so."""
        self._paused = True
        if not self._closing:
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if self._paused:
            self._paused = False
            if not self._raw.is_closing():
                self._raw.resume_reading()
                if self._in.pending:
                    asyncio.get_running_loop().call_soon(self._deliver_rest)

    def _deliver_rest(self) -> None:
        if self._app is not None and not self._closing:
            self._deliver()

    def is_reading(self) -> bool:
        """Not paused."""
        return not self._paused

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Of what is encrypted and unsent."""
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Of what is encrypted and unsent."""
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Of what is encrypted and unsent."""
        return self._raw.get_write_buffer_limits()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the socket's transport knows, and `ssl_object`."""
        if name == "ssl_object":
            return self.tls_object
        return self._raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Something else lies above from now on."""
        self._app = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """What lies above."""
        assert self._app is not None
        return self._app
