"""One `RouteMatch` by itself, for filters that ask what a request is for without a route table."""

from __future__ import annotations

from mesh_codecs.grpc import is_grpc_content_type
from mesh_proxy.config.model.route import PathMatchKind, RouteMatchConfig
from mesh_proxy.routing.matchers import RequestTest, ValueTest, compile_header_matcher, compile_query_matcher
from mesh_proxy.routing.regex import compile_full_match


def compile_route_match(config: RouteMatchConfig) -> RequestTest:
    """A test of path, headers and query parameters. A share of requests counts as all of them.

    Raises:
        ValueError: a regular expression is not valid.
    """
    tests: list[RequestTest] = [compile_header_matcher(one) for one in config.headers]
    tests += [compile_query_matcher(one) for one in config.query_parameters]
    if config.grpc:
        tests.append(lambda request: is_grpc_content_type(request.headers.get(b"content-type")))
    if config.kind is PathMatchKind.CONNECT:
        tests.insert(0, lambda request: request.method == b"CONNECT")
        return lambda request: all(test(request) for test in tests)
    on_path = _compile_path(config)
    if not tests:
        return lambda request: on_path(request.path.partition(b"?")[0])
    return lambda request: on_path(request.path.partition(b"?")[0]) and all(test(request) for test in tests)


def _compile_path(config: RouteMatchConfig) -> ValueTest:
    if config.kind is PathMatchKind.REGEX:
        return compile_full_match(config.path)
    text = config.path.encode()
    if not config.case_sensitive:
        inner = _plain(config.kind, text.lower())
        return lambda path: inner(path.lower())
    return _plain(config.kind, text)


def _plain(kind: PathMatchKind, text: bytes) -> ValueTest:
    if kind is PathMatchKind.PATH:
        return text.__eq__
    if kind is PathMatchKind.PREFIX:
        return lambda path: path.startswith(text)
    below = text + b"/"
    return lambda path: path == text or path.startswith(below)
