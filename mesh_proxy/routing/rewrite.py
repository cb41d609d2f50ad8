"""Changes of the authority and the path, and where a redirect points (`source/common/http/utility.cc`, `newUri`)."""

from __future__ import annotations

from collections.abc import Callable

from mesh_codecs.events import RequestHeaders
from mesh_proxy.config.model.route import RedirectConfig
from mesh_proxy.routing.regex import RegexRewrite
from mesh_proxy.stream.info import StreamInfo

PathRewrite = Callable[[bytes], bytes | None]
"""from path with query to path with query; None = unchanged"""


def split_query(path: bytes) -> tuple[bytes, bytes]:
    """(path, rest that starts with `?` or `#`)."""
    end = len(path)
    for mark in (b"?", b"#"):
        position = path.find(mark, 0, end)
        if position >= 0:
            end = position
    return path[:end], path[end:]


def rewrite_authority(request: RequestHeaders, authority: bytes, *, append_x_forwarded_host: bool, keep_original: bool) -> None:
    """Give a request another authority.

    Args:
        request: the request.
        authority: the new value.
        append_x_forwarded_host: append the old one to `x-forwarded-host`, unless it is the last entry already.
        keep_original: leave the old one in `x-envoy-original-host`.
    """
    old = request.authority
    if old:
        headers = request.headers
        if keep_original:
            headers.set(b"x-envoy-original-host", old)
        if append_x_forwarded_host:
            forwarded = headers.get_joined(b"x-forwarded-host")
            if not forwarded:
                headers.set(b"x-forwarded-host", old)
            elif forwarded.rpartition(b",")[2] != old:
                headers.set(b"x-forwarded-host", forwarded + b"," + old)
    request.authority = authority


def rewrite_path(request: RequestHeaders, info: StreamInfo, path: bytes, *, keep_original: bool) -> None:
    """Give a request another path; the old one stays in `x-envoy-original-path` and in the stream's facts."""
    info.original_path = request.path
    if keep_original:
        request.headers.set(b"x-envoy-original-path", request.path)
    request.path = path


def prefix_rewrite(matched: bytes, replacement: bytes, *, ignore_case: bool) -> PathRewrite:
    """Replaces what the route matched (its prefix, or its whole path)."""
    size = len(matched)
    wanted = matched.lower() if ignore_case else matched

    def rewrite(path: bytes) -> bytes | None:
        head = path[:size].lower() if ignore_case else path[:size]
        # A filter may have changed the path after the route was chosen.
        return replacement + path[size:] if head == wanted else None

    return rewrite


def whole_path_rewrite(replacement: bytes) -> PathRewrite:
    """Replaces the whole path and keeps the query: prefix_rewrite on a route that matches by regular expression."""

    def rewrite(path: bytes) -> bytes | None:
        return replacement + split_query(path)[1]

    return rewrite


def regex_path_rewrite(rewrite: RegexRewrite) -> PathRewrite:
    """Replaces every match of a regular expression in the path and keeps the query."""

    def change(path: bytes) -> bytes | None:
        just_path, rest = split_query(path)
        return rewrite.replace(just_path) + rest

    return change


class RedirectTarget:
    """Computes the `location` of a redirect."""

    __slots__ = ("_host", "_path", "_path_has_query", "_port", "_scheme", "_strip_query")

    def __init__(self, config: RedirectConfig) -> None:
        self._scheme = b"https" if config.https_redirect else config.scheme.encode()
        self._host = config.host.encode()
        self._port = b":%d" % config.port if config.port else b""
        self._path = config.path.encode()
        self._path_has_query = b"?" in self._path
        self._strip_query = config.strip_query

    def location(self, request: RequestHeaders) -> bytes:
        """The absolute URL for a request."""
        scheme = self._scheme or request.scheme or b"http"
        host = self._host or self._request_host(request, scheme)
        path = request.path
        if self._path:
            query = b"" if self._path_has_query else path[path.find(b"?") :] if b"?" in path else b""
            path = self._path + query
        if self._strip_query and not self._path_has_query:
            path = path.partition(b"?")[0]
        return b"%b://%b%b%b" % (scheme, host, self._port, path)

    def _request_host(self, request: RequestHeaders, scheme: bytes) -> bytes:
        """The request's own host, without a port that the redirect replaces or that the old scheme implied."""
        host = request.authority
        if host.startswith(b"["):
            end = host.rfind(b"]:")
            end = end + 1 if end >= 0 else -1
        else:
            end = host.rfind(b":")
        if end < 0:
            return host
        old_scheme = request.headers.first.get(b"x-forwarded-proto", b"")
        drop = bool(self._port)
        if scheme != old_scheme:
            drop = drop or (old_scheme, host[end:]) in ((b"https", b":443"), (b"http", b":80"))
        return host[:end] if drop else host
