"""The Dubbo manager: routing by interface, method, group, version, attachments and arguments; answers, events, errors."""

import pytest
from dubbo_support.wire import STRING, call, frame, generic_call, heartbeat
from parity import Case, Pair, Suite, bootstrap, cluster
from parity.dubbo import calls, dubbo

pytestmark = pytest.mark.envoy

ROUTES = r"""
- {name: exact, interface: demo.Exact, routes: [{match: {method: {name: {exact: m}}}, route: {cluster: a}}, {match: {method: {name: {prefix: pre}}}, route: {cluster: b}}, {match: {method: {name: {suffix: Suf}}}, route: {cluster: a}}, {match: {method: {name: {contains: mid}}}, route: {cluster: b}}, {match: {method: {name: {safe_regex: {regex: "r[0-9]+"}}}}, route: {cluster: a}}, {match: {method: {name: {exact: NoCase, ignore_case: true}}}, route: {cluster: b}}]}
- {name: prefix, interface: "pre.*", routes: [{match: {ANY}, route: {cluster: a}}]}
- {name: suffix, interface: "*Suffix", routes: [{match: {ANY}, route: {cluster: b}}]}
- {name: inner, interface: "in*ner", routes: [{match: {ANY}, route: {cluster: b}}]}
- {name: version, interface: demo.Versions, version: 2.0.0, routes: [{match: {ANY}, route: {cluster: b}}]}
- {name: versions, interface: demo.Versions, routes: [{match: {ANY}, route: {cluster: a}}]}
- {name: group, interface: demo.Groups, group: g1, routes: [{match: {ANY}, route: {cluster: b}}]}
- {name: groups, interface: demo.Groups, routes: [{match: {ANY}, route: {cluster: a}}]}
- name: headers
  interface: demo.Headers
  routes:
  - {match: {ANY, headers: [{name: h-exact, string_match: {exact: one}}]}, route: {cluster: a}}
  - {match: {ANY, headers: [{name: Upper-Config, string_match: {exact: one}}]}, route: {cluster: a}}
  - {match: {ANY, headers: [{name: h-nocase, string_match: {exact: One, ignore_case: true}}]}, route: {cluster: a}}
  - {match: {ANY, headers: [{name: h-prefix, string_match: {prefix: onl}}]}, route: {cluster: a}}
  - {match: {ANY, headers: [{name: h-suffix, string_match: {suffix: ne}}]}, route: {cluster: a}}
  - {match: {ANY, headers: [{name: h-contains, string_match: {contains: mid}}]}, route: {cluster: a}}
  - {match: {ANY, headers: [{name: h-regex, string_match: {safe_regex: {regex: "a+b"}}}]}, route: {cluster: a}}
  - {match: {ANY, headers: [{name: h-range, range_match: {start: -3, end: 10}}]}, route: {cluster: a}}
  - {match: {ANY, headers: [{name: h-present, present_match: true}]}, route: {cluster: a}}
  - {match: {ANY, headers: [{name: h-x, string_match: {exact: "1"}}, {name: h-y, string_match: {exact: "2"}}]}, route: {cluster: a}}
  - {match: {ANY, headers: [{name: h-old, exact_match: one}]}, route: {cluster: a}}
  - {match: {ANY}, route: {cluster: b}}
- {name: absent, interface: demo.Absent, routes: [{match: {ANY, headers: [{name: h-absent, present_match: false}]}, route: {cluster: a}}, {match: {ANY}, route: {cluster: b}}]}
- {name: invert, interface: demo.Invert, routes: [{match: {ANY, headers: [{name: h-invert, string_match: {exact: one}, invert_match: true}]}, route: {cluster: a}}, {match: {ANY}, route: {cluster: b}}]}
- {name: empty, interface: demo.Empty, routes: [{match: {ANY, headers: [{name: h-empty, string_match: {exact: ""}, treat_missing_header_as_empty: true}]}, route: {cluster: a}}, {match: {ANY}, route: {cluster: b}}]}
- name: params
  interface: demo.Params
  routes:
  - {match: {method: {name: {exact: e}, params_match: {0: {exact_match: one}}}}, route: {cluster: a}}
  - {match: {method: {name: {exact: r}, params_match: {1: {range_match: {start: 1, end: 10}}}}}, route: {cluster: a}}
  - {match: {method: {name: {exact: n}, params_match: {0: {exact_match: "7"}}}}, route: {cluster: a}}
  - {match: {method: {name: {exact: t}, params_match: {0: {exact_match: "true"}}}}, route: {cluster: a}}
  - {match: {method: {name: {exact: d}, params_match: {0: {exact_match: "1.5"}}}}, route: {cluster: a}}
  - {match: {method: {name: {exact: x}, params_match: {0: {exact_match: ""}}}}, route: {cluster: a}}
  - {match: {method: {name: {exact: two}, params_match: {0: {exact_match: one}, 1: {exact_match: two}}}}, route: {cluster: a}}
  - {match: {ANY}, route: {cluster: b}}
- {name: weighted, interface: demo.Weighted, routes: [{match: {ANY}, route: {weighted_clusters: {clusters: [{name: a, weight: 100}, {name: b, weight: 0}]}}}]}
- {name: generic, interface: demo.Generic, routes: [{match: {method: {name: {exact: real}}}, route: {cluster: a}}, {match: {ANY}, route: {cluster: b}}]}
- {name: nocluster, interface: demo.NoCluster, routes: [{match: {ANY}, route: {cluster: nobody}}]}
- {name: noendpoint, interface: demo.NoEndpoint, routes: [{match: {ANY}, route: {cluster: empty}}]}
- {name: refused, interface: demo.Refused, routes: [{match: {ANY}, route: {cluster: refused}}]}
- {name: answers, interface: demo.Answers, routes: [{match: {ANY}, route: {cluster: a}}]}
"""

