"""What is wrong with a configuration, and where."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from mesh_codecs.errors import MeshError

_KEY: Final = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|$)", re.DOTALL)


def veiled(text: str) -> str:
    """Without private keys: one may stand where a name or a certificate belongs, and what is wrong is shown to many."""
    return _KEY.sub("[private key]", text) if "PRIVATE KEY-----" in text else text


class ConfigError(MeshError):
    """A configuration is refused.

    `path` names the field as it stands in the file, without the leading `static_resources.`, e.g.
    `listeners[0].filter_chains[1].filters[0]`; `why` is one plain sentence without a full stop. A file with several faults
    gives one error whose `problems` hold them all, in the order of the file; `path` and `why` are the first one's.
    """

    def __init__(self, path: str, why: str, others: Iterable[tuple[str, str]] = ()) -> None:
        self.problems: tuple[tuple[str, str], ...] = tuple((veiled(path), veiled(why)) for path, why in ((path, why), *others))
        self.path, self.why = self.problems[0]
        super().__init__("\n".join(f"{path}: {why}" if path else why for path, why in self.problems))

    @classmethod
    def of(cls, problems: Iterable[tuple[str, str]]) -> ConfigError:
        """One error that holds all of `problems`, which must not be empty."""
        (path, why), *others = dict.fromkeys(problems)
        return cls(path, why, others)

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str, tuple[tuple[str, str], ...]]]:
        return type(self), (self.path, self.why, self.problems[1:])


def join(path: str, name: str) -> str:
    """`path.name`, as shown to people: `static_resources` is left out, as everything is in there."""
    if not path:
        return "" if name == "static_resources" else name
    return f"{path}.{name}"
