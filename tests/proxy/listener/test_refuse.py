"""No handshake completes any more, and who is in the queue stays."""

from __future__ import annotations

import socket

import pytest

from mesh_proxy.listener.refuse import refuse_new, wait_for_handshakes


def test_the_queue_stays_and_nobody_new_comes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname(), timeout=5):
        assert refuse_new(listening)
        assert wait_for_handshakes(listening), "one waits already"
        with socket.socket() as late:
            late.settimeout(0.2)
            with pytest.raises(TimeoutError):
                late.connect(listening.getsockname())
        accepted, _ = listening.accept()
        accepted.close()
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()
        assert not wait_for_handshakes(listening)


def test_a_unix_socket_is_left_alone() -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("")
        listening.listen()
        assert not refuse_new(listening)
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(5)
            caller.connect(listening.getsockname())