STARS = r"""
- {interface: "*mid*", routes: [{match: {ANY}, route: {cluster: a}}]}
- {interface: "*", routes: [{match: {ANY}, route: {cluster: b}}]}
"""
STARS2 = r"""
- {interface: "**", routes: [{match: {ANY}, route: {cluster: a}}]}
"""
STARS3 = r"""
- {routes: [{match: {ANY}, route: {cluster: a}}]}
"""


def one(name: str, service: str, method: str = "m", to: str | None = "a", **more: object) -> Case:
    return calls(name, call(f"demo.{service}", method, **more), to=to)


def header(name: str, to: str, **attachments: object) -> Case:
    return one(f"header_{name}", "Headers", to=to, attachments={k.replace("_", "-"): v for k, v in attachments.items()})


CASES = (
    one("method_exact", "Exact"),
    one("method_prefix", "Exact", "prefix", "b"),
    one("method_suffix", "Exact", "someSuf"),
    one("method_contains", "Exact", "amidst", "b"),
    one("method_regex", "Exact", "r42"),
    one("method_nocase", "Exact", "nOcASE", "b"),
    one("method_none", "Exact", "unknown", None),
    calls("interface_prefix", call("pre.Any"), to="a"),
    calls("interface_prefix_alone", call("pre."), to=None),
    calls("interface_suffix", call("demo.Suffix"), to="b"),
    calls("interface_suffix_alone", call("Suffix"), to=None),
    calls("interface_inner_star", call("inner"), to=None),
    calls("interface_inner_star_literal", call("in*ner"), to=None),
    calls("interface_unknown", call("demo.Unknown"), to=None),
    calls("interface_empty", call(""), to=None),
    one("version_two", "Versions", version="2.0.0", to="b"),
    one("version_one", "Versions"),
    one("version_zero", "Versions", version="0.0.0"),
    one("version_null", "Versions", version=None, to=None),
    one("group_same", "Groups", attachments={"group": "g1"}, to="b"),
    one("group_other", "Groups", attachments={"group": "g2"}),
    one("group_none", "Groups"),
    header("exact", "a", h_exact="one"),
    header("exact_no", "b", h_exact="two"),
    header("key_upper", "a", H_EXACT="one"),
    header("config_upper", "a", upper_config="one"),
    header("both_upper", "a", Upper_Config="one"),
    header("nocase", "a", h_nocase="oNE"),
    header("prefix", "a", h_prefix="only"),
    header("suffix", "a", h_suffix="one"),
    header("contains", "a", h_contains="amidst"),
    header("regex", "a", h_regex="aab"),
    header("range", "a", h_range="9"),
    header("range_end", "b", h_range="10"),
    header("range_int", "b", h_range=5),
    header("present", "a", h_present="x"),
    header("present_empty", "a", h_present=""),
    header("present_int", "b", h_present=5),
    header("and", "a", h_x="1", h_y="2"),
    header("and_one", "b", h_x="1"),
    header("old", "a", h_old="one"),
    one("header_absent", "Absent"),
    one("header_absent_but_there", "Absent", attachments={"h-absent": "x"}, to="b"),
    one("header_invert", "Invert", attachments={"h-invert": "two"}),
    one("header_invert_same", "Invert", attachments={"h-invert": "one"}, to="b"),
    one("header_invert_missing", "Invert", to="b"),
    one("header_empty", "Empty"),
    one("param_exact", "Params", "e", types=STRING, arguments=("one",)),
    one("param_exact_no", "Params", "e", types=STRING, arguments=("two",), to="b"),
    one("param_missing", "Params", "e", to="b"),
    one("param_null", "Params", "e", types=STRING, arguments=(None,), to="b"),
    one("param_range", "Params", "r", types=STRING + "I", arguments=("x", 9)),
    one("param_range_end", "Params", "r", types=STRING + "I", arguments=("x", 10), to="b"),
    one("param_range_text", "Params", "r", types=STRING * 2, arguments=("x", "5")),
    one("param_number", "Params", "n", types="I", arguments=(7,)),
    one("param_true", "Params", "t", types="Z", arguments=(True,)),
    one("param_double", "Params", "d", types="D", arguments=(1.5,)),
    one("param_empty", "Params", "x", types=STRING, arguments=("whatever",)),
    one("param_two", "Params", "two", types=STRING * 2, arguments=("one", "two")),
    one("param_two_one", "Params", "two", types=STRING * 2, arguments=("one", "three"), to="b"),
    one("weighted", "Weighted"),
    calls("generic_real", generic_call("real", service="demo.Generic"), to="b"),
    one("no_cluster", "NoCluster", to=None),
    one("no_endpoint", "NoEndpoint", to=None),
    one("refused", "Refused", to=None),
    one("answer_null", "Answers", "null"),
    one("answer_null_old", "Answers", "nullold"),
    one("answer_old", "Answers", "old"),
    one("answer_throw", "Answers", "throw"),
    one("answer_throw_old", "Answers", "throwold"),
    one("answer_golang", "Answers", "golang"),
    *(one(f"answer_status_{code}", "Answers", f"status_{code}") for code in (25, 30, 31, 35, 40, 50, 60, 70, 80, 90, 100)),
    one("answer_wrong_id", "Answers", "wrongid"),
    one("answer_bad_type", "Answers", "badtype"),
    one("answer_garbage", "Answers", "garbage"),
    calls("one_way", call("demo.Answers", one_way=True), to="a"),
    calls("one_way_no_route", call("demo.Unknown", one_way=True), to=None),
    calls("one_way_then_call", call("demo.Answers", one_way=True), call("demo.Answers", request_id=2), to="a", upstream=2),
    calls("negative_id", call("demo.Answers", request_id=-5), to="a"),
    calls("heartbeat", heartbeat(7), to=None),
    calls("heartbeat_negative", heartbeat(-7), to=None),
    calls("heartbeat_empty", frame(0xE2, 0, 3, b""), to=None),
    calls("heartbeat_nn", frame(0xE2, 0, 3, b"NN"), to=None),
    calls("heartbeat_then_call", heartbeat(7), call("demo.Answers"), to="a"),
    calls("heartbeat_java", frame(0xE3, 0, 3, bytes.fromhex("aced0005770100")), to=None),
    calls("readonly", frame(0xA2, 0, 3, b"\x01R"), call("demo.Answers"), to="a"),
    calls(
        "two_calls",
        call("demo.Answers", request_id=1),
        call("demo.Answers", "null", request_id=2),
        at_once=False,
        to="a",
        upstream=2,
    ),
    calls("trailing_bytes", call("demo.Answers", tail=b"N"), to="a"),
    calls("no_attachments", frame(0xC2, 0, 1, b"\x052.0.2\x0cdemo.Answers\x051.0.0\x01m\x00"), to="a"),
    calls("null_attachments", frame(0xC2, 0, 1, b"\x052.0.2\x0cdemo.Headers\x051.0.0\x01m\x00N"), to="b"),
    calls(
        "typed_attachments",
        frame(0xC2, 0, 1, b"\x052.0.2\x0cdemo.Headers\x051.0.0\x01m\x00M\x11java.util.TreeMap\x07h-exact\x03oneZ"),
        to="b",
    ),
    calls("cut_body", frame(0xC2, 0, 1, b"\x052.0.2\x0cdemo.Ans"), to=None),
    calls("bad_body", frame(0xC2, 0, 1, b"\x40\x40\x40"), to=None),
    calls("bad_magic", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", to=None),
    calls("negative_length", b"\xda\xbb\xc2\x00" + b"\0" * 7 + b"\x01\xff\xff\xff\xff", to=None),
    calls("fastjson2_call", frame(0xD7, 0, 1, bytes.fromhex("000000064e322e302e32") + b"x"), to=None),
    calls("response_from_downstream", frame(0x02, 20, 1, b"\x92"), to=None),
    calls("interface_both_stars", call("xmidy"), to=None, listener="stars"),
    calls("interface_both_stars_suffix", call("xmid*"), to=None, listener="stars"),
    calls("interface_star", call("other"), to=None, listener="stars"),
    calls("interface_star_empty", call(""), to=None, listener="stars"),
    calls("interface_two_stars", call("y"), to=None, listener="stars2"),
    calls("interface_nothing_empty", call(""), to=None, listener="stars3"),
    calls("interface_nothing_other", call("y"), to=None, listener="stars3"),
    calls("half_closed", call("demo.Answers"), half_close=True, to="a"),
)

SUITE = Suite(
    bootstrap(
        [dubbo("main", ROUTES), dubbo("stars", STARS), dubbo("stars2", STARS2), dubbo("stars3", STARS3)],
        [cluster("a", "dubbo.a"), cluster("b", "dubbo.b"), cluster("empty"), cluster("refused", "refused.x")],
    ),
    CASES,
)


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_case(case: Case, pair: Pair) -> None:
    pair.check(case)
