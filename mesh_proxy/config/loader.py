"""From an Envoy v3 bootstrap, in a file and on the command line, to the configuration that the proxy runs.

The steps: text → plain values (`yaml_text`) → protobuf (`json_proto`) → the protos' own rules (`rules`) → dataclasses
(`translate`), where whatever is set and not understood is refused (`reader`). Faults of one step are reported together.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from envoy.config.bootstrap.v3 import bootstrap_pb2

from mesh_proxy.config import rules
from mesh_proxy.config.dump import dump
from mesh_proxy.config.dump_parts import bootstrap_dump, dump_pattern
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.files import fill, read_message
from mesh_proxy.config.model.bootstrap import BootstrapConfig, ResourceView
from mesh_proxy.config.problems import Problems
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.resource import DumpPattern, ResourceDump, TwinDump
from mesh_proxy.config.translate.bootstrap import bootstrap
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.twins import Twins
from mesh_proxy.config.yaml_text import parse_yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """The command-line flags that bear on loading."""

    allow_unknown_static_fields: bool = False
    """unknown keys are ignored with a warning; a field that is known but not supported is refused all the same"""
    service_cluster: str = ""
    """`--service-cluster`, wins over node.cluster"""
    service_node: str = ""
    """`--service-node`, wins over node.id"""


def load_bootstrap(
    path: str | None = None, yaml_text: str | None = None, *, options: LoadOptions | None = None
) -> BootstrapConfig:
    """Load `--config-path` and merge `--config-yaml` over it, as protobufs merge: lists are joined, single values replaced.

    Raises:
        ConfigError: with the path of each fault.
    """
    options = options or LoadOptions()
    problems = Problems()
    twins = Twins()
    message = bootstrap_pb2.Bootstrap()
    if not path and not yaml_text:
        raise ConfigError("", "at least one of --config-path and --config-yaml must be given")
    if path:
        read_message(path, message, problems, allow_unknown_fields=options.allow_unknown_static_fields, twins=twins)
    if yaml_text:
        override = bootstrap_pb2.Bootstrap()
        value = parse_yaml(yaml_text, problems.warn, "--config-yaml")
        fill(value, override, problems, "--config-yaml", allow_unknown_fields=options.allow_unknown_static_fields)
        message.MergeFrom(override)
    problems.check()
    try:
        return translate_bootstrap(message, options, problems, twins)
    finally:
        rules.forget()


def translate_bootstrap(
    message: Any, options: LoadOptions, problems: Problems | None = None, twins: Twins | None = None
) -> BootstrapConfig:
    """A bootstrap message as dataclasses. Of the clusters that `twins` know it may have no more than the names."""
    context = Context(problems=problems if problems is not None else Problems(), twins=twins if twins is not None else Twins())
    # Listeners and clusters are checked one by one, each with its own path.
    frame = bootstrap_pb2.Bootstrap()
    frame.CopyFrom(message)
    frame.static_resources.ClearField("listeners")
    frame.static_resources.ClearField("clusters")
    rules.check_rules(frame, "", context.problems)
    context.problems.check()
    reader = Reader(message, "", context.problems)
    config = bootstrap(reader, context, service_cluster=options.service_cluster, service_node=options.service_node)
    reader.finish()
    context.problems.check()
    return dataclasses.replace(
        config,
        warnings=tuple(context.problems.warnings),
        unknown_static_fields=context.problems.unknown_fields,
        resources=_dumps(message, frame, config, context),
    )


def _dumps(message: Any, frame: Any, config: BootstrapConfig, context: Context) -> tuple[ResourceView, ...]:
    """The bootstrap and its listeners, clusters and route tables as `/config_dump` shows them."""
    static, twins = message.static_resources, context.twins
    listeners = [dump(proto, listener.name) for proto, listener in zip(static.listeners, config.listeners, strict=True)]
    clusters: list[ResourceDump | TwinDump] = []
    patterns: dict[int, DumpPattern] = {}
    for i, proto in enumerate(static.clusters):
        twin = twins.twin(i)
        if twin is None:
            clusters.append(dump(proto, proto.name))
            continue
        first = twins.first(i)
        pattern = patterns.get(first)
        if pattern is None:
            pattern = patterns[first] = dump_pattern(static.clusters[first])
        clusters.append(TwinDump(pattern, twin.values))
    return (bootstrap_dump(frame, listeners, clusters), *listeners, *clusters, *context.discovered)
