"""Between two real processes at their meeting point: passes messages on, and can hold one, so that a test knows the step."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path

from mesh_hotrestart import messages as hr
from mesh_hotrestart.fdpass import close_all, receive_with_descriptors, send_with_descriptors

TIMEOUT_S = 60.0


class _End:
    """What came from one process, on its way to the other."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.descriptors: list[int] = []
        self.buffer = b""
        sock.settimeout(TIMEOUT_S)

    def read(self) -> bool:
        """False at the end."""
        try:
            data, descriptors = receive_with_descriptors(self.socket)
        except OSError:
            return False
        self.buffer += data
        self.descriptors += descriptors
        return bool(data)

    def frame(self) -> tuple[bytes, list[int], hr.Message] | None:
        """The next whole message, with its descriptors."""
        if len(self.buffer) < hr.HEAD.size:
            return None
        _, count, text, data = hr.decode_head(self.buffer)
        middle, end = hr.HEAD.size + text, hr.HEAD.size + text + data
        if len(self.buffer) < end:
            return None
        frame, self.buffer = self.buffer[:end], self.buffer[end:]
        descriptors, self.descriptors = self.descriptors[:count], self.descriptors[count:]
        return frame, descriptors, hr.decode(frame[hr.HEAD.size : middle])

    def close(self) -> None:
        self.socket.close()
        close_all(self.descriptors)
        self.descriptors.clear()


class Relay:
    """Takes the place of the serving process's socket (a path) until the next process has come; then everything is as before.

    with Relay(path) as relay:
        child = launch()
        relay.meet()
        relay.hold(hr.Ready)        # everything before it has been passed on
        …
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hidden = path.with_suffix(".hidden")
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.settimeout(TIMEOUT_S)
        self._ends: list[_End] = []
        self._held: list[int] = []
        """descriptors of the message that is held"""

    def __enter__(self) -> Relay:
        os.rename(self._path, self._hidden)
        self._listening.bind(str(self._path))
        self._listening.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        self._listening.close()
        self.close()

    def _restore(self) -> None:
        if self._hidden.exists():
            os.rename(self._hidden, self._path)

    def meet(self) -> None:
        """The new process has come."""
        child, _ = self._listening.accept()
        self._restore()
        parent = socket.socket(socket.AF_UNIX)
        parent.connect(str(self._path))
        self._ends = [_End(child), _End(parent)]

    def hold(self, kind: type[hr.Message]) -> None:
        """Pass messages on up to one of this kind, from either side, and keep that."""
        child, parent = self._ends
        while True:
            for source, target in ((child, parent), (parent, child)):
                while (found := source.frame()) is not None:
                    frame, descriptors, message = found
                    if isinstance(message, kind):
                        self._held = descriptors
                        return
                    _send(target, frame, descriptors)
            readable, _, _ = select.select([child.socket, parent.socket], [], [], TIMEOUT_S)
            assert readable, f"no {kind.__name__} within {TIMEOUT_S} s"
            for end in (child, parent):
                if end.socket in readable:
                    assert end.read(), f"one side has ended before {kind.__name__}"

    def close(self) -> None:
        """Cut both; what is held never arrives."""
        close_all(self._held)
        self._held.clear()
        for end in self._ends:
            end.close()
        self._ends = []


def _send(target: _End, frame: bytes, descriptors: list[int]) -> None:
    rest = memoryview(frame)
    try:
        while rest:
            rest = rest[send_with_descriptors(target.socket, rest, descriptors) :]
            close_all(descriptors)
            descriptors = []
    except OSError:
        pass  # it is gone; what it would have said in answer never comes
    finally:
        close_all(descriptors)
