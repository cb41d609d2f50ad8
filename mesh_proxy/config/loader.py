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
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.files import fill, read_message
from mesh_proxy.config.model.bootstrap import BootstrapConfig
from mesh_proxy.config.problems import Problems
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.resource import ResourceDump
from mesh_proxy.config.translate.bootstrap import bootstrap
from mesh_proxy.config.translate.context import Context
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
    message = bootstrap_pb2.Bootstrap()
    if not path and not yaml_text:
        raise ConfigError("", "at least one of --config-path and --config-yaml must be given")
    if path:
        read_message(path, message, problems, allow_unknown_fields=options.allow_unknown_static_fields)
    if yaml_text:
        override = bootstrap_pb2.Bootstrap()
        value = parse_yaml(yaml_text, problems.warn, "--config-yaml")
        fill(value, override, problems, "--config-yaml", allow_unknown_fields=options.allow_unknown_static_fields)
        message.MergeFrom(override)
    problems.check()
    try:
        return translate_bootstrap(message, options, problems)
    finally:
        rules.forget()


def translate_bootstrap(message: Any, options: LoadOptions, problems: Problems | None = None) -> BootstrapConfig:
    """A bootstrap message as dataclasses."""
    context = Context(problems=problems if problems is not None else Problems())
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
        resources=_dumps(message, config, context.discovered),
    )


def _dumps(message: Any, config: BootstrapConfig, discovered: list[ResourceDump]) -> tuple[ResourceDump, ...]:
    """The bootstrap and its listeners, clusters and route tables as `/config_dump` shows them."""
    static = message.static_resources
    found = [dump(message, "")]
    found += [dump(proto, listener.name) for proto, listener in zip(static.listeners, config.listeners, strict=True)]
    found += [dump(proto, proto.name) for proto in static.clusters]
    return (*found, *discovered)
