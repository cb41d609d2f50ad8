"""From a described request to its listener and filter chain, and then as its protocol goes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from mesh_proxy.explain import dubbo, http
from mesh_proxy.network.dubbo_manager import DubboManager
from mesh_proxy.network.http_manager import HttpManager
from mesh_proxy.network.tcp_proxy import TcpProxy
from mesh_proxy.stream.info import ConnectionInfo

if TYPE_CHECKING:
    from mesh_proxy.explain.question import Question
    from mesh_proxy.listener.listener import Listener

_APPLICATION = {"http": ("http/1.1",), "grpc": ("h2c",), "triple": ("h2c",), "dubbo": ()}
"""what the listener filters would find"""


def explain(question: Question, listeners: Iterable[Listener]) -> dict[str, Any]:
    """The answer, as values for JSON."""
    looked: list[dict[str, str]] = []
    for listener in listeners:
        if question.listener and listener.name != question.listener:
            continue
        info = _connection(question, listener)
        chain = listener.matching_chain(info)
        if chain is None:
            looked.append({"listener": listener.name, "why": "no filter chain takes the connection"})
            continue
        manager = listener.managers.get(id(chain))
        found = _ask(question, manager, info, listener)
        if found is None:
            looked.append({"listener": listener.name, "why": f"its filter chain does not speak {question.protocol}"})
            continue
        found = {
            "listener": listener.name,
            "direction": listener.config.traffic_direction,
            "filter_chain": chain.name,
            "protocol": question.protocol,
            **found,
        }
        found["way"] = _in_words(found)
        return found
    if not looked:
        looked.append({"listener": question.listener, "why": "there is no such listener"})
    return {"result": "no listener", "listeners": looked, "way": f"nowhere: {looked[0]['why']}"}


def _ask(question: Question, manager: Any, info: ConnectionInfo, listener: Listener) -> dict[str, Any] | None:
    if isinstance(manager, HttpManager):
        return None if question.protocol == "dubbo" else http.explain(question, manager, info, listener)
    if isinstance(manager, DubboManager):
        return dubbo.explain(question, manager, info, listener) if question.protocol == "dubbo" else None
    if isinstance(manager, TcpProxy):
        clusters = [one.name for one in manager.config.clusters]
        return {"network_filter": "tcp_proxy", "filters": [], "result": "bytes", "clusters": clusters}
    return None


def _connection(question: Question, listener: Listener) -> ConnectionInfo:
    info = ConnectionInfo(0, time.monotonic(), time.time())
    address = listener.config.address
    host, port = question.destination_address or address.host, question.destination_port or address.port
    info.listener_direction = listener.config.traffic_direction
    if host:
        info.local_ip, info.local_port = host.encode("latin-1"), port
        info.local_address = _printed(host, port)
        if question.destination_address:
            info.original_destination = (host, port)
    else:
        info.local_address = address.path.encode()
    info.remote_ip, info.remote_port = question.source_address.encode("latin-1"), question.source_port
    info.remote_address = info.direct_remote_address = _printed(question.source_address, question.source_port)
    info.requested_server_name = question.server_name.encode("latin-1")
    info.application_protocols = _APPLICATION[question.protocol]
    if question.source_identity:
        info.tls = SimpleNamespace(peer_uri_san=(question.source_identity,))
    return info


def _printed(host: str, port: int) -> bytes:
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode("latin-1")


def _in_words(found: dict[str, Any]) -> str:
    """One line for people."""
    words = [f"listener {found['listener']}"]
    if found.get("virtual_host"):
        words.append(f"virtual host {found['virtual_host']}")
    if "route" in found:
        route = found["route"]
        words.append(f"route {route['name'] or ', '.join(route.get('match', []))}".strip())
    for name, told in found.get("narrowings", {}).items():
        if isinstance(told, dict):
            words.append(f"{name} {told.get('path') or ' '.join(f'{key}={value}' for key, value in told.items())}")
    if found["result"] == "forwarded":
        cluster = found["cluster"]
        ends = [one["address"] for one in cluster["endpoints"] if one["candidate"]]
        words.append(f"cluster {cluster['name']}")
        words.append(f"{len(ends)} of {len(cluster['endpoints'])} endpoints: {', '.join(ends[:5])}" if ends else "no endpoint")
    elif found["result"] == "answered":
        words.append(f"answered with {found['answer']['status']} ({found['answer']['details']})")
    return " -> ".join(words)
