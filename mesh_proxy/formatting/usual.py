"""Lines in which what few values decide is filled in already.

Method, host, status, flags, details, route and cluster of a service's requests take few values, and those in few combinations.
For each combination the line is kept with these in it, so that only what is left of it is asked of a stream: times, sizes, ids,
the path, headers. Where the combinations turn out to be many, lines are made as by `Formatter.format` for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from operator import attrgetter, itemgetter
from typing import Any, Final

from mesh_proxy.formatting.line import Formatter, Part, quoted, step_of, unsafe
from mesh_proxy.formatting.operator import Kind, Text
from mesh_proxy.stream.info import StreamInfo

ENTRIES: Final = 256
"""combinations that are kept"""
USES: Final = 8 * ENTRIES
"""lines made of them before there were too many: with fewer it was no use"""
REST: Final = 8192
"""lines that are made as ever after that"""


class UsualLines:
    """Makes the lines of a format. For streams that have a request."""

    __slots__ = (
        "_absent",
        "_facts",
        "_fields",
        "_formatter",
        "_numbers",
        "_others",
        "_pick",
        "_quotes",
        "_raw",
        "_resting",
        "_templates",
        "_uses",
    )

    def __init__(self, formatter: Formatter) -> None:
        self._formatter = formatter
        open_parts = [part for part in formatter.parts if isinstance(part, Part) and not part.operator.fact]
        names = [part.operator.fact for part in formatter.parts if isinstance(part, Part) and part.operator.fact]
        self._facts: Callable[[StreamInfo], Any] = attrgetter(*dict.fromkeys(names or ["protocol"]))
        """the combination"""
        as_json = any([part.as_json for part in open_parts])
        fields = [part for part in open_parts if part.operator.field]
        # Bytes are to be looked at before they stand in JSON.
        raw = [part for part in open_parts if part.operator.raw and (not as_json or part.operator.kind is Kind.NUMBER)]
        others = [part for part in open_parts if part not in fields and part not in raw]
        self._fields: tuple[bytes, ...] = tuple([part.operator.field for part in fields])
        """headers of the request: asked for all at once"""
        steps = [step_of(part.operator) for part in others]
        self._others: tuple[Text, ...] = tuple(
            [text for text, _ in steps] if as_json else [part.operator.text for part in others]
        )
        self._quotes: tuple[bool, ...] | None = (*[True for _ in fields], *[quotes for _, quotes in steps]) if as_json else None
        """of fields and others, which are strings in JSON; None: nothing is JSON"""
        self._absent: repeat[Any] = repeat(None if as_json else formatter.missing)
        self._raw: Callable[[StreamInfo], Any] | None = None
        """attributes that are in the line as they are: likewise"""
        if raw:  # of a single one `attrgetter` would not make a tuple
            self._raw = attrgetter(*[part.operator.raw for part in raw], raw[0].operator.raw)
        order = [(fields + others + raw).index(part) for part in open_parts]
        self._pick: Callable[[list[Any]], Any] = itemgetter(*order) if order else itemgetter(slice(0))
        self._numbers = frozenset([id(part) for part in raw if part.operator.kind is Kind.NUMBER])
        self._templates: dict[Any, bytes] = {}
        self._uses = 0
        self._resting = 0

    def format(self, info: StreamInfo) -> bytes:
        """The same as `Formatter.format`."""
        if self._resting:
            self._resting -= 1
            return self._formatter.format(info)
        self._uses += 1
        combination = self._facts(info)
        template = self._templates.get(combination)
        if template is None:
            template = self._learn(combination, info)
        values: list[Any] = [
            *map(info.request.headers.first.get, self._fields, self._absent),
            *[text_of(info) for text_of in self._others],
        ]
        if self._quotes is not None:
            for index, quotes in enumerate(self._quotes):
                text = values[index]
                if text is None:
                    values[index] = b"null"
                elif quotes:
                    values[index] = quoted(text) if unsafe(text) else b'"%b"' % text
        elif None in values:
            missing = self._formatter.missing
            values = [missing if text is None else text for text in values]
        if self._raw is not None:
            raw = self._raw(info)
            if b"" in raw:
                return self._formatter.format(info)
            values += raw
        made: bytes = template % self._pick(values)
        return made

    def _learn(self, combination: object, info: StreamInfo) -> bytes:
        templates = self._templates
        if len(templates) >= ENTRIES:
            if self._uses < USES:
                self._resting = REST
            self._uses = 0
            templates.clear()
        missing = self._formatter.missing
        pieces: list[bytes] = []
        for part in self._formatter.parts:
            if isinstance(part, bytes):
                pieces.append(part.replace(b"%", b"%%"))
            elif part.operator.fact:
                pieces.append(Formatter([part], missing).format(info).replace(b"%", b"%%"))
            else:
                pieces.append(b"%d" if id(part) in self._numbers else b"%b")
        template = templates[combination] = b"".join(pieces)
        return template
