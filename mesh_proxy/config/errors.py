"""What is wrong with a configuration, and where."""

from __future__ import annotations

from collections.abc import Iterable

from mesh_codecs.errors import MeshError


class ConfigError(MeshError):
    """A configuration is refused.

    `path` names the field as it stands in the file, without the leading `static_resources.`, e.g.
    `listeners[0].filter_chains[1].filters[0]`; `why` is one plain sentence without a full stop. A file with several faults
    gives one error whose `problems` hold them all, in the order of the file; `path` and `why` are the first one's.
    """

    def __init__(self, path: str, why: str, others: Iterable[tuple[str, str]] = ()) -> None:
        self.path = path
        self.why = why
        self.problems: tuple[tuple[str, str], ...] = ((path, why), *others)
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
