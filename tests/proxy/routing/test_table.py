"""Which route a request takes (`mesh_proxy.routing.table` and `path_index`)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxy.routing.builders import forward, found, has_header, host, info_of, request, route, table

from mesh_proxy.config.model.common import FractionConfig, QueryParameterMatcherConfig
from mesh_proxy.config.model.route import PathMatchKind, RouteConfig
from mesh_proxy.routing import matchers
from mesh_proxy.routing import table as table_module


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("a.example", "exact"),
        ("A.Example", "exact"),
        ("a.example:80", "star"),
        ("x.example", "suffix"),
        ("x.y.example", "longer suffix"),
        (".example", "star"),
        ("api.net", "prefix"),
        ("api.v1.net", "longer prefix"),
        ("api.", "star"),
        ("api.x.example", "suffix"),
        ("other", "star"),
        ("", "star"),
    ],
)
def test_domains(authority: str, expected: str | None) -> None:
    domains = {
        "exact": "a.example",
        "suffix": "*.example",
        "longer suffix": "*.y.example",
        "prefix": "api.*",
        "longer prefix": "api.v1.*",
        "star": "*",
    }
    routes = table(*(host(route("PREFIX", "/", name), domains=(domain,), name=name) for name, domain in domains.items()))
    for _ in range(2):  # the second time from the memo
        assert found(routes, request(authority=authority)) == expected


def test_without_a_catch_all_domain_nothing_matches_others() -> None:
    routes = table(host(route("PREFIX", "/"), domains=("a.example",)))
    assert found(routes, request(authority="b.example")) is None
    assert found(routes, request(authority="")) is None


def test_a_lone_star_takes_requests_without_authority() -> None:
    assert found(table(host(route("PREFIX", "/", "r"))), request(authority="")) == "r"


@pytest.mark.parametrize(
    ("authority", "expected"), [("a.example:8080", "a"), ("A.example", "a"), ("[::1]:80", "six"), ("[::1]", "six"), ("b:1", None)]
)
def test_ignoring_the_port(authority: str, expected: str | None) -> None:
    hosts = [host(route("PREFIX", "/", "a"), domains=("a.example",)), host(route("PREFIX", "/", "six"), domains=("[::1]",))]
    assert found(table(*hosts, ignore_port_in_host_matching=True), request(authority=authority)) == expected


@pytest.mark.parametrize("domains", [("a", "A"), ("*", "*"), ("*.a", "*.a"), ("a.*", "a.*")])
def test_a_domain_may_stand_only_once(domains: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"virtual_hosts\[1\]\.domains"):
        table(*(host(route("PREFIX", "/"), domains=(domain,)) for domain in domains))


def test_the_host_memo_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "HOST_MEMO_ENTRIES", 4)
    routes = table(host(route("PREFIX", "/", "r"), domains=("*.example",)))
    for number in range(50):
        assert found(routes, request(authority=f"{number}.example")) == "r"
        assert len(routes._hosts_memo) <= 4
    found(routes, request(authority="x" * 300 + ".example"))
    assert all(len(name) < 300 for name in routes._hosts_memo)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/exact", "exact"),
        ("/exact?q=/p", "exact"),
        ("/exact#f", "exact"),
        ("/exact/", "rest"),
        ("/p/x", "prefix"),
        ("/px", "prefix"),
        ("/P/x", "rest"),
        ("/FOLD/x", "folded"),
        ("/fold", "folded"),
        ("/Same", "folded exact"),
        ("/same?x", "folded exact"),
        ("/sep", "separated"),
        ("/sep?x", "separated"),
        ("/sep/y", "separated"),
        ("/separate", "rest"),
        ("/re/12", "regex"),
        ("/re/12?x=y", "regex"),
        ("/re/12/", "rest"),
        ("/", "rest"),
        ("*", None),
        ("", None),
    ],
)
def test_kinds_of_path(path: str, expected: str | None) -> None:
    routes = table(
        host(
            route("PATH", "/exact", "exact"),
            route("PREFIX", "/p", "prefix"),
            route("PREFIX", "/fold", "folded", case_sensitive=False),
            route("PATH", "/same", "folded exact", case_sensitive=False),
            route("SEPARATED_PREFIX", "/sep", "separated"),
            route("REGEX", "/re/[0-9]+", "regex"),
            route("PREFIX", "/", "rest"),
        )
    )
    for _ in range(2):
        assert found(routes, request(path)) == expected


def test_configured_order_wins_over_length_and_kind() -> None:
    routes = table(host(route("PREFIX", "/a", "short"), route("PATH", "/abc", "exact"), route("PREFIX", "/ab", "long")))
    assert found(routes, request("/abc")) == "short"
    routes = table(host(route("REGEX", "/a.*", "regex"), route("PREFIX", "/ab", "long"), route("PATH", "/abc", "exact")))
    assert found(routes, request("/abc")) == "regex"


def test_a_failed_condition_leads_to_the_next_route() -> None:
    routes = table(
        host(
            route("PREFIX", "/a", "both", headers=(has_header("x", "1"), has_header("y", "1"))),
            route("PREFIX", "/", "query", query_parameters=(QueryParameterMatcherConfig(name="q"),)),
            route("PREFIX", "/a", "grpc", grpc=True),
            route("PATH", "/a/b", "post", headers=(has_header(":method", "POST"),)),
            route("PREFIX", "/", "rest"),
        )
    )
    assert found(routes, request("/a", x="1", y="1")) == "both"
    assert found(routes, request("/a", x="1", y="2")) == "rest"
    assert found(routes, request("/a?q")) == "query"
    assert found(routes, request("/a", content_type="application/grpc")) == "grpc"
    assert found(routes, request("/a", content_type="application/grpc+proto")) == "grpc"
    assert found(routes, request("/a", content_type="application/grpc-web")) == "rest"
    assert found(routes, request("/a/b", method="POST")) == "post"
    assert found(routes, request("/a/b")) == "rest"


def test_a_share_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    share = route("PREFIX", "/", "some", runtime_fraction=FractionConfig(numerator=30, runtime_key="k"))
    routes = table(host(share, route("PREFIX", "/", "rest")))
    numbers = iter(range(100))
    monkeypatch.setattr(matchers, "random_bits", lambda bits: next(numbers))
    assert [found(routes, request()) for _ in range(100)] == ["some"] * 30 + ["rest"] * 70


def test_path_parameters_may_be_ignored() -> None:
    hosts = host(route("PATH", "/a", "a"), route("SEPARATED_PREFIX", "/s", "s"), route("REGEX", "/r[0-9]", "r"))
    ignoring = table(hosts, ignore_path_parameters_in_path_matching=True)
    for path, expected in [
        ("/a;v=1", "a"),
        ("/a;v=1?q", "a"),
        ("/s;x/y", "s"),
        ("/r1;x", "r"),
        ("/b;a", None),
        ("/s;x?y/z", "s"),
    ]:
        assert found(ignoring, request(path)) == expected
        assert found(table(hosts), request(path)) is None


def test_connect() -> None:
    routes = table(host(route("PREFIX", "/", "path"), route("CONNECT", "", "connect"), route("PREFIX", "/", "late")))
    assert found(routes, request("", "a:443", "CONNECT")) == "connect"
    assert found(routes, request("/x", "a:443", "CONNECT")) == "path"  # extended CONNECT has a path
    assert found(routes, request("/x?q")) == "path"
    assert found(routes, request("*", method="OPTIONS")) is None
    assert found(table(host(route("PREFIX", "", "path"))), request("", "a:443", "CONNECT")) is None
    only = table(host(route("CONNECT", "", "connect", headers=(has_header("x", "1"),))))
    assert found(only, request("", "a:443", "CONNECT", x="1")) == "connect"
    assert found(only, request("", "a:443", "CONNECT")) is None
    websocket = request("/x", method="CONNECT")
    websocket.protocol = b"websocket"
    assert found(only, websocket) is None


@pytest.mark.parametrize(
    ("require", "scheme", "forwarded", "internal", "redirected"),
    [
        ("ALL", b"http", "", True, True),
        ("ALL", b"https", "", False, False),
        ("ALL", b"https", "http", False, True),
        ("ALL", b"http", "https", False, False),
        ("EXTERNAL_ONLY", b"http", "", False, True),
        ("EXTERNAL_ONLY", b"http", "", True, False),
        ("NONE", b"http", "", False, False),
    ],
)
def test_require_tls(require: str, scheme: bytes, forwarded: str, internal: bool, redirected: bool) -> None:
    routes = table(host(route("PREFIX", "/", "r"), require_tls=require))
    sent = request("/x?y", "a.example:80", **({"x_forwarded_proto": forwarded} if forwarded else {}))
    sent.scheme = scheme
    info = info_of(sent)
    info.is_internal = internal
    result = routes.find(sent, info)
    assert result is not None
    assert (result.redirect is not None) is redirected
    if result.redirect is not None:
        assert result.redirect.status == 301
        assert result.redirect_location(sent, info) == b"https://a.example:80/x?y"


def test_errors_name_the_field() -> None:
    good = route("PREFIX", "/")
    cases = [
        (route("REGEX", "/("), r"virtual_hosts\[0\].*'/\('"),
        (route("PREFIX", "/", headers=(has_header("x", "%"),), action=forward("c", prefix_rewrite="")), None),
        (route("PREFIX", "/", request_headers=_adds_path()), r"routes\[1\]\.request_headers_to_add\[0\]: ':path'"),
    ]
    for bad, why in cases:
        if why is None:
            table(host(good, bad))
            continue
        with pytest.raises(ValueError, match=why):
            table(host(good, bad))


def _adds_path() -> object:
    from proxy.routing.builders import adds

    return adds((":path", "/"))


# Against the plain definition: the first route in order whose conditions hold.

TEXTS = st.text("ab/", max_size=4).map(lambda text: "/" + text)
KINDS = st.sampled_from(["PREFIX", "PATH", "SEPARATED_PREFIX", "REGEX"])


def plainly_matches(config: RouteConfig, path: str, tag: str) -> bool:
    match = config.match
    wanted = match.path
    if not match.case_sensitive:
        path, wanted = path.lower(), wanted.lower()
    holds = {
        PathMatchKind.PREFIX: path.startswith(wanted),
        PathMatchKind.PATH: path == wanted,
        PathMatchKind.SEPARATED_PREFIX: path == wanted or path.startswith(wanted + "/"),
        PathMatchKind.REGEX: path == wanted,
    }[match.kind]
    return holds and all(header.string is not None and header.string.value == tag for header in match.headers)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(KINDS, TEXTS, st.booleans(), st.booleans()), max_size=12), st.lists(TEXTS, min_size=1, max_size=6))
def test_the_index_agrees_with_a_scan_in_order(entries: list[tuple[str, str, bool, bool]], paths: list[str]) -> None:
    configs = []
    for number, (kind, text, conditional, folded) in enumerate(entries):
        text = text.rstrip("/") or "/x" if kind == "SEPARATED_PREFIX" else text
        headers = (has_header("tag", "1"),) if conditional else ()
        fold = folded and kind != "REGEX"
        configs.append(route(kind, text.upper() if fold else text, f"r{number}", headers=headers, case_sensitive=not fold))
    routes = table(host(*configs))
    for path in paths:
        for tag in ("1", "2"):
            expected = next((config.name for config in configs if plainly_matches(config, path, tag)), None)
            assert found(routes, request(path + "?q=1", tag=tag)) == expected
            assert found(routes, request(path, tag=tag)) == expected


def test_the_path_memo_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "MEMO_ROOM", 20)
    routes = table(host(route("PATH", "/x", "x"), route("PREFIX", "/", "rest")))
    for number in range(100):
        assert found(routes, request(f"/{number}")) == "rest"
        assert sum(len(virtual.memo) for virtual in routes.virtual_hosts) <= 20
    assert found(routes, request("/x")) == "x"
    long = "/" + "y" * 300
    assert found(routes, request(long)) == "rest"
    assert long.encode() not in routes.virtual_hosts[0].memo


def test_many_conditional_prefixes_that_nest_stay_small() -> None:
    configs = [route("PREFIX", "/" + "a" * depth, f"{depth}", headers=(has_header("x", str(depth)),)) for depth in range(400)]
    routes = table(host(*configs))
    assert found(routes, request("/" + "a" * 399, x="7")) == "7"
    assert found(routes, request("/" + "a" * 399, x="399")) == "399"
    assert not routes.virtual_hosts[0].memo


def test_internal_only_headers_are_stripped() -> None:
    sent = request(x_secret="1", y="2")
    table(host(route("PREFIX", "/")), internal_only_headers=("x-secret",)).strip_internal(sent.headers)
    assert list(sent.headers) == [(b"y", b"2")]


# Long lists of routes that differ by a header


def test_many_routes_that_differ_by_a_header_keep_their_order() -> None:
    configs = [route("PREFIX", "/", f"tag{number}", headers=(has_header("x-tag", f"t{number}"),)) for number in range(300)]
    configs.insert(100, route("PREFIX", "/", "any", headers=(has_header("x-any", "1"),)))
    configs.insert(50, route("PREFIX", "/", "both", headers=(has_header("x-tag", "t200"), has_header("x-more", "1"))))
    routes = table(host(*configs, route("PREFIX", "/", "rest"), route("PREFIX", "/", "unreachable")))
    for _ in range(2):
        assert found(routes, request("/a", x_tag="t7")) == "tag7"
        assert found(routes, request("/a", x_tag="t7", x_any="1")) == "tag7"
        assert found(routes, request("/a", x_tag="t200", x_any="1")) == "any"
        assert found(routes, request("/a", x_tag="t200", x_more="1")) == "both"
        assert found(routes, request("/a", x_tag="t200")) == "tag200"
        assert found(routes, request("/a", x_tag="other")) == "rest"
        assert found(routes, request("/a", x_any="1")) == "any"
        assert found(routes, request("/a")) == "rest"
        repeated = request("/a", x_tag="t9")
        repeated.headers.add(b"x-tag", b"t8")
        assert found(routes, repeated) == "tag8"


def test_many_routes_that_differ_by_authority() -> None:
    configs = [route("PATH", "/", f"r{number}", headers=(has_header(":authority", f"h{number}"),)) for number in range(50)]
    routes = table(host(*configs))
    assert found(routes, request("/", "h31")) == "r31"
    assert found(routes, request("/", "h50")) is None


def test_a_header_that_few_routes_ask_for_narrows_nothing() -> None:
    configs = [route("PREFIX", "/", f"r{number}", headers=(has_header(f"x-{number}", "1"),)) for number in range(100)]
    routes = table(host(*configs))
    assert found(routes, request("/", **{"x-99": "1"})) == "r99"
    prefix = [
        route("PREFIX", "/", f"r{number}", headers=(has_header("x-tag", "", treat_missing_as_empty=True),))
        for number in range(20)
    ]
    assert found(table(host(*prefix)), request("/")) == "r0"


TAGS = st.sampled_from(["a", "b", "c"])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.none() | TAGS, st.none() | TAGS, st.sampled_from(["/", "/x"])), min_size=12, max_size=40),
    st.none() | TAGS,
    st.none() | TAGS,
)
def test_narrowing_agrees_with_a_scan_in_order(
    entries: list[tuple[str | None, str | None, str]], one: str | None, two: str | None
) -> None:
    configs = []
    for number, (first, second, prefix) in enumerate(entries):
        wanted = {"x-one": first, "x-two": second}
        headers = tuple(has_header(name, value) for name, value in wanted.items() if value is not None)
        configs.append(route("PREFIX", prefix, f"r{number}", headers=headers))
    sent = {name: value for name, value in (("x-one", one), ("x-two", two)) if value is not None}
    for path in ("/", "/x"):
        expected = next(
            (
                f"r{number}"
                for number, (first, second, prefix) in enumerate(entries)
                if path.startswith(prefix) and first in (None, one) and second in (None, two)
            ),
            None,
        )
        assert found(table(host(*configs)), request(path, **sent)) == expected
