"""What a route does to requests and responses (`mesh_proxy.routing.route`, `rewrite`, `mutations`)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from proxy.routing.builders import adds, forward, host, info_of, request, response, route, table

from mesh_codecs.events import RequestHeaders
from mesh_proxy.config.model.route import (
    ClusterActionConfig,
    DirectResponseConfig,
    MirrorPolicyConfig,
    RedirectConfig,
    RegexRewriteConfig,
    RetryPolicyConfig,
    RouteConfig,
    WeightedClusterConfig,
)
from mesh_proxy.routing import ClusterChoice, Route, matchers


def compiled(config: RouteConfig, vhost: dict[str, Any] | None = None, **fields: Any) -> Route:
    return table(host(config, **(vhost or {})), **fields).virtual_hosts[0].routes[0]


def finalized(config: RouteConfig, sent: RequestHeaders, vhost: dict[str, Any] | None = None, **fields: Any) -> RequestHeaders:
    made = compiled(config, vhost, **fields)
    info = info_of(sent)
    choice = made.select(sent, info)
    assert choice is not None
    made.finalize_request(sent, info, choice)
    return sent


# Choosing a cluster


def test_a_lone_cluster_is_one_object() -> None:
    made = compiled(route("PREFIX", "/", action=forward("c")))
    sent = request()
    choice = made.select(sent, info_of(sent))
    assert choice is not None
    assert choice.name == "c"
    assert made.select(sent, info_of(sent)) is choice
    before = sent.headers.copy()
    made.finalize_request(sent, info_of(sent), choice)
    assert sent.headers == before
    assert not made.mutates_response


def weighted(*shares: tuple[str, int], **fields: Any) -> ClusterActionConfig:
    return ClusterActionConfig(clusters=tuple(WeightedClusterConfig(name=n, weight=w) for n, w in shares), **fields)


def test_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    made = compiled(route("PREFIX", "/", action=weighted(("a", 30), ("none", 0), ("b", 70))))
    numbers = iter(range(1000))
    monkeypatch.setattr(matchers, "random_bits", lambda bits: next(numbers))
    chosen = Counter(_name(made.select(request(), info_of())) for _ in range(1000))
    assert chosen == {"a": 300, "b": 700}


def _name(choice: ClusterChoice | None) -> str | None:
    return None if choice is None else choice.name


@pytest.mark.parametrize(("value", "expected"), [("5", "a"), ("30", "b"), ("130", "b"), ("129", "a"), ("x", "a"), ("-1", "a")])
def test_a_header_may_hold_the_random_value(value: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matchers, "random_bits", lambda bits: 0)
    made = compiled(route("PREFIX", "/", action=weighted(("a", 30), ("b", 70), random_value_header="x-random")))
    assert _name(made.select(request(x_random=value), info_of())) == expected
    assert _name(made.select(request(), info_of())) == "a"


def test_a_total_that_is_larger_than_the_sum_goes_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matchers, "random_bits", lambda bits: 90)
    made = compiled(route("PREFIX", "/", action=weighted(("a", 1), ("b", 1), total_weight=100)))
    assert _name(made.select(request(), info_of())) == "b"


def test_a_header_may_name_the_cluster() -> None:
    action = ClusterActionConfig(clusters=(WeightedClusterConfig(name="", cluster_header="x-cluster"),))
    made = compiled(route("PREFIX", "/", action=action, request_headers=adds(("x-a", "1"))))
    sent = request(x_cluster="c7")
    choice = made.select(sent, info_of(sent))
    assert choice is not None
    assert choice.name == "c7"
    made.finalize_request(sent, info_of(sent), choice)
    assert sent.headers.get(b"x-a") == b"1"
    assert made.select(request(), info_of()) is None
    assert made.select(request(x_cluster=""), info_of()) is None


def test_a_route_without_a_cluster_selects_none() -> None:
    assert compiled(route("PREFIX", "/", action=DirectResponseConfig(status=204))).select(request(), info_of()) is None


# Rewriting the path


@pytest.mark.parametrize(
    ("config", "path", "expected"),
    [
        (route("PREFIX", "/api", action=forward("c", prefix_rewrite="/v2")), "/api/x?q=1", "/v2/x?q=1"),
        (route("PREFIX", "/api/", action=forward("c", prefix_rewrite="/")), "/api/x", "/x"),
        (route("PREFIX", "/api", case_sensitive=False, action=forward("c", prefix_rewrite="/")), "/API/x", "//x"),
        (route("PATH", "/one", action=forward("c", prefix_rewrite="/two")), "/one?q", "/two?q"),
        (route("SEPARATED_PREFIX", "/s", action=forward("c", prefix_rewrite="/t")), "/s/x", "/t/x"),
        (route("REGEX", "/r.*", action=forward("c", prefix_rewrite="/t")), "/rx?q", "/t?q"),
        (
            route("PREFIX", "/", action=forward("c", regex_rewrite=RegexRewriteConfig(pattern="^/(.*)$", substitution=r"/x/\1"))),
            "/a/b?/c",
            "/x/a/b?/c",
        ),
    ],
)
def test_path_rewrites(config: RouteConfig, path: str, expected: str) -> None:
    sent = request(path)
    made = compiled(config)
    info = info_of(sent)
    choice = made.select(sent, info)
    assert choice is not None
    made.finalize_request(sent, info, choice)
    assert sent.path == expected.encode()
    assert sent.headers.get(b"x-envoy-original-path") == path.encode()
    assert info.original_path == path.encode()


def test_a_path_that_a_filter_changed_is_left_alone() -> None:
    sent = finalized(route("PREFIX", "/api", action=forward("c", prefix_rewrite="/v2")), request("/other"))
    assert sent.path == b"/other"
    assert b"x-envoy-original-path" not in sent.headers


def test_envoy_headers_may_be_suppressed() -> None:
    config = route("PREFIX", "/api", action=forward("c", prefix_rewrite="/v2", host_rewrite_literal="new"))
    sent = finalized(config, request("/api"), suppress=True)
    assert (sent.path, sent.authority, len(sent.headers)) == (b"/v2", b"new", 0)


# Rewriting the authority


def test_host_rewrite_literal() -> None:
    sent = finalized(route("PREFIX", "/", action=forward("c", host_rewrite_literal="new.example")), request())
    assert sent.authority == b"new.example"
    assert sent.headers.get(b"x-envoy-original-host") == b"a.example"
    assert b"x-forwarded-host" not in sent.headers


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, b"a.example"), ("b", b"b,a.example"), ("b,a.example", b"b,a.example"), ("a.example,b", b"a.example,b,a.example")],
)
def test_x_forwarded_host(before: str | None, after: bytes) -> None:
    action = forward("c", host_rewrite_literal="new", append_x_forwarded_host=True)
    sent = request(**({"x_forwarded_host": before} if before else {}))
    assert finalized(route("PREFIX", "/", action=action), sent).headers.get(b"x-forwarded-host") == after


def test_host_rewrite_by_header_and_by_path() -> None:
    by_header = route("PREFIX", "/", action=forward("c", host_rewrite_header="X-Host"))
    assert finalized(by_header, request(x_host="h")).authority == b"h"
    assert finalized(by_header, request()).authority == b"a.example"
    regex = RegexRewriteConfig(pattern="^/([^/]*).*$", substitution=r"\1.svc")
    by_path = route("PREFIX", "/", action=forward("c", host_rewrite_path_regex=regex))
    assert finalized(by_path, request("/orders/1?x")).authority == b"orders.svc"


def test_the_host_literal_of_a_weighted_cluster_leaves_no_trace() -> None:
    cluster = WeightedClusterConfig(name="c", host_rewrite_literal="w", request_headers=adds(("x-before", "%REQ(host)%")))
    own = adds(("x-after", "%REQ(host)%"))
    action = ClusterActionConfig(clusters=(cluster,), append_x_forwarded_host=True)
    sent = finalized(route("PREFIX", "/", action=action, request_headers=own), request())
    assert sent.authority == b"w"
    assert list(sent.headers) == [(b"x-before", b"a.example"), (b"x-after", b"w")]
    action = ClusterActionConfig(clusters=(cluster,), append_x_forwarded_host=True, host_rewrite_literal="r")
    sent = finalized(route("PREFIX", "/", action=action), request())
    assert sent.authority == b"r"
    assert sent.headers.get(b"x-envoy-original-host") == b"w"
    assert sent.headers.get(b"x-forwarded-host") == b"w"


def test_auto_host_rewrite_uses_the_same_door() -> None:
    made = compiled(route("PREFIX", "/", action=forward("c", auto_host_rewrite=True, append_x_forwarded_host=True)))
    sent = request()
    made.rewrite_host(sent, b"endpoint")
    assert sent.authority == b"endpoint"
    assert sent.headers.get(b"x-forwarded-host") == b"a.example"


# Headers

LEVELS = {
    "weighted": adds(("x-w", "w"), ("x-who", "weighted", "OVERWRITE_IF_EXISTS_OR_ADD"), ("x-all", "weighted")),
    "route": adds(("x-r", "r"), ("x-who", "route", "OVERWRITE_IF_EXISTS_OR_ADD"), ("x-all", "route")),
    "host": adds(("x-who", "host", "OVERWRITE_IF_EXISTS_OR_ADD"), ("x-all", "host")),
    "table": adds(("x-who", "table", "OVERWRITE_IF_EXISTS_OR_ADD"), ("x-all", "table")),
}
SPECIFIC_FIRST = ["weighted", "route", "host", "table"]


@pytest.mark.parametrize("most_specific_wins", [False, True])
@pytest.mark.parametrize("side", ["request_headers", "response_headers"])
def test_order_of_levels(most_specific_wins: bool, side: str) -> None:
    cluster = WeightedClusterConfig(name="c", **{side: LEVELS["weighted"]})
    config = route("PREFIX", "/", action=ClusterActionConfig(clusters=(cluster,)), **{side: LEVELS["route"]})
    made = compiled(
        config, {side: LEVELS["host"]}, most_specific_header_mutations_wins=most_specific_wins, **{side: LEVELS["table"]}
    )
    sent, back = request(), response()
    choice = made.select(sent, info_of(sent))
    assert choice is not None
    made.finalize_request(sent, info_of(sent), choice)
    made.finalize_response(back, info_of(sent), choice)
    headers = sent.headers if side == "request_headers" else back.headers
    # The weighted cluster comes first in any case, as in Envoy.
    order = ["weighted", *SPECIFIC_FIRST[:0:-1]] if most_specific_wins else SPECIFIC_FIRST
    assert headers.get_all(b"x-all") == [level.encode() for level in order]
    assert headers.get(b"x-who") == order[-1].encode()
    assert made.mutates_response is (side == "response_headers")


def test_a_reply_without_a_choice_gets_the_route_and_what_is_above_it() -> None:
    made = compiled(
        route("PREFIX", "/", action=DirectResponseConfig(status=200), response_headers=LEVELS["route"]),
        {"response_headers": LEVELS["host"]},
        response_headers=LEVELS["table"],
    )
    back = response()
    assert made.mutates_response
    made.finalize_response(back, info_of(), None)
    assert back.headers.get_all(b"x-all") == [b"route", b"host", b"table"]


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("APPEND_IF_EXISTS_OR_ADD", ["a"], [b"a", b"new"]),
        ("APPEND_IF_EXISTS_OR_ADD", [], [b"new"]),
        ("ADD_IF_ABSENT", ["a"], [b"a"]),
        ("ADD_IF_ABSENT", [], [b"new"]),
        ("OVERWRITE_IF_EXISTS_OR_ADD", ["a"], [b"new"]),
        ("OVERWRITE_IF_EXISTS_OR_ADD", [], [b"new"]),
        ("OVERWRITE_IF_EXISTS", ["a"], [b"new"]),
        ("OVERWRITE_IF_EXISTS", [], []),
    ],
)
def test_append_actions(action: str, before: list[str], after: list[bytes]) -> None:
    sent = request(**({"x": before[0]} if before else {}))
    finalized(route("PREFIX", "/", request_headers=adds(("x", "new", action))), sent)
    assert sent.headers.get_all(b"x") == after


def test_removals_come_first_and_formats_see_what_is_left() -> None:
    mutation = adds(("x-b", "<%REQ(x-a)%>"), ("x-c", "%REQ(x-b)%"), ("x-d", "%REQ(x-b)%"), remove=("x-a",))
    sent = finalized(route("PREFIX", "/", request_headers=mutation), request(x_a="1", x_b="2"))
    assert list(sent.headers) == [(b"x-b", b"2"), (b"x-c", b"2"), (b"x-d", b"2"), (b"x-b", b"<>")]


def test_empty_values_are_left_out_unless_kept() -> None:
    for keep, expected in [(False, None), (True, b"")]:
        sent = finalized(route("PREFIX", "/", request_headers=adds(("x", "%REQ(nothing)%"), keep_empty=keep)), request())
        assert sent.headers.get(b"x") == expected


def test_a_formatted_value_cannot_break_out_of_its_header() -> None:
    sent = request(evil="a\r\nb: c\x00")  # a codec refuses this; metadata may still hold it
    finalized(route("PREFIX", "/", request_headers=adds(("x", "%REQ(evil)%"))), sent)
    assert sent.headers.get(b"x") == b"ab: c"


@pytest.mark.parametrize(
    ("mutation", "why"),
    [
        (adds((":path", "x")), "':path' may not be changed"),
        (adds(("host", "x")), "'host'"),
        (adds(remove=(":method",)), "':method'"),
        (adds(("x", "y", "SOMETIMES")), "SOMETIMES"),
        (adds(("x", "%NOTHING%")), r"routes\[0\]\.request_headers_to_add\[0\]: unknown operator %NOTHING%"),
        (adds(("x", "50%")), "no valid command"),
    ],
)
def test_mutations_that_are_refused(mutation: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        compiled(route("PREFIX", "/", request_headers=mutation))


# Redirects


@pytest.mark.parametrize(
    ("redirect", "path", "authority", "forwarded", "expected"),
    [
        (RedirectConfig(https_redirect=True), "/a?b", "h", "http", "https://h/a?b"),
        (RedirectConfig(https_redirect=True), "/", "h:80", "http", "https://h/"),
        (RedirectConfig(https_redirect=True), "/", "h:8080", "http", "https://h:8080/"),
        (RedirectConfig(https_redirect=True), "/", "[::1]:80", "http", "https://[::1]/"),
        (RedirectConfig(https_redirect=True), "/", "[::1]", "http", "https://[::1]/"),
        (RedirectConfig(scheme="ftp"), "/", "h:443", "https", "ftp://h/"),
        (RedirectConfig(port=8443), "/", "h:80", "http", "http://h:8443/"),
        (RedirectConfig(host="new", port=8443), "/x", "h:80", "http", "http://new:8443/x"),
        (RedirectConfig(host="new"), "/x", "h:80", "http", "http://new/x"),
        (RedirectConfig(path="/p"), "/x?q", "h", "http", "http://h/p?q"),
        (RedirectConfig(path="/p?z"), "/x?q", "h", "http", "http://h/p?z"),
        (RedirectConfig(path="/p?z", strip_query=True), "/x?q", "h", "http", "http://h/p?z"),
        (RedirectConfig(path="/p", strip_query=True), "/x?q", "h", "http", "http://h/p"),
        (RedirectConfig(strip_query=True), "/x?q", "h", "http", "http://h/x"),
        (RedirectConfig(prefix_rewrite="/new"), "/x?q", "h", "http", "http://h/new/x?q"),
        (RedirectConfig(regex_rewrite=RegexRewriteConfig(pattern="x", substitution="y")), "/x?x", "h", "http", "http://h/y?x"),
    ],
)
def test_redirect_location(redirect: RedirectConfig, path: str, authority: str, forwarded: str, expected: str) -> None:
    kind = "" if redirect.prefix_rewrite else "/"
    made = compiled(route("PREFIX", kind, "redirect", action=redirect))
    sent = request(path, authority, x_forwarded_proto=forwarded)
    assert made.redirect_location(sent, info_of(sent)) == expected.encode()


def test_a_direct_response_has_the_requests_own_location() -> None:
    sent = request("/a?b", "h:80", x_forwarded_proto="http")
    made = compiled(route("PREFIX", "/", action=DirectResponseConfig(status=201)))
    assert made.redirect_location(sent, info_of(sent)) == b"http://h:80/a?b"


# What is looked up


def test_policies_come_from_the_most_specific_level() -> None:
    own, shared = RetryPolicyConfig(num_retries=1), RetryPolicyConfig(num_retries=2)
    assert compiled(route("PREFIX", "/", action=forward("c", retry_policy=own)), {"retry_policy": shared}).retry_policy is own
    assert compiled(route("PREFIX", "/"), {"retry_policy": shared}).retry_policy is shared
    assert compiled(route("PREFIX", "/")).retry_policy is None
    mirrors = [(MirrorPolicyConfig(cluster=name),) for name in ("route", "host", "table")]
    assert compiled(route("PREFIX", "/", action=forward("c", mirrors=mirrors[0])), {"mirrors": mirrors[1]}).mirrors == mirrors[0]
    assert compiled(route("PREFIX", "/"), {"mirrors": mirrors[1]}, mirrors=mirrors[2]).mirrors == mirrors[1]
    assert compiled(route("PREFIX", "/"), mirrors=mirrors[2]).mirrors == mirrors[2]


def test_filter_configuration_is_merged() -> None:
    cluster = WeightedClusterConfig(name="c", per_filter_config={"a": "cluster"}, metadata_match={"envoy.lb": {"v": "2"}})
    action = ClusterActionConfig(clusters=(cluster,), metadata_match={"envoy.lb": {"v": "1", "w": "1"}})
    made = compiled(
        route("PREFIX", "/", action=action, per_filter_config={"a": "route", "b": "route"}),
        {"per_filter_config": {"b": "host", "c": "host"}},
        per_filter_config={"c": "table", "d": "table"},
    )
    assert made.per_filter_config == {"a": "route", "b": "route", "c": "host", "d": "table"}
    choice = made.select(request(), info_of())
    assert choice is not None
    assert choice.per_filter_config == {"a": "cluster", "b": "route", "c": "host", "d": "table"}
    assert choice.metadata_match == {"v": "2", "w": "1"}


def test_facts_of_the_virtual_host() -> None:
    made = compiled(route("PREFIX", "/", "r"), {"name": "v", "include_request_attempt_count": True})
    assert (made.name, made.virtual_host_name, made.include_request_attempt_count) == ("r", "v", True)
    assert not made.include_attempt_count_in_response
    assert "v#0 'r'" in repr(made)
