"""YAML as Envoy reads it; the values were checked with Envoy 1.40."""

from typing import Any

import pytest

from mesh_proxy.config import yaml_text
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.yaml_text import parse_yaml


def parse(text: str) -> Any:
    return parse_yaml(text, lambda path, text: pytest.fail(f"{path}: {text}"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("y", True),
        ("Off", False),
        ("NO", False),
        ("yEs", "yEs"),
        ("1", 1),
        ("-7", -7),
        ("+7", 7),
        ("010", 8),
        ("08", "08"),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("1.5", "1.5"),
        ("1e3", "1e3"),
        (".inf", ".inf"),
        ("9007199254740992", 9007199254740992),
        ("9007199254740993", "9007199254740993"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("'1'", "1"),
        ('"yes"', "yes"),
        ("|\n  1\n", "1\n"),
        ("[1, [a], {b: c}]", [1, ["a"], {"b": "c"}]),
    ],
)
def test_values(text: str, value: Any) -> None:
    result = parse(f"a: {text}")
    assert result == {"a": value}
    assert type(result["a"]) is type(value)


def test_keys_are_text() -> None:
    assert parse("1: a\nyes: b") == {"1": "a", "yes": "b"}
    with pytest.raises(ConfigError, match="line 1: a key must be a plain word"):
        parse("{[a]: b}")


def test_anchors_and_ignored_entries() -> None:
    assert parse("!ignore x: &x {a: 1}\nb: *x\nc: {d: *x}") == {"b": {"a": 1}, "c": {"d": {"a": 1}}}


def test_the_last_of_two_equal_keys_wins() -> None:
    warned: list[str] = []
    value = parse_yaml("static_resources:\n  a: 1\n  a: 2", lambda path, text: warned.append(f"{path}: {text}"))
    assert value == {"static_resources": {"a": 2}}
    assert warned == ["a: given twice, the last one (line 3) wins"]


def test_the_first_document_counts() -> None:
    assert parse("a: 1\n---\na: 2") == {"a": 1}
    assert parse("# nothing") is None


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\ta: 1", "a: *x", "a: \x01"])
def test_what_is_no_yaml(text: str) -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_yaml(text, lambda path, text: None, "b.yaml")


def test_endless_nesting_is_refused() -> None:
    with pytest.raises(ConfigError, match="nested too deeply"):
        parse("a: &x [*x]")
    with pytest.raises(ConfigError, match="nested too deeply"):
        parse("[" * 300 + "]" * 300)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"b": [1, -2, 0, -0, 1.5, 1e3, -1E-2, true, false, null, "x\\n\\t\\"\\\\\\/\\u00e4", "", {}, []]}}',
        '{"big": 9007199254740993, "edge": 9007199254740992, "low": -9007199254740993}',
        ' \n {"yes": "yes", "null": "null", "010": "010"}\n',
        '{"a": "\\u0000"}',
        "{a: 1, 'b': y}",
        '{"a": 1} # told',
        '{"a": NaN}',
        '{"a": 010}',
        '{"a": "ä"}',
        '{"a": "two\n  lines"}',
        '{"a": 1,}',
    ],
)
def test_json_means_what_it_means_as_yaml(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = parse(text)
    monkeypatch.setattr(yaml_text, "_parse_json", not_json)
    assert repr(parse(text)) == repr(value)


def not_json(text: str) -> Any:
    raise ValueError(text)


@pytest.mark.parametrize("text", ['{"a": "\\ud83d\\ude00"}', '{"a": "\x7f"}', '{"a": "\\q"}', '{"a": 1', "{" * 300 + "}" * 300])
def test_json_that_is_no_yaml(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)


def test_equal_keys_in_json_are_told_of() -> None:
    told: list[tuple[str, str]] = []
    assert parse_yaml('{"a": {"b": 1, "b": 2}}', lambda path, text: told.append((path, text))) == {"a": {"b": 2}}
    assert told == [("a.b", "given twice, the last one (line 1) wins")]


@pytest.mark.parametrize("opening", ["[", '{"a": '])
def test_json_is_not_nested_deeper_than_yaml(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    for depth in (100, 190):
        value = parse('{"x": ' + opening * depth + "1" + closing * depth + "}")
        for _ in range(depth + 1):
            value = value[0] if isinstance(value, list) else next(iter(value.values()))
        assert value == 1
    with pytest.raises(ConfigError, match="nested too deeply"):
        parse('{"x": ' + opening * 250 + "1" + closing * 250 + "}")
