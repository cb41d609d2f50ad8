"""Probes of the application as the sidecar makes them, their manifests, and the variables of a drain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import yaml
from http2_support.serving import start_server
from plane_support import run

from mesh_proxy.health.probers import Prober, ProbersError, ask, parse
from mesh_proxy.health.rewrite import RewriteError, rewrite
from mesh_proxy.health.termination import Termination, termination

PATH = "/app-health/app/livez"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def answered(prober: Prober, serve: Serve) -> tuple[int, bytes]:
    """The verdict, with a server that does as it is told."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        found = await ask(Prober(**{**{name: getattr(prober, name) for name in Prober.__slots__}, "port": port}), "127.0.0.1")
        return found.status, found.body
    finally:
        server.close()


def serving(*answers: bytes, seen: list[bytes] | None = None) -> Serve:
    """Each connection gets the next answer."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(head)
        writer.write(left.pop(0))
        await writer.drain()
        writer.close()

    return serve


def test_http() -> None:
    async def test() -> None:
        seen: list[bytes] = []
        prober = Prober("httpGet", 0, path="/ok", headers=(("Host", "app"), ("X-A", "b")), timeout_s=20)
        ok = serving(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", seen=seen)
        assert await answered(prober, ok) == (200, b"hi")
        assert seen[0].startswith(b"GET /ok HTTP/1.1\r\nhost: app\r\n")
        assert b"x-a: b\r\n" in seen[0].lower()
        assert b"kube-probe" in seen[0]
        bad = serving(b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n")
        assert (await answered(prober, bad))[0] == 503
        moved = serving(
            b"HTTP/1.1 302 x\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            seen=seen,
        )
        assert (await answered(prober, moved))[0] == 200
        assert seen[-1].startswith(b"GET /there ")
        again = serving(*[b"HTTP/1.1 302 x\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n"] * 11)
        assert await answered(prober, again) == (500, b"more than 10 redirects\n")
        assert (await answered(prober, serving(b"nonsense\r\n\r\n")))[0] == 500

    run(test())


def test_no_answer_in_time() -> None:
    async def test() -> None:
        held = asyncio.Event()

        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await held.wait()
            writer.close()

        assert await answered(Prober("httpGet", 0, timeout_s=0.05), hold) == (500, b"no answer in time\n")
        held.set()

    run(test())


def test_tcp() -> None:
    async def test() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        assert (await answered(Prober("tcpSocket", 0, timeout_s=20), serve))[0] == 200
        found = await ask(Prober("tcpSocket", 1, timeout_s=20), "127.0.0.1")
        assert found.status == 500
        assert b"Errno 111" in found.body or b"refused" in found.body

    run(test())


def test_grpc_of_a_server_without_health() -> None:
    async def test() -> None:
        from mesh_codecs.http2.settings import Http2Settings

        server = await start_server(Http2Settings())
        try:
            port = server.sockets[0].getsockname()[1]
            found = await ask(Prober("grpc", port, service="a", timeout_s=20), "127.0.0.1")
            assert (found.status, found.body) == (500, b"grpc-status missing\n")
        finally:
            server.close()

    run(test())


def test_the_variable() -> None:
    text = json.dumps({PATH: {"httpGet": {"path": "x", "port": 8080, "scheme": "HTTPS"}, "timeoutSeconds": 3}})
    assert parse(text)[PATH] == Prober("httpGet", 8080, path="/x", https=True, timeout_s=3.0)
    assert parse("") == {}
    for bad, why in [
        ("[", "Expecting value"),
        ("[]", "a JSON object"),
        ('{"/x": {}}', "'/x' is no"),
        (f'{{"{PATH}": {{}}}}', "one of httpGet"),
        (f'{{"{PATH}": {{"tcpSocket": {{"port": "http"}}}}}}', "must be a number, not 'http'"),
    ]:
        with pytest.raises(ProbersError, match=why):
            parse(bad)


POD = """
kind: Deployment
spec:
  template:
    spec:
      containers:
      - name: app
        ports: [{name: web, containerPort: 8080}]
        livenessProbe: {httpGet: {path: /live, port: web}, timeoutSeconds: 2}
        readinessProbe: {grpc: {port: 9090, service: a}}
        startupProbe: {exec: {command: [true]}}
      - name: mesh-proxy
        readinessProbe: {httpGet: {path: /healthz/ready, port: 15021}}
"""


def test_manifests_are_rewritten() -> None:
    before: dict[str, Any] = yaml.safe_load(POD)
    after = rewrite(before, "mesh-proxy")
    app, sidecar = after["spec"]["template"]["spec"]["containers"]
    assert app["livenessProbe"] == {"httpGet": {"path": PATH, "port": 15020}, "timeoutSeconds": 2}
    assert app["readinessProbe"] == {"httpGet": {"path": "/app-health/app/readyz", "port": 15020}}
    assert "exec" in app["startupProbe"]
    assert sidecar["readinessProbe"]["httpGet"]["port"] == 15021
    probers = parse(sidecar["env"][0]["value"])
    assert probers[PATH] == Prober("httpGet", 8080, path="/live", timeout_s=2.0)
    assert probers["/app-health/app/readyz"] == Prober("grpc", 9090, service="a")
    assert rewrite({"kind": "Service", "spec": {"ports": []}}, "mesh-proxy") == {"kind": "Service", "spec": {"ports": []}}
    with pytest.raises(RewriteError, match="there is no container 'other'"):
        rewrite(before, "other")
    before["spec"]["template"]["spec"]["containers"][0]["ports"] = []
    with pytest.raises(RewriteError, match="there is no port 'web'"):
        rewrite(before, "mesh-proxy")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"TERMINATION_DRAIN_DURATION_SECONDS": "7"}, Termination(7.0, False)),
        ({"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "true"}, Termination(5.0, True)),
        ({"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "true", "MINIMUM_DRAIN_DURATION": "1m1.5s"}, Termination(61.5, True)),
        ({"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "false", "TERMINATION_DRAIN_DURATION_SECONDS": ""}, Termination(5.0, False)),
    ],
)
def test_variables_of_a_drain(environment: dict[str, str], expected: Termination | None) -> None:
    assert termination(environment) == expected


def test_a_duration_that_is_none() -> None:
    with pytest.raises(ValueError, match="MINIMUM_DRAIN_DURATION: 'soon' is no duration"):
        termination({"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "1", "MINIMUM_DRAIN_DURATION": "soon"})
