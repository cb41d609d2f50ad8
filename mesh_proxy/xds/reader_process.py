"""The process that reads watched files: asked by the supervisor over a socket pair, it answers with validated dataclasses.

Protobuf and YAML cost about 25 MB and a quarter of a second, and a file may change a thousand times in a minute or once in a
week. So the spawner forks this process when the first file is to be read, it stays while updates come (and keeps what it has
translated), and the supervisor lets it go when nothing has changed for a while. Neither the workers nor the supervisor import
protobuf.

Messages are pickles with a length before them. Both ends are processes of ours on a socket pair without a name.
"""

from __future__ import annotations

import pickle
import signal
import socket
import struct
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from mesh_proxy.xds.resources import Fault, ReadFiles, Response

if TYPE_CHECKING:
    from mesh_proxy.config.discovery import DiscoveryReader

LENGTH: Final = struct.Struct("!I")


def run_reader(control: socket.socket) -> int:
    """Answer until the supervisor closes its end; the exit code."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stream = control.makefile("rwb")
    reader: DiscoveryReader | None = None
    while (request := _receive(stream)) is not None:
        if reader is None:
            from mesh_proxy.config.discovery import DiscoveryReader

            reader = DiscoveryReader(request.runtime, reject_unknown_fields=request.reject_unknown_fields)
        answer = [_read(reader, kind, path) for kind, path in request.files]
        data = pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL)
        stream.write(LENGTH.pack(len(data)) + data)
        stream.flush()
    return 0


def _receive(stream: BinaryIO | Any) -> ReadFiles | None:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    request = pickle.loads(stream.read(LENGTH.unpack(head)[0]))
    assert isinstance(request, ReadFiles)
    return request


def _read(reader: DiscoveryReader, kind: str, path: str) -> Response | Fault:
    try:
        return reader.read(kind, path)
    except Exception as error:
        return Fault(unreadable=True, problems=((path, f"cannot be read: {type(error).__name__}: {error}"),))
