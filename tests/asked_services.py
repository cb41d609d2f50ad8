"""Authorization and rate limit services over grpcio that answer as the request itself says, and keep what they were asked.

The answer is the JSON of a CheckResponse (RateLimitResponse), in base64url, in the header `x-ask` (the descriptor entry `ask`).
Without it everything is allowed. `fail` makes the call fail, `hang` never answers.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
from envoy.service.auth.v3 import external_auth_pb2
from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf import json_format

CHECK = "/envoy.service.auth.v3.Authorization/Check"
LIMIT = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"


def told(text: str) -> str:
    """What to put where the service looks."""
    return base64.urlsafe_b64encode(text.encode()).decode() if text not in ("fail", "hang") else text


class AskedServices(grpc.GenericRpcHandler):
    """Both services on one port."""

    def __init__(self, port: int = 0) -> None:
        self.asked: list[dict[str, Any]] = []
        self.metadata: list[tuple[str, str | bytes]] = []
        self._over = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=[self], options=[("grpc.so_reuseport", 0)])
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    def stop(self) -> None:
        self._over.set()
        self._server.stop(None).wait()

    def __enter__(self) -> AskedServices:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def service(self, details: Any) -> Any:
        if details.method == CHECK:
            return grpc.unary_unary_rpc_method_handler(self._check)
        if details.method == LIMIT:
            return grpc.unary_unary_rpc_method_handler(self._limit)
        return None

    def _keep(self, message: Any, context: Any) -> None:
        self.metadata = [(key, value) for key, value in context.invocation_metadata()]
        self.asked.append(json_format.MessageToDict(message))

    def _answer(self, ask: str, response: Any, context: Any) -> bytes:
        if ask == "fail":
            context.abort(grpc.StatusCode.INTERNAL, "told to fail")
        elif ask == "hang":
            self._over.wait(60)
        elif ask:
            json_format.Parse(base64.urlsafe_b64decode(ask), response)
        return bytes(response.SerializeToString())

    def _check(self, data: bytes, context: Any) -> bytes:
        request = external_auth_pb2.CheckRequest.FromString(data)
        self._keep(request, context)
        http = request.attributes.request.http
        ask = http.headers.get("x-ask") or next((h.raw_value.decode() for h in http.header_map.headers if h.key == "x-ask"), "")
        return self._answer(ask, external_auth_pb2.CheckResponse(), context)

    def _limit(self, data: bytes, context: Any) -> bytes:
        request = rls_pb2.RateLimitRequest.FromString(data)
        self._keep(request, context)
        entries = [entry for descriptor in request.descriptors for entry in descriptor.entries]
        ask = next((entry.value for entry in entries if entry.key == "ask"), "")
        return self._answer(ask, rls_pb2.RateLimitResponse(overall_code=rls_pb2.RateLimitResponse.OK), context)


@contextmanager
def serving(servers: dict[int, AskedServices], ports: Iterable[int]) -> Iterator[None]:
    """Both services on each of the ports, and meanwhile in `servers`."""
    with ExitStack() as stack:
        stack.callback(servers.clear)
        for port in ports:
            servers[port] = AskedServices(port)
            stack.callback(servers[port].stop)
        yield
