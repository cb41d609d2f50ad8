"""ext_authz over HTTP: the request's head goes to the service, whose status is the answer (Envoy: `ext_authz_http_impl.cc`)."""

from __future__ import annotations

from typing import Final

from mesh_codecs.events import RequestHeaders
from mesh_codecs.headers import Headers
from mesh_filters.definition import FilterContext
from mesh_filters.ext_authz import PARTIAL, ExtAuthzConfig, HttpServiceConfig, Question, name_test
from mesh_filters.ext_authz_verdict import Verdict
from mesh_filters.service import Failure, ServiceError, ServiceResponse

MAX_ANSWER: Final = 1024 * 1024
"""bytes of a denial that are taken"""
REMOVE: Final = b"x-envoy-auth-headers-to-remove"
_ALWAYS: Final = frozenset((b"authorization",))
"""goes to the service whatever is configured"""
_TO_CLIENT: Final = frozenset((b"www-authenticate", b"location"))
"""goes to the caller whatever is configured"""
_OF_MESSAGE: Final = frozenset(
    (b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"te", b"trailer", b"upgrade")
)


class HttpClient:
    """See `ext_authz.Client`."""

    __slots__ = ("_allowed", "_append", "_client", "_context", "_disallowed", "_metadata", "_service", "_success", "_upstream")

    def __init__(self, config: ExtAuthzConfig, service: HttpServiceConfig, context: FilterContext) -> None:
        self._service = service
        self._context = context
        self._allowed = name_test(config.allowed_headers or service.allowed_headers, context)
        self._disallowed = name_test(config.disallowed_headers, context)
        self._upstream = name_test(service.upstream_headers, context)
        self._append = name_test(service.upstream_headers_to_append, context)
        self._client = name_test(service.client_headers, context)
        self._success = name_test(service.client_headers_on_success, context)
        self._metadata = name_test(service.metadata_headers, context)

    async def ask(self, question: Question) -> Verdict:
        """Raises ServiceError."""
        service, request = self._service, question.request
        headers = Headers()
        for name, value in request.headers.items():
            if name not in _OF_MESSAGE and self._passes(name):
                headers.add(name, value)
        body = question.body or b""
        if question.body is not None:
            headers.set(PARTIAL, b"true" if question.partial else b"false")
        headers.set(b"content-length", b"%d" % len(body))
        for header, text in service.headers_to_add:
            headers.set(header.encode(), text.encode())
        headers.set(b"x-envoy-internal", b"true")
        if service.timeout_s:
            headers.set(b"x-envoy-expected-rq-timeout-ms", b"%d" % max(round(service.timeout_s * 1000), 1))
        path = service.path_prefix.encode() + request.path
        asked = RequestHeaders(0, request.method, service.scheme.encode(), request.authority, path, headers, not body)
        answer = await self._context.call_service(service.cluster, asked, body, timeout_s=service.timeout_s, max_bytes=MAX_ANSWER)
        return self._verdict(answer)

    def _passes(self, name: bytes) -> bool:
        if self._disallowed is not None and self._disallowed(name):
            return False
        return name in _ALWAYS or (self._allowed is not None and self._allowed(name))

    def _verdict(self, answer: ServiceResponse) -> Verdict:
        if answer.status >= 500:
            raise ServiceError(Failure.STATUS, f"HTTP {answer.status}")
        pairs = [(name, value) for name, value in answer.headers.items() if name not in _OF_MESSAGE]
        if answer.status != 200:
            to_client = self._client
            shown = [("add", name, value) for name, value in pairs if to_client is None or name in _TO_CLIENT or to_client(name)]
            return Verdict(False, answer.status, answer.body, response_headers=shown)
        verdict = Verdict(True, 200)
        upstream, append, success, metadata = self._upstream, self._append, self._success, self._metadata
        for name, value in pairs:
            if name == REMOVE:
                verdict.remove += [one.strip().lower() for one in value.split(b",") if one.strip()]
                continue
            if upstream is not None and upstream(name):
                verdict.headers.append(("set", name, value))
            if append is not None and append(name):
                verdict.headers.append(("add", name, value))
            if success is not None and success(name):
                verdict.response_headers.append(("add", name, value))
            if metadata is not None and metadata(name):
                verdict.metadata[name.decode()] = value.decode("utf-8", "replace")
        return verdict
