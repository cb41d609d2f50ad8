"""Probes of the application's containers, asked for by the kubelet on the sidecar's port and made from beside the application.

The kubelet comes from outside: with interception its probes would pass through the proxy, and with mutual TLS be refused. So
each `httpGet`, `tcpSocket` or `grpc` probe of a container becomes a GET of `/app-health/<container>/{livez,readyz,startupz}` on
the sidecar's status port, and the original goes into `ISTIO_KUBE_APP_PROBERS` (Istio: pkg/kube/inject/app_probe.go,
pilot/cmd/pilot-agent/status/server.go).
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh_codecs.codec import Codec
from mesh_codecs.events import RequestHeaders
from mesh_codecs.grpc.health import CHECK_PATH, MAX_RESPONSE, SERVING, check_request, serving_status
from mesh_codecs.grpc.messages import PREFIX_SIZE
from mesh_codecs.headers import Headers
from mesh_codecs.http1 import Http1Settings, UpstreamHttp1
from mesh_codecs.http2.engines import new_codec
from mesh_codecs.http2.settings import Http2Settings
from mesh_proxy.upstream.health.exchange import HttpExchange

VARIABLE: Final = "ISTIO_KUBE_APP_PROBERS"
PATH: Final = re.compile(r"/app-health/[^/]+/(livez|readyz|startupz)")
SOURCE: Final = {socket.AF_INET: "127.0.0.6", socket.AF_INET6: "::6"}
"""the source address that the rules let pass to the application"""
MAX_BODY: Final = 10 * 1024
"""bytes of an answer that are read and handed on, as the kubelet does"""
MAX_REDIRECTS: Final = 10
USER_AGENT: Final = b"kube-probe/1.0 (mesh-proxy)"
DEFAULT_TIMEOUT_S: Final = 1.0
"""the kubelet's"""


class ProbersError(ValueError):
    """The variable does not hold what it should; the message names the entry."""


@dataclass(frozen=True, slots=True)
class Prober:
    """One probe."""

    kind: str
    """`httpGet`, `tcpSocket` or `grpc`"""
    port: int
    host: str = ""
    """empty: the application is asked where the pod is"""
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    service: str = ""
    https: bool = False
    timeout_s: float = DEFAULT_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe came to."""

    status: int
    body: bytes = b""


def parse(text: str) -> dict[str, Prober]:
    """By path. Raises ProbersError."""
    try:
        found = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise ProbersError(f"{VARIABLE}: {error}") from None
    if not isinstance(found, dict):
        raise ProbersError(f"{VARIABLE}: a JSON object is needed")
    return {path: _prober(path, entry) for path, entry in found.items()}


def _prober(path: str, entry: Any) -> Prober:
    if not PATH.fullmatch(path):
        raise ProbersError(f"{VARIABLE}: {path!r} is no /app-health/<container>/livez, readyz or startupz")
    kinds = [kind for kind in ("httpGet", "tcpSocket", "grpc") if isinstance(entry, Mapping) and entry.get(kind) is not None]
    if len(kinds) != 1 or not isinstance(entry[kinds[0]], Mapping):
        raise ProbersError(f"{VARIABLE}: {path}: one of httpGet, tcpSocket and grpc is needed")
    kind = kinds[0]
    probe = entry[kind]
    port = probe.get("port")
    if not isinstance(port, int) or not 0 < port < 65536:
        raise ProbersError(f"{VARIABLE}: {path}: the port must be a number, not {port!r}")
    headers = tuple((str(one["name"]), str(one["value"])) for one in probe.get("httpHeaders") or ())
    where = str(probe.get("path") or "/")
    return Prober(
        kind,
        port,
        str(probe.get("host") or ""),
        where if where.startswith("/") else f"/{where}",
        headers,
        str(probe.get("service") or ""),
        str(probe.get("scheme") or "HTTP").upper() == "HTTPS",
        float(entry.get("timeoutSeconds") or DEFAULT_TIMEOUT_S),
    )


async def ask(prober: Prober, default_host: str) -> Verdict:
    """Make the probe. `default_host`: where the application is asked if the probe names no host."""
    try:
        async with asyncio.timeout(prober.timeout_s):
            match prober.kind:
                case "tcpSocket":
                    (await _connect(prober.host or default_host, prober.port)).close()
                    return Verdict(200)
                case "grpc":
                    return await _grpc(prober, default_host)
                case _:
                    return await _http(prober, default_host)
    except TimeoutError:
        return Verdict(500, b"no answer in time\n")
    except (OSError, ValueError) as error:
        return Verdict(500, f"{error}\n".encode())


async def _connect(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        try:
            sock.bind((SOURCE[family], 0))
        except OSError:
            pass  # an IPv6 machine without interception: then no rule is in the way either
        await loop.sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def _exchange(prober: Prober, host: str, codec: Codec) -> HttpExchange:
    sock = await _connect(host, prober.port)
    context = _unverified() if prober.https else None
    name = host if context is not None else None
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(lambda: HttpExchange(codec), sock=sock, ssl=context, server_hostname=name)
    return protocol


def _unverified() -> ssl.SSLContext:
    """The kubelet asks for no valid certificate either."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _http(prober: Prober, default_host: str) -> Verdict:
    host = prober.host or default_host
    path = prober.path
    for _ in range(MAX_REDIRECTS + 1):
        fields = Headers([(b"user-agent", USER_AGENT), (b"accept", b"*/*"), (b"connection", b"close")])
        authority = f"[{host}]:{prober.port}" if ":" in host else f"{host}:{prober.port}"
        for name, value in prober.headers:
            if name.lower() == "host":
                authority = value
            else:
                fields.set(name.lower().encode(), value.encode())
        exchange = await _exchange(prober, host, UpstreamHttp1(Http1Settings()))
        try:
            request = RequestHeaders(0, b"GET", b"http", authority.encode(), path.encode(), fields, True)
            answer = await exchange.ask(request, b"", MAX_BODY)
        finally:
            exchange.close()
        location = answer.headers.first.get(b"location", b"").decode("latin-1")
        if not 300 <= answer.status < 400 or not location.startswith("/") or location.startswith("//"):
            return Verdict(answer.status, answer.body)
        path = location
    return Verdict(500, f"more than {MAX_REDIRECTS} redirects\n".encode())


async def _grpc(prober: Prober, default_host: str) -> Verdict:
    host = prober.host or default_host
    exchange = await _exchange(prober, host, new_codec("mesh", downstream=False, settings=Http2Settings()))
    try:
        fields = Headers([(b"content-type", b"application/grpc"), (b"te", b"trailers"), (b"user-agent", USER_AGENT)])
        authority = f"{host}:{prober.port}".encode()
        request = RequestHeaders(0, b"POST", b"http", authority, CHECK_PATH, fields, False)
        answer = await exchange.ask(request, check_request(prober.service), MAX_RESPONSE)
    finally:
        exchange.close()
    code = (answer.trailers or answer.headers).first.get(b"grpc-status", b"")
    if code != b"0":
        return Verdict(500, b"grpc-status %b\n" % (code or b"missing"))
    status = serving_status(answer.body[PREFIX_SIZE:])
    return Verdict(200) if status == SERVING else Verdict(500, f"serving status {status}\n".encode())
