"""`ConfigSource`: where named resources come from. Files are watched; control planes are not supported yet."""

from __future__ import annotations

from pathlib import Path

from mesh_proxy.config.model.source import DEFAULT_FETCH_TIMEOUT_S, ConfigSource, Reference
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.common import required
from mesh_proxy.config.translate.context import Context


def config_source(reader: Reader) -> ConfigSource:
    """`ConfigSource`. The file must exist, as Envoy demands; whether it is good is found out when it is read."""
    if reader.enum("resource_api_version") == "V2":
        raise reader.error("V2 is not supported", "resource_api_version")
    timeout = reader.seconds("initial_fetch_timeout", DEFAULT_FETCH_TIMEOUT_S) or None
    kind = reader.oneof("config_source_specifier")
    directory = ""
    if kind == "path_config_source":
        owner = required(reader, kind)
        path = owner.text("path")
        watched = owner.sub("watched_directory")
        if watched is not None:
            directory = watched.text("path")
            if not Path(directory).is_dir():
                raise watched.error(f"{directory} is not a directory", "path")
    elif kind == "path":
        owner, path = reader, reader.text("path")
    else:
        raise reader.error("only files are supported", kind)
    if not Path(path).exists():
        raise owner.error(f"{path} does not exist", "path")
    return ConfigSource(path=path, watched_directory=directory, initial_fetch_timeout_s=timeout)


def reference(reader: Reader, context: Context, kind: str, name: str, *, stat_prefix: str, field: str) -> Reference:
    """What `reader` needs by name from the ConfigSource in `field`; the resource that holds it warms until it is there."""
    found = Reference(kind=kind, name=name, source=config_source(required(reader, field)), stat_prefix=stat_prefix)
    context.references.append(found)
    return found
