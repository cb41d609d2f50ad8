"""The rules that Envoy's protos carry about themselves (`validate.rules`, protoc-gen-validate), applied to any message.

Envoy checks the same rules before it looks at a resource, so required fields, ranges, patterns and lengths need not be
written a second time in the translators, which may take them for granted. Rules are compiled once per message type.
An `Any` is not entered here: its content is checked when it is unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import re2
from google.protobuf.message import Message
from validate import validate_pb2  # type: ignore[import-untyped]

from mesh_proxy.config.errors import join
from mesh_proxy.config.problems import Problems

Check = Callable[[Any], str | None]
"""takes the value of a field, says what is wrong with it"""

_AT = "\0"
"""between the index of an entry and the reason"""

_CONTROL = frozenset("\0\n\r")


class _Plan:
    """What to check in messages of one type."""

    __slots__ = ("checks", "oneofs", "required", "skipped")

    def __init__(self) -> None:
        self.checks: list[tuple[Any, bool, Check]] = []
        """(field, only when it is set, check)"""
        self.required: list[str] = []
        self.oneofs: list[tuple[str, str]] = []
        """(name, its members as text) of which one must be set"""
        self.skipped: set[str] = set()
        """fields whose messages follow no rules here"""


_plans: dict[str, _Plan] = {}


def check_rules(message: Message, path: str, problems: Problems) -> None:
    """Add to `problems` every rule that `message`, or a message in it, breaks."""
    descriptor = message.DESCRIPTOR
    plan = _plans.get(descriptor.full_name)
    if plan is None:
        plan = _plans[descriptor.full_name] = _compile(descriptor)
    for name in plan.required:
        if not message.HasField(name):
            problems.add(join(path, name), "is required")
    for oneof, members in plan.oneofs:
        if message.WhichOneof(oneof) is None:
            problems.add(path, f"needs one of {members}")
    for field, only_set, check in plan.checks:
        if only_set and not message.HasField(field.name):
            continue
        why = check(getattr(message, field.name))
        if why is not None:
            where, _, text = why.rpartition(_AT)
            problems.add(join(path, field.name) + where, text)
    for field, value in message.ListFields():
        if field.message_type is None or field.name in plan.skipped:
            continue
        inner = join(path, field.name)
        if not field.is_repeated:
            check_rules(value, inner, problems)
        elif not field.message_type.GetOptions().map_entry:
            for i, item in enumerate(value):
                check_rules(item, f"{inner}[{i}]", problems)
        elif field.message_type.fields_by_name["value"].message_type is not None:
            for key in value:
                check_rules(value[key], f"{inner}[{key}]", problems)


def forget() -> None:
    """Give back the memory of the compiled rules (the next check compiles them again)."""
    _plans.clear()


def _compile(descriptor: Any) -> _Plan:
    plan = _Plan()
    if descriptor.full_name.startswith("google.protobuf."):
        return plan
    for oneof in descriptor.oneofs:
        if oneof.GetOptions().Extensions[validate_pb2.required]:
            plan.oneofs.append((oneof.name, ", ".join(f.name for f in oneof.fields if not _hidden(f))))
    for field in descriptor.fields:
        options = field.GetOptions()
        if not options.HasExtension(validate_pb2.rules):
            continue
        rules = options.Extensions[validate_pb2.rules]
        kind = rules.WhichOneof("type")
        if rules.message.skip:
            plan.skipped.add(field.name)
        must = rules.message.required or (kind in ("duration", "timestamp", "any") and getattr(rules, kind).required)
        if must and field.containing_oneof is None:
            plan.required.append(field.name)
        if kind is None:
            continue
        check = _repeated(field, rules.repeated) if kind == "repeated" else _check(field, kind, getattr(rules, kind))
        if check is not None:
            plan.checks.append((field, field.has_presence, check))
    return plan


def _hidden(field: Any) -> bool:
    return field.name.startswith("hidden_") or bool(field.GetOptions().deprecated)


def _check(field: Any, kind: str, rules: Any) -> Check | None:
    if kind == "string":
        return _wrapped(field, _string(rules))
    if kind == "enum":
        return _enum(field, rules)
    if kind == "duration":
        return _duration(rules)
    if kind == "map":
        return _map(rules)
    if kind == "bytes":
        return _bytes(rules)
    if kind == "bool":
        return lambda value: None if value == rules.const else f"must be {str(rules.const).lower()} if it is given"
    if kind in ("any", "timestamp"):
        return None
    return _wrapped(field, _number(rules))


def _wrapped(field: Any, check: Check) -> Check:
    """The same check for a `UInt32Value` and its kin."""
    if field.message_type is not None and not field.is_repeated:
        return lambda message: check(message.value)
    return check


def _bounds(rules: Any) -> Iterator[tuple[str, Any]]:
    for name in ("const", "lt", "lte", "gt", "gte"):
        if rules.HasField(name):
            yield name, getattr(rules, name)


_WORDS = {"const": "exactly", "lt": "less than", "lte": "at most", "gt": "more than", "gte": "at least"}
_HOLDS: dict[str, Callable[[Any, Any], bool]] = {
    "const": lambda value, bound: bool(value == bound),
    "lt": lambda value, bound: bool(value < bound),
    "lte": lambda value, bound: bool(value <= bound),
    "gt": lambda value, bound: bool(value > bound),
    "gte": lambda value, bound: bool(value >= bound),
}


def _number(rules: Any) -> Check:
    bounds = list(_bounds(rules))
    allowed = list(getattr(rules, "in"))
    text = "must be " + " and ".join(
        f"{_WORDS[name]} {bound:g}" if isinstance(bound, float) else f"{_WORDS[name]} {bound}" for name, bound in bounds
    )
    ignore_empty = rules.ignore_empty

    def check(value: Any) -> str | None:
        if ignore_empty and not value:
            return None
        if not all(_HOLDS[name](value, bound) for name, bound in bounds):
            return f"{text}, not {value}"
        if allowed and value not in allowed:
            return f"must be one of {', '.join(map(str, allowed))}, not {value}"
        return None

    return check


def _seconds(duration: Any) -> float:
    return float(duration.seconds + duration.nanos / 1e9)


def _duration(rules: Any) -> Check:
    bounds = [(name, _seconds(bound)) for name, bound in _bounds(rules)]
    text = "must be " + " and ".join(f"{_WORDS[name]} {bound:g}s" for name, bound in bounds)

    def check(value: Any) -> str | None:
        seconds = _seconds(value)
        if not all(_HOLDS[name](seconds, bound) for name, bound in bounds):
            return f"{text}, not {seconds:g}s"
        return None

    return check


def _string(rules: Any) -> Check:
    min_len, max_len = max(rules.min_len, rules.len), rules.max_len or rules.len
    min_bytes, max_bytes = rules.min_bytes, rules.max_bytes
    prefix, suffix, allowed = rules.prefix, rules.suffix, list(getattr(rules, "in"))
    pattern = re2.compile(rules.pattern) if rules.pattern else None
    header_text = rules.HasField("well_known_regex")

    def check(value: str) -> str | None:
        if not value:
            if rules.ignore_empty:
                return None
            if min_len or min_bytes:
                return "must not be empty"
        elif header_text and not _CONTROL.isdisjoint(value):
            return "must not hold a line break or a zero byte"
        if len(value) < min_len or (min_bytes and len(value.encode()) < min_bytes):
            return f"must have at least {min_len or min_bytes} characters"
        if (max_len and len(value) > max_len) or (max_bytes and len(value.encode()) > max_bytes):
            return f"must have at most {max_len or max_bytes} characters"
        if not value.startswith(prefix) or not value.endswith(suffix):
            return f"must start with {prefix!r}" if prefix else f"must end with {suffix!r}"
        if pattern is not None and not pattern.search(value):
            return f"must match {rules.pattern}, and {value!r} does not"
        if allowed and value not in allowed:
            return f"must be one of {', '.join(allowed)}, not {value!r}"
        return None

    return check


def _bytes(rules: Any) -> Check:
    low, high = rules.min_len, rules.max_len

    def check(value: bytes) -> str | None:
        if len(value) < low:
            return "must not be empty" if low == 1 else f"must have at least {low} bytes"
        return f"must have at most {high} bytes" if high and len(value) > high else None

    return check


def _enum(field: Any, rules: Any) -> Check:
    numbers, refused = field.enum_type.values_by_number, set(rules.not_in)

    def check(value: int) -> str | None:
        if value not in numbers:
            return f"{value} is not a value of {field.enum_type.full_name}"
        return f"must not be {numbers[value].name}" if value in refused else None

    return check


def _repeated(field: Any, rules: Any) -> Check:
    low, high = rules.min_items, rules.max_items
    kind = rules.items.WhichOneof("type") if rules.HasField("items") else None
    item: Check | None = None
    if kind == "enum":
        item = _enum(field, rules.items.enum)
    elif kind not in (None, "any", "bytes"):
        item = {"string": _string, "duration": _duration}.get(kind, _number)(getattr(rules.items, kind))

    def check(values: Any) -> str | None:
        count = len(values)
        if count < low:
            return "must not be empty" if low == 1 else f"must have at least {low} entries"
        if high and count > high:
            return f"must have at most {high} entries"
        if rules.unique and len(set(values)) != count:
            return "must not hold the same value twice"
        if item is not None:
            for i, value in enumerate(values):
                why = item(value)
                if why is not None:
                    return f"[{i}]{_AT}{why}"
        return None

    return check


def _map(rules: Any) -> Check:
    low = rules.min_pairs
    key = _string(rules.keys.string) if rules.HasField("keys") and rules.keys.WhichOneof("type") == "string" else None
    item = _string(rules.values.string) if rules.HasField("values") and rules.values.WhichOneof("type") == "string" else None

    def check(values: Any) -> str | None:
        if len(values) < low:
            return "must not be empty"
        if key is not None:
            for name in values:
                why = key(name)
                if why is not None:
                    return f"[{name}]{_AT}key {why}"
        if item is not None:
            for name, value in values.items():
                why = item(value)
                if why is not None:
                    return f"[{name}]{_AT}{why}"
        return None

    return check
