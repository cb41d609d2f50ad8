"""One side of the hot-restart protocol by hand, so that it can stop, lie or die at any step."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from typing import TypeVar

from mesh_hotrestart import messages as hr
from mesh_hotrestart.fdpass import close_all, receive_with_descriptors, send_with_descriptors

TIMEOUT_S = 60.0
M = TypeVar("M", bound=hr.Message)


class Script:
    """One end of a connection at the meeting point. Closing it without a word is what SIGKILL looks like."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.descriptors: list[int] = []
        self._buffer = b""
        sock.settimeout(TIMEOUT_S)

    @classmethod
    def to(cls, meeting_point: str) -> Script:
        """A new process."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect("\0" + meeting_point[1:])
        return cls(sock)

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()
        close_all(self.descriptors)
        self.descriptors.clear()

    def send(self, message: hr.Message, descriptors: Sequence[int] = (), *, version: int = hr.PROTOCOL_VERSION) -> None:
        send_with_descriptors(self.socket, memoryview(hr.encode(message, len(descriptors), version=version)), descriptors)

    def receive(self) -> hr.Message | None:
        """The next message; None at the end."""
        while True:
            if len(self._buffer) >= hr.HEAD.size:
                _, _, text, data = hr.decode_head(self._buffer)
                end = hr.HEAD.size + text + data
                if len(self._buffer) >= end:
                    frame, self._buffer = self._buffer[:end], self._buffer[end:]
                    return hr.decode(frame[hr.HEAD.size : hr.HEAD.size + text], frame[hr.HEAD.size + text :])
            try:
                piece, descriptors = receive_with_descriptors(self.socket)
            except ConnectionResetError:
                return None
            self.descriptors += descriptors
            if not piece:
                return None
            self._buffer += piece

    def until(self, kind: type[M]) -> M:
        """Messages up to one of this kind; whatever else may come is passed over, but no refusal."""
        while True:
            message = self.receive()
            assert message is not None, f"the end came before {kind.__name__}"
            if isinstance(message, kind):
                return message
            assert not isinstance(message, hr.Refused), message

    def refused(self) -> str:
        """Up to a refusal; its reason."""
        while message := self.receive():
            if isinstance(message, hr.Refused):
                return message.why
        raise AssertionError("not refused")

    # The steps of a new process.

    def hello(self, epoch: int = -1) -> hr.Welcome:
        self.send(hr.Hello(program="scripted", pid=os.getpid(), epoch=epoch))
        return self.until(hr.Welcome)

    def take_sockets(self, listeners: Sequence[tuple[str, str]]) -> None:
        self.send(hr.PassSockets(listeners=[list(one) for one in listeners]))
        while not self.until(hr.Sockets).last:
            pass

    def ready(self) -> None:
        self.send(hr.Ready())
        self.until(hr.Proceed)


class FakeParent:
    """Listens at a meeting point as an old process would."""

    def __init__(self, meeting_point: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind("\0" + meeting_point[1:])
        self.socket.listen()
        self.socket.settimeout(TIMEOUT_S)

    def __enter__(self) -> FakeParent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def accept(self) -> Script:
        script = Script(self.socket.accept()[0])
        script.until(hr.Hello)
        return script

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()


def welcome(epoch: int = 4) -> hr.Welcome:
    return hr.Welcome(program="scripted", pid=os.getpid(), epoch=epoch, generation=7, started_at=1.0)


def entry(name: str, port: int) -> dict[str, object]:
    """What an old process says of a listening socket."""
    real = {"host": "127.0.0.1", "port": port, "path": "", "mode": 0, "ipv4_compat": False}
    return {"kind": "listener", "name": name, "address": f"127.0.0.1:{port}", "real": real, "inode": 0}
