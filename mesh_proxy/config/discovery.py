"""DiscoveryResponse files: from a file to validated resources, or to the faults for which it is refused.

Runs in a process of its own (`mesh_proxy.xds.reader_process`), which lives through a storm of updates and remembers what it has
translated: a file of a thousand clusters of which one changed costs one translation.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError, Message

from mesh_proxy.config import extensions, rules
from mesh_proxy.config.dump import dump, to_json
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.files import read_message
from mesh_proxy.config.problems import Problems
from mesh_proxy.config.translate.cluster import translate_cluster
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.dubbo import translate_dubbo_routes
from mesh_proxy.config.translate.endpoint import translate_endpoints
from mesh_proxy.config.translate.listener import translate_listener
from mesh_proxy.config.translate.route import translate_route_configuration
from mesh_proxy.xds.resources import TYPES, Fault, Resource, Response

Translate = Callable[[Message, str, Context], Any]
_INDEX = re.compile(r"resources\[(\d+)\]")
_WRAPPER: Final = "envoy.service.discovery.v3.Resource"
_MODULES: Final = {
    TYPES["cds"]: "envoy.config.cluster.v3.cluster_pb2",
    TYPES["eds"]: "envoy.config.endpoint.v3.endpoint_pb2",
    TYPES["lds"]: "envoy.config.listener.v3.listener_pb2",
    TYPES["rds"]: "envoy.config.route.v3.route_pb2",
    _WRAPPER: "envoy.service.discovery.v3.discovery_pb2",
}
_TRANSLATE: Final[dict[str, Translate]] = {
    "cds": translate_cluster,
    "eds": translate_endpoints,
    "lds": translate_listener,
    "rds": translate_route_configuration,
    "drds": translate_dubbo_routes,
}


class DiscoveryReader:
    """Reads files, and remembers the resources of the last version of each."""

    def __init__(self, runtime: Mapping[str, Any], *, reject_unknown_fields: bool) -> None:
        self._runtime = runtime
        self._reject_unknown = reject_unknown_fields
        self._known: dict[tuple[str, str], dict[bytes, Resource]] = {}
        for name, module in _MODULES.items():
            extensions.register(name, module)

    def read(self, kind: str, path: str) -> Response | Fault:
        """One file."""
        response = discovery_pb2.DiscoveryResponse()
        problems = Problems()
        try:
            read_message(path, response, problems, allow_unknown_fields=not self._reject_unknown)
        except ConfigError as error:
            return Fault(unreadable=True, problems=error.problems)
        if problems.found:
            return _fault(response, [(_located(path, where), why) for where, why in problems.found])
        try:
            found = self._resources(kind, path, response)
        except ConfigError as error:
            return _fault(response, list(error.problems))
        finally:
            rules.forget()
        resources, warnings = found
        warnings += [(_located(path, where), text) for where, text in problems.warnings]
        return Response(
            version=response.version_info,
            resources=tuple(resources),
            warnings=tuple(warnings),
            unknown_fields=problems.unknown_fields,
        )

    def _resources(self, kind: str, path: str, response: Any) -> tuple[list[Resource], list[tuple[str, str]]]:
        before = self._known.pop((kind, path), {})
        known: dict[bytes, Resource] = {}
        faults: list[tuple[str, str]] = []
        warnings: list[tuple[str, str]] = []
        names: dict[str, int] = {}
        resources: list[Resource] = []
        for i, packed in enumerate(response.resources):
            where = f"{path} resources[{i}]"
            try:
                message = _unpack(kind, packed, where)
                key = hashlib.sha256(packed.SerializeToString()).digest()
                resource = before.get(key)
                if resource is None:
                    resource = self._translate(kind, message, where, response.version_info, warnings)
            except ConfigError as error:
                faults += error.problems
                continue
            if resource.name in names:
                faults.append((where, f"{resource.name!r} is the name of resources[{names[resource.name]}] too"))
            names.setdefault(resource.name, i)
            known[key] = resource
            resources.append(resource)
        if faults:
            self._known[kind, path] = before
            raise ConfigError.of(faults)
        self._known[kind, path] = known
        return resources, warnings

    def _translate(self, kind: str, message: Any, where: str, version: str, warnings: list[tuple[str, str]]) -> Resource:
        context = Context(runtime=self._runtime)
        config = _TRANSLATE[kind](message, where, context)
        context.problems.check()
        warnings += context.problems.warnings
        name = _name(message) or getattr(config, "name", "")
        if not name:
            raise ConfigError(where, "needs a name")
        shown = dump(message, name, version=version)
        return Resource(name=name, config=config, dump=shown, cluster_references=tuple(context.cluster_references))


def _name(message: Any) -> str:
    return str(message.cluster_name if message.DESCRIPTOR.full_name == TYPES["eds"] else message.name)


def _unpack(kind: str, packed: Any, where: str) -> Message:
    try:
        if extensions.type_name(packed.type_url) == _WRAPPER:
            wrapper = discovery_pb2.Resource()
            wrapper.MergeFromString(packed.value)
            packed = wrapper.resource
        if extensions.type_name(packed.type_url) != TYPES[kind]:
            raise ConfigError(where, f"must be a {TYPES[kind]}, not {extensions.type_name(packed.type_url) or 'nothing'}")
        message = extensions.new_message(packed.type_url)
        assert message is not None
        message.MergeFromString(packed.value)
    except DecodeError:
        raise ConfigError(where, f"is not a valid {extensions.type_name(packed.type_url)}") from None
    return message


def _located(file: str, where: str) -> str:
    return where if where.startswith(file) else f"{file} {where}".strip()


def _fault(response: Any, problems: list[tuple[str, str]]) -> Fault:
    """With the resources in which the faults are, for `/config_dump`."""
    failed: dict[str, str] = {}
    for where, _ in problems:
        found = _INDEX.search(where)
        if found is None or int(found[1]) >= len(response.resources):
            continue
        packed = response.resources[int(found[1])]
        kind = next((kind for kind, name in TYPES.items() if name == extensions.type_name(packed.type_url)), "")
        if kind:
            try:
                message = _unpack(kind, packed, where)
                if _name(message):
                    shown = {"@type": packed.type_url, **json.loads(to_json(message))}
                    failed[_name(message)] = json.dumps(shown, separators=(",", ":"))
            except (ConfigError, TypeError, ValueError):
                pass  # what is broken cannot be shown
    return Fault(unreadable=False, problems=tuple(problems), version=response.version_info, failed=failed)
