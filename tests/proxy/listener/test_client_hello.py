"""The first message of TLS, as OpenSSL writes it, in every cutting and damaged in every place."""

from __future__ import annotations

import random
import ssl

import pytest

from mesh_proxy.listener.client_hello import ClientHello, Greeting, read_client_hello

MOST = 16_384


def hello(name: str | None = "web.shop", alpn: tuple[str, ...] = ("istio", "h2"), lowest: str = "TLSv1_2") -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion[lowest]
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    session = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("lowest", ["TLSv1_2", "TLSv1_3"])
def test_name_and_protocols(lowest: str) -> None:
    assert read_client_hello(hello(lowest=lowest), MOST) == ClientHello("web.shop", ("istio", "h2"))
    assert read_client_hello(hello("WEB.shop", ()), MOST) == ClientHello("web.shop", ())
    assert read_client_hello(hello(None, ()), MOST) == ClientHello("", ())


def test_every_cutting_asks_for_more_until_it_is_complete() -> None:
    data = hello()
    for size in range(len(data)):
        assert read_client_hello(data[:size], MOST) is Greeting.MORE
    assert isinstance(read_client_hello(data + b"more", MOST), ClientHello)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_spread_over_records(size: int) -> None:
    message = hello()[5:]
    pieces = [message[i : i + size] for i in range(0, len(message), size)]
    data = b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)
    assert read_client_hello(data, MOST) == ClientHello("web.shop", ("istio", "h2"))
    for cut in range(0, len(data), 13):
        assert read_client_hello(data[:cut], MOST) is Greeting.MORE


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\xda\xbb\xc2\0",
        b"\x16\x02\0\0\0",
        b"\x16\x03\x01\0\0",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\0\x04\x02\0\0\0",
        b"\x80\x2e\x01\x00\x02",
        b"\x15\x03\x01\0\x02\x02\x28",
    ],
)
def test_something_else(data: bytes) -> None:
    assert read_client_hello(data, MOST) is Greeting.NONE


def test_a_limit() -> None:
    data = hello()
    size = len(data) - 5
    assert isinstance(read_client_hello(data, size), ClientHello)
    assert read_client_hello(data, size - 1) is Greeting.TOO_LARGE
    assert read_client_hello(data[:9], size - 1) is Greeting.TOO_LARGE


def test_damage_is_never_an_exception() -> None:
    data = hello()
    for place in range(len(data)):
        for change in (1, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[place] ^= change
            assert isinstance(read_client_hello(bytes(damaged), MOST), ClientHello | Greeting)
    chance = random.Random(6)
    for _ in range(2000):
        noise = b"\x16\x03\x01" + chance.randbytes(chance.randrange(60))
        assert isinstance(read_client_hello(noise, MOST), ClientHello | Greeting)


def test_a_host_with_a_null_byte_is_none() -> None:
    assert read_client_hello(hello("good.example.evil").replace(b"good.example", b"good\0example"), MOST) is Greeting.NONE
