"""The Dubbo manager: routing by interface, method, group, version, attachments and arguments; answers, events, errors."""

from struct import pack
from typing import Any

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


TEXT = {"note.answer.body": "the text of an answer that the proxy makes itself is for people"}
NUMBER = {"note.*": "a number is as good as its text; Envoy knows attachments and arguments that are strings only"}


def one(name: str, service: str, method: str = "m", to: str | None = "a", **more: Any) -> Case:
    rest = {key: more.pop(key) for key in ("accept", "ours", "want") if key in more}
    if to is None:
        rest.setdefault("accept", TEXT)
    return calls(name, call(f"demo.{service}", method, **more), to=to, **rest)


def differs(name: str, why: str, *frames: bytes, ours: str | None = None, to: str | None = None, **more: Any) -> Case:
    """A case in which Envoy is no model: `ours` is the endpoint that gets our call."""
    demanded = {"note.endpoint": ours} if ours is not None else {}
    return calls(name, *frames, to=to, accept={"*": why}, ours={**demanded, **more.pop("demand", {})}, **more)


def header(name: str, to: str, **attachments: Any) -> Case:
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
    calls("interface_prefix_alone", call("pre."), accept=TEXT),
    calls("interface_suffix", call("demo.Suffix"), to="b"),
    calls("interface_suffix_alone", call("Suffix"), accept=TEXT),
    calls("interface_inner_star", call("inner"), accept=TEXT),
    calls("interface_inner_star_literal", call("in*ner"), to=None),
    calls("interface_unknown", call("demo.Unknown"), accept=TEXT),
    calls("interface_empty", call(""), accept=TEXT),
    one("version_two", "Versions", version="2.0.0", to="b"),
    one("version_one", "Versions"),
    one("version_zero", "Versions", version="0.0.0"),
    differs(
        "version_null", "callbacks have no version; Envoy closes the connection", call("demo.Versions", version=None), ours="a"
    ),
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
    differs("header_range_int", NUMBER["note.*"], call("demo.Headers", attachments={"h-range": 5}), to="b", ours="a"),
    header("present", "a", h_present="x"),
    header("present_empty", "a", h_present=""),
    differs("header_present_int", NUMBER["note.*"], call("demo.Headers", attachments={"h-present": 5}), to="b", ours="a"),
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
    one("param_range", "Params", "r", types=STRING + "I", arguments=("x", 9), to="b", accept=NUMBER, ours={"note.endpoint": "a"}),
    one("param_range_end", "Params", "r", types=STRING + "I", arguments=("x", 10), to="b"),
    one("param_range_text", "Params", "r", types=STRING * 2, arguments=("x", "5")),
    one("param_number", "Params", "n", types="I", arguments=(7,), to="b", accept=NUMBER, ours={"note.endpoint": "a"}),
    one("param_true", "Params", "t", types="Z", arguments=(True,), to="b", accept=NUMBER, ours={"note.endpoint": "a"}),
    one("param_double", "Params", "d", types="D", arguments=(1.5,), to="b", accept=NUMBER, ours={"note.endpoint": "a"}),
    one("param_empty", "Params", "x", types=STRING, arguments=("whatever",)),
    one("param_two", "Params", "two", types=STRING * 2, arguments=("one", "two")),
    one("param_two_one", "Params", "two", types=STRING * 2, arguments=("one", "three"), to="b"),
    one("weighted", "Weighted"),
    differs(
        "generic_real",
        "a generic call is routed by the method that it really calls",
        generic_call("real", service="demo.Generic"),
        to="b",
        ours="a",
    ),
    calls("generic_other", generic_call("unreal", service="demo.Generic"), to="b"),
    one("no_cluster", "NoCluster", to=None),
    one("no_endpoint", "NoEndpoint", to=None),
    one("refused", "Refused", to=None),
    one("answer_null", "Answers", "null"),
    one("answer_null_old", "Answers", "nullold"),
    one("answer_old", "Answers", "old"),
    one("answer_throw", "Answers", "throw"),
    one("answer_throw_old", "Answers", "throwold"),
    one(
        "answer_golang",
        "Answers",
        "golang",
        accept={"note.*": "dubbo-go writes an N behind every answer; Envoy makes an error of it"},
        ours={"note.answer.status": "20", "note.answer.body": "924e"},
    ),
    *(one(f"answer_status_{code}", "Answers", f"status_{code}") for code in (30, 31, 40, 50, 60, 70, 80, 90, 100)),
    *(
        one(
            f"answer_status_{code}",
            "Answers",
            f"status_{code}",
            accept={"note.*": "a status that Dubbo has and Envoy does not know"},
            ours={"note.answer.status": str(code), "note.answer.body": "told to fail"},
        )
        for code in (25, 35)
    ),
    differs(
        "answer_wrong_id",
        "nobody waits for this id: it is dropped, where Envoy sends it on",
        call("demo.Answers", "wrongid"),
        to="a",
        answers=0,
        end=0.3,
        demand={"end": "open"},
    ),
    one(
        "answer_bad_type",
        "Answers",
        "badtype",
        accept={"note.*": "the kind of the result is between provider and consumer"},
        ours={"note.answer.status": "20", "note.answer.body": "9f"},
    ),
    one(
        "answer_garbage",
        "Answers",
        "garbage",
        accept={"note.answer.*": "bytes that are no Dubbo end the connection, as any broken one"},
        ours={"note.answer.status": "80"},
    ),
    calls("one_way", call("demo.Answers", one_way=True), to="a"),
    differs(
        "one_way_no_route",
        "nobody waits for an answer to a one-way call; Envoy sends one",
        call("demo.Unknown", one_way=True),
        demand={"end": "open"},
    ),
    calls("one_way_then_call", call("demo.Answers", one_way=True), call("demo.Answers", request_id=2), to="a", upstream=2),
    calls("negative_id", call("demo.Answers", request_id=-5), to="a"),
    calls("heartbeat", heartbeat(7)),
    calls("heartbeat_negative", heartbeat(-7)),
    calls("heartbeat_empty", frame(0xE2, 0, 3, b"")),
    differs("heartbeat_nn", "the null is copied from the request", frame(0xE2, 0, 3, b"NN"), demand={"note.answer.body": "4e4e"}),
    calls("heartbeat_then_call", heartbeat(7), call("demo.Answers"), to="a"),
    differs(
        "heartbeat_java",
        "another serialization; Envoy closes the connection",
        frame(0xE3, 0, 3, bytes.fromhex("aced0005770100")),
        demand={"note.answer.status": "20", "note.answer.body": "aced0005770100"},
    ),
    differs(
        "readonly",
        "a one-way event gets no answer; Envoy takes it for a heartbeat",
        frame(0xA2, 0, 3, b"\x01R"),
        call("demo.Answers"),
        to="a",
        ours="a",
        demand={"note.answer.id": "1"},
    ),
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
    differs(
        "typed_attachments",
        "attachments are also a typed map; Envoy takes it for empty",
        frame(0xC2, 0, 1, b"\x052.0.2\x0cdemo.Headers\x051.0.0\x01m\x00M\x11java.util.TreeMap\x07h-exact\x03oneZ"),
        to="b",
        ours="a",
    ),
    differs(
        "cut_body",
        "the caller is told; Envoy closes the connection",
        frame(0xC2, 0, 1, b"\x052.0.2\x0cdemo.Ans"),
        demand={"note.answer.status": "40", "end": "open"},
    ),
    differs(
        "bad_body",
        "the caller is told; Envoy closes the connection",
        frame(0xC2, 0, 1, b"\x40\x40\x40"),
        demand={"note.answer.status": "40", "end": "open"},
    ),
    differs(
        "bad_magic",
        "Envoy closes the connection without a word; people who come by telnet are told why first",
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        end=20.0,
        demand={"end": "data"},
    ),
    calls("negative_length", b"\xda\xbb\xc2\x00" + b"\0" * 7 + b"\x01\xff\xff\xff\xff"),
    differs(
        "fastjson2_call",
        "the default of Dubbo 3.2; Envoy closes the connection",
        frame(
            0xD7,
            0,
            1,
            b"".join(pack(">IB", len(one) + 1, 0x49 + len(one)) + one for one in (b"2.0.2", b"demo.Answers", b"1.0.0", b"m", b""))
            + b"\0\0\0\2\xa6\xa5",
        ),
        ours="a",
        upstream=1,
    ),
    calls("interface_both_stars", call("xmidy"), listener="stars", accept=TEXT),
    calls("interface_both_stars_suffix", call("xmid*"), listener="stars", accept=TEXT),
    calls("interface_star", call("other"), listener="stars", accept=TEXT),
    calls("interface_star_empty", call(""), listener="stars", accept=TEXT),
    calls("interface_two_stars", call("y"), listener="stars2", accept=TEXT),
    calls("interface_nothing_empty", call(""), listener="stars3", accept=TEXT),
    calls("interface_nothing_other", call("y"), listener="stars3", accept=TEXT),
    # Envoy 1.40 crashes at the next call after this one, so it is the last. (It also crashes when a provider answers in another
    # serialization than hessian2, and when a consumer sends a response: there is nothing to compare.)
    one("answer_closed", "Answers", "close", accept=TEXT),
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
