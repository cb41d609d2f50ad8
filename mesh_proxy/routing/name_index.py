"""Which of many name patterns match a name, without trying them all.

Exact names, prefixes and suffixes are found by dictionaries, one look-up for each length that occurs; only what has no such
form (regular expressions, parts, ignored case) is tried one by one.
"""

from __future__ import annotations

from collections.abc import Callable

Test = Callable[[bytes], bool]


class NameIndex:
    """Patterns and the numbers of those who have them."""

    __slots__ = ("_exact", "_others", "_prefix_sizes", "_prefixes", "_suffix_sizes", "_suffixes")

    def __init__(self) -> None:
        self._exact: dict[bytes, list[int]] = {}
        self._prefixes: dict[bytes, list[int]] = {}
        self._suffixes: dict[bytes, list[int]] = {}
        self._others: list[tuple[int, Test]] = []
        self._prefix_sizes: list[int] = []
        self._suffix_sizes: list[int] = []

    def add_exact(self, name: bytes, number: int) -> None:
        """Match this name only."""
        self._exact.setdefault(name, []).append(number)

    def add_prefix(self, prefix: bytes, number: int) -> None:
        """Match names that start so."""
        self._prefixes.setdefault(prefix, []).append(number)
        if len(prefix) not in self._prefix_sizes:
            self._prefix_sizes.append(len(prefix))

    def add_suffix(self, suffix: bytes, number: int) -> None:
        """Match names that end so."""
        self._suffixes.setdefault(suffix, []).append(number)
        if len(suffix) not in self._suffix_sizes:
            self._suffix_sizes.append(len(suffix))

    def add_test(self, test: Test, number: int) -> None:
        """Match names that pass the test."""
        self._others.append((number, test))

    def find(self, name: bytes) -> tuple[int, ...]:
        """The numbers of the patterns that match, in order."""
        found = list(self._exact.get(name, ()))
        size = len(name)
        for length in self._prefix_sizes:
            if length <= size:
                found += self._prefixes.get(name[:length], ())
        for length in self._suffix_sizes:
            if length <= size:
                found += self._suffixes.get(name[size - length :], ())
        for number, test in self._others:
            if test(name):
                found.append(number)
        found.sort()
        return tuple(found)

    def __bool__(self) -> bool:
        return bool(self._exact or self._prefixes or self._suffixes or self._others)
