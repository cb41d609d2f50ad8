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
        "_as_json",
        "_facts",
        "_fields",
        "_formatter",
        "_numbers",
        "_others",
        "_pick",
        "_raw",
        "_resting",
        "_strings",
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
        strings = [part for part in open_parts if part not in fields + raw and (not as_json or part.operator.kind is Kind.STRING)]
        others = [part for part in open_parts if part not in fields + raw + strings]
        self._fields: tuple[bytes, ...] = tuple([part.operator.field for part in fields])
        """headers of the request: asked for all at once"""
        self._strings: tuple[Text, ...] = tuple([part.operator.text for part in strings])
        self._as_json = as_json
        """fields and strings are quoted, and what is missing is null"""
        self._others: tuple[Text, ...] = tuple([step_of(part.operator)[0] for part in others])
        """what else stands in JSON"""
        self._absent: repeat[Any] = repeat(None if as_json else formatter.missing)
        self._raw: Callable[[StreamInfo], Any] | None = None
        """attributes that are in the line as they are: likewise"""
        if raw:  # of a single one `attrgetter` would not make a tuple
            self._raw = attrgetter(*[part.operator.raw for part in raw], raw[0].operator.raw)
        order = [(fields + strings + others + raw).index(part) for part in open_parts]
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
            *[text_of(info) for text_of in self._strings],
        ]
        if self._as_json:
            if unsafe(b"".join(filter(None, values))):
                values = [b"null" if text is None else quoted(text) for text in values]
            else:
                values = [b"null" if text is None else b'"%b"' % text for text in values]
            values += [text_of(info) or b"null" for text_of in self._others]
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
