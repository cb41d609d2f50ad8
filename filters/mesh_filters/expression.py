"""Conditions on a request as one line of text: `header user-id % 100 == 20 and not cookie beta == off`.

    condition  = term { "or" term }
    term       = factor { "and" factor }
    factor     = "not" factor | "(" condition ")" | comparison
    comparison = value [ "%" number ] operator literal | value "in" "(" literal { "," literal } ")" | value "exists"
    value      = ( "header" | "attachment" | "cookie" | "query" | "baggage" | "tracestate" | "jwt" | "argument"
                 | "source" | "source_label" ) name
               | "path" | "method" | "authority" | "source_ip" | "protocol" | "service" | "group" | "version"
    operator   = "==" | "!=" | "<" | "<=" | ">" | ">=" | "startswith" | "endswith" | "contains"

A value that the request does not have makes its comparison false, also `!=`. `<` and the like, and `%`, compare whole
numbers; a value that is none makes them false. `method` is that of HTTP, `POST` for calls of every protocol: which one it is
stands at the end of `path`. There is no way to call or to compute anything else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from mesh_filters.definition import FieldError
from mesh_filters.filter import Stream
from mesh_filters.values import PLAIN, Reads, Value, reads, reads_of_all, value_source

Condition = Callable[[Stream], bool]
_TOKEN: Final = re.compile(r"""\s*(?:("(?:[^"\\]|\\.)*"|'[^']*')|(==|!=|<=|>=|<|>|%|\(|\)|,)|([^\s()<>=!%,"']+))""")
_NAMED: Final = frozenset(
    {"header", "attachment", "cookie", "query", "baggage", "tracestate", "jwt", "argument", "source", "source_label"}
)
_ORDERED: Final[dict[str, Callable[[int, int], bool]]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_TEXTUAL: Final[dict[str, Callable[[bytes, bytes], bool]]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "startswith": lambda a, b: a.startswith(b),
    "endswith": lambda a, b: a.endswith(b),
    "contains": lambda a, b: b in a,
}
REMEMBERED: Final = 1024
"""values whose answer a comparison keeps; they come from requests, so there must be an end. Then it starts anew"""
LONGEST_REMEMBERED: Final = 128
DEEPEST: Final = 32
"""parentheses and `not` within each other"""


def compile_condition(text: str, path: str) -> Condition:
    """A condition.

    Raises:
        FieldError: the text is none; says where it went wrong.
    """
    return _Parser(text, path).whole()


def condition_reads(text: str) -> Reads:
    """What a condition that was checked reads."""
    parser = _Parser(text, "")
    parser.whole()
    return reads_of_all(parser.kinds)


def whole_number(value: bytes) -> int | None:
    """A decimal number of at most 18 digits."""
    digits = value[1:] if value[:1] == b"-" else value
    return int(value) if digits.isdigit() and len(digits) <= 18 else None


class _Parser:
    def __init__(self, text: str, path: str) -> None:
        self.path = path
        self.tokens: list[tuple[str, bool]] = []
        """(text, quoted)"""
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                raise FieldError(path, f"cannot be understood from {text[position:].strip()[:20]!r} on")
            quoted, sign, word = match.groups()
            self.tokens.append((re.sub(r"\\(.)", r"\1", quoted[1:-1]), True) if quoted is not None else (sign or word, False))
            position = match.end()
        self.position = 0
        self.depth = 0
        self.kinds: list[Reads] = []
        """what its values read"""

    def _peek(self) -> str:
        return self.tokens[self.position][0] if self.position < len(self.tokens) and not self.tokens[self.position][1] else ""

    def _next(self, what: str) -> str:
        if self.position >= len(self.tokens):
            raise FieldError(self.path, f"ends where {what} should stand")
        self.position += 1
        return self.tokens[self.position - 1][0]

    def _expect(self, sign: str) -> None:
        found = self._next(repr(sign))
        if found != sign:
            raise FieldError(self.path, f"has {found!r} where {sign!r} should stand")

    def whole(self) -> Condition:
        condition = self._any()
        if self.position < len(self.tokens):
            raise FieldError(self.path, f"goes on with {self.tokens[self.position][0]!r} after its end")
        return condition

    def _any(self) -> Condition:
        terms = [self._all()]
        while self._peek() == "or":
            self.position += 1
            terms.append(self._all())
        return terms[0] if len(terms) == 1 else lambda stream: any(term(stream) for term in terms)

    def _all(self) -> Condition:
        factors = [self._factor()]
        while self._peek() == "and":
            self.position += 1
            factors.append(self._factor())
        return factors[0] if len(factors) == 1 else lambda stream: all(factor(stream) for factor in factors)

    def _factor(self) -> Condition:
        self.depth += 1
        if self.depth > DEEPEST:
            raise FieldError(self.path, "is nested too deeply")
        try:
            if self._peek() == "not":
                self.position += 1
                inner = self._factor()
                return lambda stream: not inner(stream)
            if self._peek() == "(":
                self.position += 1
                condition = self._any()
                self._expect(")")
                return condition
            return self._comparison()
        finally:
            self.depth -= 1

    def _comparison(self) -> Condition:
        kind = self._next("a value")
        if kind in _NAMED:
            described: dict[str, str | bool] = {kind: self._next("a name")}
        elif kind in PLAIN:
            described = {kind: True}
        else:
            raise FieldError(self.path, f"has {kind!r} where a value such as `header name` should stand")
        value = value_source(described, self.path)
        self.kinds.append(reads(described))
        divisor: int | None = None
        if self._peek() == "%":
            self.position += 1
            divisor = self._number()
            if self._peek() == "exists":
                value = _modulo(value, divisor)
        operator = self._next("an operator")
        if operator == "exists":
            return lambda stream: value(stream) is not None
        if operator == "in":
            self._expect("(")
            wanted = {self._next("a value").encode()}
            while self._peek() == ",":
                self.position += 1
                wanted.add(self._next("a value").encode())
            self._expect(")")
            return _remembering(value, divisor, lambda found: found in wanted)
        if operator in _ORDERED:
            return _remembering(value, divisor, _ordered(_ORDERED[operator], self._number()))
        if operator in _TEXTUAL:
            return _remembering(value, divisor, _textual(_TEXTUAL[operator], self._next("a value").encode()))
        raise FieldError(self.path, f"has {operator!r} where an operator should stand")

    def _number(self) -> int:
        text = self._next("a number")
        number = whole_number(text.encode())
        if number is None:
            raise FieldError(self.path, f"has {text!r} where a whole number should stand")
        return number


def _rest(found: bytes, divisor: int) -> bytes | None:
    number = whole_number(found)
    return None if number is None or not divisor else b"%d" % (number % divisor)


def _modulo(value: Value, divisor: int) -> Value:
    def rest(stream: Stream) -> bytes | None:
        found = value(stream)
        return None if found is None else _rest(found, divisor)

    return rest


def _remembering(value: Value, divisor: int | None, test: Callable[[bytes], bool]) -> Condition:
    """A test of one value, done once for each value that comes again and again."""
    known: dict[bytes, bool] = {}

    def holds(stream: Stream) -> bool:
        found = value(stream)
        if found is None:
            return False
        answer = known.get(found)
        if answer is None:
            rest = found if divisor is None else _rest(found, divisor)
            answer = rest is not None and test(rest)
            if len(found) <= LONGEST_REMEMBERED:
                if len(known) >= REMEMBERED:
                    known.clear()
                known[found] = answer
        return answer

    return holds


def _ordered(compare: Callable[[int, int], bool], limit: int) -> Callable[[bytes], bool]:
    def test(found: bytes) -> bool:
        number = whole_number(found)
        return number is not None and compare(number, limit)

    return test


def _textual(compare: Callable[[bytes, bytes], bool], wanted: bytes) -> Callable[[bytes], bool]:
    return lambda found: compare(found, wanted)
