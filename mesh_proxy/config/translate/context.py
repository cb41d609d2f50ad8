"""What a translation knows beside the message it translates, and the frame around every one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from google.protobuf.message import Message

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model.source import Reference
from mesh_proxy.config.model.tls import SecretConfig
from mesh_proxy.config.problems import Problems
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.resource import ResourceDump
from mesh_proxy.config.rules import check_rules
from mesh_proxy.config.twins import Twins

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Context:
    """One loading: collects what the translators cannot decide alone."""

    problems: Problems = field(default_factory=Problems)
    runtime: Mapping[str, Any] = field(default_factory=dict)
    """the flattened runtime of the bootstrap"""
    cluster_references: list[tuple[str, str]] = field(default_factory=list)
    """(path, cluster) of routes whose table has validate_clusters in effect"""
    secrets: dict[str, SecretConfig] = field(default_factory=dict)
    """those that transport sockets use"""
    static_secrets: dict[str, Reader] = field(default_factory=dict)
    """`static_resources.secrets` by name"""
    references: list[Reference] = field(default_factory=list)
    """named resources that the one being translated needs from elsewhere"""
    discovered: list[ResourceDump] = field(default_factory=list)
    """resources that came from files named in the configuration"""
    twins: Twins = field(default_factory=Twins)
    """clusters that are like others, and need no translation"""

    @property
    def remarks(self) -> tuple[object, ...]:
        """How much was collected: did anything come in the meantime?"""
        collected = (self.cluster_references, self.secrets, self.references, self.discovered)
        return self.problems.remarks, [len(one) for one in collected]


def run(message: Message, path: str, translate: Callable[[Reader, Context], T], context: Context | None) -> T:
    """Check the message's own rules, translate it, refuse what was not read.

    Without a context the faults are raised here; with one they are left in it, so that a caller sees those of all resources.
    """
    own = context if context is not None else Context()
    problems = Problems()
    check_rules(message, path, problems)
    problems.check()
    reader = Reader(message, path, own.problems)
    try:
        result = translate(reader, own)
    except ConfigError as error:
        own.problems.extend(error)
        own.problems.check()
        raise
    reader.finish()
    if context is None:
        own.problems.check()
    return result
