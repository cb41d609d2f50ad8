"""The faults and warnings that one loading of a configuration collects."""

from __future__ import annotations

from mesh_proxy.config.errors import ConfigError, veiled


class Problems:
    """Collects faults, so that a person sees all of them at once, and warnings, which refuse nothing."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []
        self.warnings: list[tuple[str, str]] = []
        self._warned: set[tuple[str, str]] = set()
        self.reads: set[str] | None = None
        """the fields that translators asked for, as `<message>.<field>`, when somebody wants to know (the reference's test)"""
        self.unknown_fields = 0
        """unknown keys that `--allow-unknown-static-fields` let pass"""

    def add(self, path: str, why: str) -> None:
        """A fault: the configuration will be refused."""
        self.found.append((veiled(path), veiled(why)))

    def extend(self, error: ConfigError) -> None:
        """All the faults of `error`."""
        self.found.extend(error.problems)

    def warn(self, path: str, text: str) -> None:
        """Something that is accepted but worth a line in the log, and counted."""
        said = veiled(path), veiled(text)
        if said not in self._warned:
            self._warned.add(said)
            self.warnings.append(said)

    @property
    def remarks(self) -> tuple[int, int, int]:
        """How much there is of each: did anything come in the meantime?"""
        return len(self.found), len(self.warnings), self.unknown_fields

    def check(self) -> None:
        """Raise if there was any fault."""
        if self.found:
            raise ConfigError.of(self.found)
