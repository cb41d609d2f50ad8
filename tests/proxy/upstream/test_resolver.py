from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from mesh_proxy.upstream import resolver as module
from mesh_proxy.upstream.resolver import ThreadResolver, lookup


class Book:
    """A name service whose answers wait for `go`."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.running = 0
        self.most = 0
        self.lock = threading.Lock()

    def look_up(self, name: str, family: str) -> list[str]:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.go.wait(10)
        with self.lock:
            self.running -= 1
        if name == "fails":
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        if name == "breaks":
            raise ValueError("a bug")
        return [name + family]


def ask(resolver: ThreadResolver, name: str) -> asyncio.Future[list[str] | None]:
    future: asyncio.Future[list[str] | None] = asyncio.get_running_loop().create_future()
    resolver.resolve(name, "V4_ONLY", future.set_result)
    return future


def test_answers_failures_and_bounded_concurrency(caplog: pytest.LogCaptureFixture) -> None:
    book = Book()

    async def main() -> None:
        resolver = ThreadResolver(asyncio.get_running_loop(), threads=2, look_up=book.look_up)
        futures = [ask(resolver, name) for name in ("a", "fails", "b", "breaks", "c")]
        unwanted = resolver.resolve("d", "V4_ONLY", lambda _: pytest.fail("was cancelled"))
        unwanted.cancel()
        book.go.set()
        assert await asyncio.gather(*futures) == [["aV4_ONLY"], None, ["bV4_ONLY"], None, ["cV4_ONLY"]]
        assert await ask(resolver, "e") == ["eV4_ONLY"]
        resolver.close()

    asyncio.run(main())
    assert book.most <= 2
    assert "look-up of breaks" in caplog.text


def test_a_deadline_frees_the_asker_but_not_the_thread() -> None:
    book = Book()

    async def main() -> None:
        resolver = ThreadResolver(asyncio.get_running_loop(), threads=1, look_up=book.look_up, deadline_s=0.01)
        assert await ask(resolver, "slow") is None
        second = ask(resolver, "next")
        assert resolver._threads == 1
        book.go.set()
        assert await second == ["nextV4_ONLY"]
        resolver.close()

    asyncio.run(main())


def test_close_while_a_look_up_runs() -> None:
    book = Book()

    async def main() -> None:
        resolver = ThreadResolver(asyncio.get_running_loop(), threads=1, look_up=book.look_up)
        resolver.resolve("a", "V4_ONLY", lambda _: pytest.fail("closed"))
        resolver.close()

    asyncio.run(main())
    thread = next((one for one in threading.enumerate() if one.name.startswith("dns-")), None)
    book.go.set()
    if thread is not None:
        thread.join(10)
        assert not thread.is_alive()


V4, V6 = socket.AF_INET, socket.AF_INET6
NONE = socket.gaierror(socket.EAI_NONAME, "no such name")
BAD = socket.gaierror(socket.EAI_AGAIN, "later")


@pytest.mark.parametrize(
    ("family", "answers", "expected"),
    [
        ("V4_ONLY", {V4: ["1.1.1.1", "1.1.1.1", "1.1.1.2"]}, ["1.1.1.1", "1.1.1.2"]),
        ("V6_ONLY", {V6: ["::1"]}, ["::1"]),
        ("V6_ONLY", {V6: NONE}, []),
        ("AUTO", {V6: ["::1"]}, ["::1"]),
        ("AUTO", {V6: NONE, V4: ["1.1.1.1"]}, ["1.1.1.1"]),
        ("V4_PREFERRED", {V4: ["1.1.1.1"]}, ["1.1.1.1"]),
        ("V4_PREFERRED", {V4: NONE, V6: ["::1"]}, ["::1"]),
        ("ALL", {V6: ["::1"], V4: ["1.1.1.1"]}, ["::1", "1.1.1.1"]),
        ("ALL", {V6: BAD, V4: ["1.1.1.1"]}, ["1.1.1.1"]),
        ("ALL", {V6: ["::1"], V4: BAD}, ["::1"]),
        ("ALL", {V6: NONE, V4: BAD}, BAD),
        ("AUTO", {V6: BAD, V4: ["1.1.1.1"]}, ["1.1.1.1"]),
        ("AUTO", {V6: BAD, V4: BAD}, BAD),
    ],
)
def test_families(monkeypatch: pytest.MonkeyPatch, family: str, answers: dict[Any, Any], expected: Any) -> None:
    def getaddrinfo(name: str, port: None, asked: Any, kind: Any) -> list[Any]:
        answer = answers[asked]
        if isinstance(answer, OSError):
            raise answer
        return [(asked, kind, 6, "", (address, 0)) for address in answer]

    monkeypatch.setattr(module.socket, "getaddrinfo", getaddrinfo)
    if isinstance(expected, OSError):
        with pytest.raises(socket.gaierror):
            lookup("a.test", family)
    else:
        assert lookup("a.test", family) == expected


def test_impossible_names_are_failures() -> None:
    with pytest.raises(OSError, match="label"):
        lookup("a" * 64 + ".test", "V4_ONLY")


def test_the_system_knows_localhost() -> None:
    assert "127.0.0.1" in lookup("localhost", "V4_ONLY")
