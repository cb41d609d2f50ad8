"""`drds`: the routes of a Dubbo manager from a file, as a DiscoveryResponse that holds the MultipleRouteConfiguration.

The file is read when the configuration is loaded. It is not watched: a change of it takes effect at the next start or hot
upgrade, and a warning says so. A file that Envoy would reject, running on without routes, is refused here.
"""

from __future__ import annotations

from typing import Any, Final

from envoy.service.discovery.v3 import discovery_pb2

from mesh_proxy.config import extensions
from mesh_proxy.config.dump import dump
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.files import read_message
from mesh_proxy.config.problems import Problems
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.common import required
from mesh_proxy.config.translate.context import Context

MULTIPLE: Final = "envoy.extensions.filters.network.dubbo_proxy.v3.MultipleRouteConfiguration"


def discovered(drds: Reader, context: Context) -> tuple[Any, str]:
    """The MultipleRouteConfiguration that `Drds` asks for, and the path that its faults are reported under."""
    name = drds.text("route_config_name")
    source = required(drds, "config_source")
    filename = _filename(source)
    response = discovery_pb2.DiscoveryResponse()
    problems = Problems()
    try:
        read_message(filename, response, problems)
        problems.check()
    except ConfigError as error:
        located = [(path if path.startswith(filename) else f"{filename} {path}".strip(), why) for path, why in error.problems]
        raise ConfigError.of(located) from None
    names: list[str] = []
    for i, packed in enumerate(response.resources):
        path = f"{filename} resources[{i}]"
        if extensions.type_name(packed.type_url) != MULTIPLE:
            raise ConfigError(path, f"must be of the type {MULTIPLE}")
        message: Any = extensions.new_message(packed.type_url)
        message.MergeFromString(packed.value)
        names.append(message.name)
        if message.name == name:
            context.discovered.append(dump(message, name, version=response.version_info))
            context.problems.warn(source.path, f"{filename} was read, and is not watched for changes")
            return message, path
    raise drds.error(f"{filename} does not hold the routes {name!r}, only {', '.join(map(repr, names)) or 'none'}")


def _filename(source: Reader) -> str:
    source.seconds("initial_fetch_timeout")  # the file is there, or it is not
    if source.enum("resource_api_version") == "V2":
        raise source.error("V2 is not supported", "resource_api_version")
    kind = source.oneof("config_source_specifier")
    if kind == "path_config_source":
        return required(source, kind).text("path")
    if kind == "path":
        return source.text("path")
    raise source.error("only files are supported", kind)
