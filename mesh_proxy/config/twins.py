"""Finding clusters that are like an earlier one but for their names and addresses, so that they need not be translated.

A configuration with thousands of clusters has few kinds of them. What is looked at are the plain values of the text: with the
free ones taken out, the rest is a cluster's *shape*. Free are the name, the name in the load assignment, and host and port of
each endpoint. The first cluster of a shape goes the whole way through protobuf, rules and translators. Another one with the same
shape is its twin, if its free values are of the plainest kind, for which no rule and no translator makes a difference: then it is
what the first one is, with its own values in their places.

A twin is given up, and translated like all others, when there was anything to remark about the first one (a warning has the path
of its cluster) or when that depends on something beside itself: a transport socket, endpoints from elsewhere.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from mesh_proxy.config.model.cluster import ClusterConfig
from mesh_proxy.config.model.twin import ClusterTwin, Values

CLUSTERS: Final = "envoy.config.bootstrap.v3.Bootstrap.StaticResources.clusters"
MANY: Final = 200
"""fewer clusters are worth no such trouble"""
MOST_SHAPES: Final = 256
"""where there are more, twins are rare"""

_NAME: Final = re.compile(r"[!-~]{1,1024}").fullmatch
_BYTE: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4: Final = re.compile(rf"{_BYTE}(?:\.{_BYTE}){{3}}").fullmatch
_HOST: Final = re.compile(r"[a-z][a-z0-9.-]{0,250}").fullmatch
_encode: Final = json.JSONEncoder(check_circular=False).encode


class Twins:
    """Those of one bootstrap's clusters, by their places in the list."""

    def __init__(self) -> None:
        self._first: dict[str, int] = {}
        """shape -> the place of the first"""
        self._twins: dict[int, tuple[int, Values, Any]] = {}
        """place -> the place of the first, the free values, the plain values"""
        self._models: set[int] = set()
        """the places of all first ones"""
        self._known: dict[int, ClusterConfig] = {}
        """place of a first one -> its translation"""

    def note(self, place: int, value: Any) -> bool:
        """Whether this cluster is the twin of an earlier one."""
        found = shape(value)
        first = self._first.get(found[0]) if found is not None else None
        if found is None or first is None:
            return False
        self._twins[place] = (first, found[1], value)
        return True

    def begin(self, place: int, value: Any) -> None:
        """This cluster is the first of its shape, and there was nothing to remark about its text."""
        found = shape(value)
        if found is not None and len(self._first) < MOST_SHAPES:
            self._models.add(self._first.setdefault(found[0], place))

    def is_model(self, place: int) -> bool:
        """Others may be like this one."""
        return place in self._models

    def learn(self, place: int, config: ClusterConfig) -> None:
        """What a cluster came to be, if there was nothing to remark about it."""
        if config.transport_socket is None and not (config.transport_matches or config.references or config.tls_secrets):
            self._known[place] = config

    def twin(self, place: int) -> ClusterTwin | None:
        """The cluster, if it need not be translated."""
        found = self._twins.get(place)
        like = self._known.get(found[0]) if found is not None else None
        return ClusterTwin(like, found[1]) if found is not None and like is not None else None

    def first(self, place: int) -> int:
        """The place of the cluster that this one is like."""
        return self._twins[place][0]

    def value(self, place: int) -> Any | None:
        """The plain values of what was taken for a twin; None for others."""
        found = self._twins.get(place)
        return found[2] if found is not None else None


def shape(value: Any) -> tuple[str, Values] | None:
    """A cluster without its free values, as text, and these. None if it cannot be anybody's twin."""
    if not isinstance(value, dict):
        return None
    name = value.get("name")
    if type(name) is not str or _NAME(name) is None:
        return None
    rest = dict(value)
    rest["name"] = None
    found: list[Any] = [name]
    assignment = value.get("load_assignment")
    if assignment is not None:
        try:
            rest["load_assignment"] = _assignment(assignment, name, found)
        except (KeyError, TypeError, AttributeError, _NotPlain):
            return None
    return _encode(rest), tuple(found)


class _NotPlain(Exception):
    """A free value that rules or translators may make a difference for."""


def _assignment(value: dict[str, Any], name: str, found: list[Any]) -> dict[str, Any]:
    cluster_name = value["cluster_name"]
    if cluster_name == name:
        cluster_name = name  # one string for both
    elif type(cluster_name) is not str or _NAME(cluster_name) is None:
        raise _NotPlain
    found.append(cluster_name)
    rest = dict(value)
    rest["cluster_name"] = None
    rest["endpoints"] = [
        {**locality, "lb_endpoints": [_endpoint(one, found) for one in locality["lb_endpoints"]]}
        for locality in value.get("endpoints", ())
    ]
    return rest


def _endpoint(value: dict[str, Any], found: list[Any]) -> dict[str, Any]:
    endpoint = value["endpoint"]
    address = endpoint["address"]
    inner = address["socket_address"]
    host, port = inner["address"], inner["port_value"]
    if type(host) is not str or type(port) is not int or not 0 < port < 65536:
        raise _NotPlain
    kind = "ip" if _IPV4(host) else "name" if _HOST(host) else ""
    if not kind:
        raise _NotPlain
    found += (_interned(host), port)
    inner = {**inner, "address": kind, "port_value": None}
    return {**value, "endpoint": {**endpoint, "address": {**address, "socket_address": inner}}}


_hosts: Final[dict[str, str]] = {}


def _interned(host: str) -> str:
    """One string for an address that occurs many times; the process that loads does not live long."""
    return _hosts.setdefault(host, host)
