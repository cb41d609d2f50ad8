"""The header map: a multi-map of lower-case names to values, both `bytes`, made for look-ups on the data path.

Nearly every message has each name once, so the first value of a name lives in a plain dict (`first`) and only repeats go to a
list (`more`). Look-ups, membership tests and set operations on names then run in C. The order of different names is the order
of arrival; values of one name keep their order. Hot code may read `first` directly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mesh_codecs.native import mypyc_attr

Pairs = list[tuple[bytes, bytes]]


@mypyc_attr(allow_interpreted_subclasses=True)
class Headers:
    """A header block. Names must be lower-case already: codecs see to it, and so does whoever adds a header."""

    __slots__ = ("first", "more")

    first: dict[bytes, bytes]
    """name -> first value"""
    more: Pairs | None
    """second and later values as (name, value), in order of arrival; None when no name repeats"""

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]] = (), first: dict[bytes, bytes] | None = None) -> None:
        """From pairs, or around a dict of single values, which becomes theirs."""
        if first is not None:
            self.first = first
            self.more = None
            return
        items = pairs if isinstance(pairs, list) else list(pairs)
        self.first = dict(items)
        self.more = None
        if len(self.first) != len(items):
            self._split_repeats(items)

    def _split_repeats(self, items: Pairs) -> None:
        first: dict[bytes, bytes] = {}
        more: Pairs = []
        for pair in items:
            if pair[0] in first:
                more.append(pair)
            else:
                first[pair[0]] = pair[1]
        self.first = first
        self.more = more

    def get(self, name: bytes) -> bytes | None:
        """The first value of a name."""
        return self.first.get(name)

    def get_all(self, name: bytes) -> list[bytes]:
        """All values of a name, in order."""
        value = self.first.get(name)
        if value is None:
            return []
        if self.more is None:
            return [value]
        return [value, *(v for n, v in self.more if n == name)]

    def get_joined(self, name: bytes) -> bytes | None:
        """All values of a name joined by a comma (RFC 9110, 5.3). Matchers look at each value by itself as well."""
        value = self.first.get(name)
        if value is None or self.more is None:
            return value
        return b",".join(self.get_all(name))

    def set(self, name: bytes, value: bytes) -> None:
        """Replace all values of a name by one."""
        self.first[name] = value
        if self.more is not None:
            self._drop_repeats(name)

    def add(self, name: bytes, value: bytes) -> None:
        """Add a value after those that are there."""
        if name not in self.first:
            self.first[name] = value
        elif self.more is None:
            self.more = [(name, value)]
        else:
            self.more.append((name, value))

    def setdefault(self, name: bytes, value: bytes) -> None:
        """Add a value only if the name is absent."""
        self.first.setdefault(name, value)

    def remove(self, name: bytes) -> bytes | None:
        """Remove every value of a name; the first one is returned."""
        value = self.first.pop(name, None)
        if value is not None and self.more is not None:
            self._drop_repeats(name)
        return value

    def _drop_repeats(self, name: bytes) -> None:
        assert self.more is not None
        rest = [pair for pair in self.more if pair[0] != name]
        self.more = rest or None

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (name, value): the first values in order of arrival, then the repeats."""
        yield from self.first.items()
        if self.more is not None:
            yield from self.more

    def copy(self) -> Headers:
        """An independent copy."""
        other = Headers()
        other.first = self.first.copy()
        if self.more is not None:
            other.more = self.more.copy()
        return other

    def __contains__(self, name: bytes) -> bool:
        return name in self.first

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self.items()

    def __len__(self) -> int:
        return len(self.first) + (len(self.more) if self.more is not None else 0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self.first == other.first and (self.more or []) == (other.more or [])

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"<Headers {list(self.items())!r}>"
