"""From an Envoy v3 bootstrap, in a file and on the command line, to the configuration that the proxy runs.

The steps: text → plain values (`yaml_text`) → protobuf (`json_proto`) → the protos' own rules (`rules`) → dataclasses
(`translate`), where whatever is set and not understood is refused (`reader`). Faults of one step are reported together.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envoy.config.bootstrap.v3 import bootstrap_pb2
from google.protobuf import text_format
from google.protobuf.message import DecodeError

from mesh_proxy.config import rules
from mesh_proxy.config.dump import dump
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.json_proto import Parser
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
        _read_file(path, message, problems, options)
    if yaml_text:
        override = bootstrap_pb2.Bootstrap()
        _parse(parse_yaml(yaml_text, problems.warn, "--config-yaml"), override, problems, options, "--config-yaml")
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
        resources=_dumps(message, config),
    )


def _dumps(message: Any, config: BootstrapConfig) -> tuple[ResourceDump, ...]:
    """The bootstrap and its listeners, clusters and route tables as `/config_dump` shows them."""
    static = message.static_resources
    found = [dump(message, "")]
    found += [dump(proto, listener.name) for proto, listener in zip(static.listeners, config.listeners, strict=True)]
    found += [dump(proto, proto.name) for proto in static.clusters]
    return tuple(found)


def _read_file(path: str, message: Any, problems: Problems, options: LoadOptions) -> None:
    """Fill `message` from a file; its name says what is in it, as with Envoy."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError("", f"cannot read {path}: {error.strerror}") from None
    suffix = Path(path).suffix.lower()
    if suffix == ".pb":
        try:
            message.MergeFromString(data)
        except DecodeError:
            raise ConfigError("", f"{path} is not a serialized Bootstrap") from None
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError("", f"{path} is not UTF-8 text (byte {error.start})") from None
    if suffix in (".pb_text", ".pbtxt"):
        try:
            text_format.Parse(text, message)
        except text_format.ParseError as error:
            raise ConfigError("", f"{path} is not a Bootstrap in text format: {error}") from None
        return
    if suffix in (".yaml", ".yml"):
        value = parse_yaml(text, problems.warn, path)
    else:
        try:
            value = json.loads(text)
        except ValueError as error:
            if suffix == ".json":
                raise ConfigError("", f"{path} is not valid JSON: {error}") from None
            value = parse_yaml(text, problems.warn, path)
    _parse(value, message, problems, options, path)


def _parse(value: Any, message: Any, problems: Problems, options: LoadOptions, source: str) -> None:
    if not isinstance(value, dict):
        raise ConfigError("", f"{source} does not hold a mapping of configuration fields")
    Parser(problems, allow_unknown_fields=options.allow_unknown_static_fields).fill(message, value, "")
