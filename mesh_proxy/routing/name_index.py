"""Which of many name patterns match a name, without trying them all.

Exact names, prefixes and suffixes are found by dictionaries, one look-up for each length that occurs; only what has no such
form (regular expressions, parts, ignored case) is tried one by one.
"""

from __future__ import annotations

from collections.abc import Callable

Test = Callable[[bytes], bool]
_Parts = dict[tuple[bytes, bool], list[int]]
_Size = tuple[int, bool]


class NameIndex:
    """Patterns and the numbers of those who have them."""

    __slots__ = ("_exact", "_others", "_prefix_sizes", "_prefixes", "_suffix_sizes", "_suffixes")

    def __init__(self) -> None:
        self._exact: dict[bytes, list[int]] = {}
        self._prefixes: _Parts = {}
        self._suffixes: _Parts = {}
        self._others: list[tuple[int, Test]] = []
        self._prefix_sizes: list[_Size] = []
        self._suffix_sizes: list[_Size] = []

    def add_exact(self, name: bytes, number: int) -> None:
        """Match this name only."""
        self._exact.setdefault(name, []).append(number)

    def add_prefix(self, prefix: bytes, number: int, *, longer: bool = False) -> None:
        """Match names that start so; `longer`: and do not end there."""
        _add(self._prefixes, self._prefix_sizes, (prefix, longer), number)

    def add_suffix(self, suffix: bytes, number: int, *, longer: bool = False) -> None:
        """Match names that end so; `longer`: and do not start there."""
        _add(self._suffixes, self._suffix_sizes, (suffix, longer), number)

    def add_test(self, test: Test, number: int) -> None:
        """Match names that pass the test."""
        self._others.append((number, test))

    def find(self, name: bytes) -> tuple[int, ...]:
        """The numbers of the patterns that match, in order."""
        found = list(self._exact.get(name, ()))
        size = len(name)
        for length, longer in self._prefix_sizes:
            if length + longer <= size:
                found += self._prefixes.get((name[:length], longer), ())
        for length, longer in self._suffix_sizes:
            if length + longer <= size:
                found += self._suffixes.get((name[size - length :], longer), ())
        for number, test in self._others:
            if test(name):
                found.append(number)
        found.sort()
        return tuple(found)

    def __bool__(self) -> bool:
        return bool(self._exact or self._prefixes or self._suffixes or self._others)


def _add(table: _Parts, sizes: list[_Size], part: tuple[bytes, bool], number: int) -> None:
    table.setdefault(part, []).append(number)
    size = len(part[0]), part[1]
    if size not in sizes:
        sizes.append(size)
