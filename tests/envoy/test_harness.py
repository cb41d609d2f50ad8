"""The harness itself: what it reads is read strictly, what differs is reported, what may differ is not."""

import socket

import pytest
from parity.compare import differences, normalise, report
from parity.config import bootstrap, cluster, http, render
from parity.upstream import Reply, Upstream
from parity.wire import STATUS_LINE, Stream, WireError, parse_fields, read_head, read_response


def response(data: bytes, method: str = "GET"):
    """What the strict reader makes of these bytes and the end of the connection."""
    near, far = socket.socketpair()
    with near, far:
        far.sendall(data)
        far.close()
        return read_response(Stream(near, 2.0), method)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
        b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length : 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: a\x00b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n",
        b"",
    ],
)
def test_sloppy_answers_are_errors(data: bytes) -> None:
    assert response(data).error


def test_good_answers() -> None:
    assert response(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab").body == b"ab"
    chunked = response(
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx-t: 1\r\n\r\n"
    )
    assert (chunked.body, chunked.trailers, chunked.informational) == (b"ab", [("x-t", "1")], [(103, [("link", "x")])])
    assert response(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", "HEAD").error == ""
    assert response(b"HTTP/1.1 200 OK\r\n\r\nuntil the end").body == b"until the end"


def test_field_lines_keep_their_case() -> None:
    assert parse_fields(b"X-One: a b \r\nx-two:\r\n") == [("X-One", "a b"), ("x-two", "")]
    with pytest.raises(WireError):
        parse_fields(b"x y: 1\r\n")


def test_differences_are_reported_and_folded() -> None:
    envoy = {
        "response.status": "200",
        "upstream[1].target": "/x",
        "upstream[1].headers.host": "a",
        "log.flags": "-",
        "note.same": "1",
    }
    ours = {"response.status": "503", "log.flags": "UF", "note.same": "1"}
    found = differences("case", envoy, ours, {"log.*": "accepted here"})
    assert found == [("response.status", "200", "503"), ("upstream[1]", "target=/x", "<absent>")]
    assert "2 difference(s)" in report("case", found)
    assert not differences("case", envoy, envoy, {})


def test_only_what_must_differ_is_normalised() -> None:
    flat = {"response.headers.date": "Sat, 21 Nov 2026 14:20:35 GMT", "note.at": "127.0.0.1:4711", "log.rx": "14711"}
    assert normalise(flat, {"up.a": 4711}) == {
        "response.headers.date": "<date>",
        "note.at": "127.0.0.1:<up.a>",
        "log.rx": "14711",
    }
    assert normalise({"response.headers.date": "yesterday"}, {}) == {"response.headers.date": "yesterday"}


def test_placeholders_become_values_of_their_type() -> None:
    rendered = render(
        bootstrap([http("main", "- {match: {prefix: /}, route: {cluster: a}}")], [cluster("a", "a*3")]),
        lambda name: 99 if "." in name else "/tmp/x",
    )
    listener, upstream = rendered["static_resources"]["listeners"][0], rendered["static_resources"]["clusters"][0]
    assert listener["address"]["socket_address"]["port_value"] == 99
    assert upstream["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["load_balancing_weight"] == 3
    assert "/tmp/x/main.log" in str(listener)


def test_upstream_records_and_answers_as_told() -> None:
    upstream = Upstream()
    upstream.http("a")
    try:
        upstream.begin((Reply(status=503, body=b"no"), Reply()))
        with socket.create_connection(("127.0.0.1", upstream.ports["a"])) as sock:
            stream = Stream(sock, 2.0)
            sock.sendall(b"POST /x HTTP/1.1\r\nHost: h\r\ncontent-length: 2\r\n\r\nhi")
            assert read_response(stream, "POST").status == 503
            sock.sendall(b"GET /y HTTP/1.1\r\nhost: h\r\n\r\n")
            assert read_response(stream, "GET").body == b"hello from a"
            sock.sendall(b"GET /bad HTTP/1.1\nhost: h\n\n")
            sock.shutdown(socket.SHUT_WR)
            stream.rest()
        first, second, bad = upstream.finish()
        assert (first.method, first.target, first.body, first.outcome) == ("POST", "/x", b"hi", "answered")
        assert (second.target, second.connection) == ("/y", first.connection)
        assert bad.outcome
    finally:
        upstream.stop()


def test_status_line_needs_its_space() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b"HTTP/1.1 200\r\n\r\n")
        with pytest.raises(WireError):
            read_head(Stream(near, 2.0), STATUS_LINE)
