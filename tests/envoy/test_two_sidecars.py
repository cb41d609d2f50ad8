"""Two sidecars in a row, Envoy and ours in every order: what endpoint and caller see is the same, request by request.

Each request has an id and a trace of its own, and each response a time of its own: heads that differ in nothing else are known to us
(`mesh_codecs.http1.head_table`), and go by another way than the first ones.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from parity import Client, Reply, Side, bootstrap, cluster, envoy_binary, hcm, listener, req

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

TIMES = 12
SUPPRESSED = """
http_filters:
- name: r
  typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true}
"""
LISTENERS = {"main": "", "edge": "{use_remote_address: true, preserve_external_request_id: true}", "quiet": SUPPRESSED}
SHAPES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "id": ("x-request-id: id-{}",),
    "uuid": ("x-request-id: 0a1b2c3d-0a1b-4c2d-8e3f-{:012d}",),
    "traced": ("x-request-id: id-{}", "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-{:016x}-01", "tracestate: a={}"),
    "b3": ("x-b3-traceid: {:016x}", "x-b3-spanid: {:016x}", "x-b3-sampled: 0"),
    "long": ("x-envoy-peer-metadata: " + "Ch" * 450, "x-request-id: id-{}"),
    "spelt": ("X-Request-ID:  id-{} ", "Traceparent: {}"),
}
Seen = list[Any]


def configuration(ports: dict[str, int] | None) -> dict[str, Any]:
    """Of the sidecar next to the endpoint, or of the one that goes to the listeners of another."""
    listeners = [
        listener(name, hcm(name, f"- {{match: {{prefix: /}}, route: {{cluster: {name}}}}}", more, log=[]))
        for name, more in LISTENERS.items()
    ]
    clusters = [cluster(name, "a") for name in LISTENERS]
    if ports is not None:
        for one in clusters:
            place = one["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
            place["port_value"] = ports[f"port.{one['name']}"]
    return bootstrap(listeners, clusters)


def normal(fields: list[tuple[str, str]], name: str) -> list[tuple[str, str]]:
    found = []
    for key, value in fields:
        if key == "date":
            value = "<date>"
        elif key == "x-envoy-upstream-service-time" and name != "quiet":
            value = str(value.isdigit())
        elif re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", value) and "-8e3f-" not in value:
            value = "<made>"
        found.append((key, value))
    return sorted(found)


def observe(kinds: tuple[str, str]) -> dict[tuple[str, str], Seen]:
    """What was seen of each request by listener and shape: by the endpoint, then by the caller."""
    near = Side(kinds[1], f"near-{kinds[1]}", configuration(None))
    sides = [near]
    try:
        near.start()
        far = Side(kinds[0], f"far-{kinds[0]}", configuration(near.ports))
        sides.append(far)
        far.start()
        found: dict[tuple[str, str], Seen] = {}
        for name in LISTENERS:
            for shape, fields in SHAPES.items():
                replies = tuple(Reply(headers=(("x-envoy-upstream-service-time", str(7000 + n)),)) for n in range(TIMES))
                near.upstream.begin(replies if name == "quiet" else (Reply(headers=(("server", "s"),)),))
                seen: Seen = []
                with Client(far, name) as client:
                    for number in range(TIMES):
                        client.send(req("GET", "/x", *[field.format(number) for field in fields]))
                        answer = client.response()
                        seen.append((answer.status, answer.error, answer.body, normal(answer.headers, name)))
                seen += [(one.target, normal(one.headers, name)) for one in near.upstream.received]
                found[name, shape] = seen
        return found
    finally:
        for side in sides:
            side.stop()


def test_the_same_in_every_order() -> None:
    if envoy_binary() is None:
        pytest.skip("Envoy is not installed: `make envoy` installs it, or MESH_PROXY_ENVOY names a binary")
    wanted = observe(("envoy", "envoy"))
    for (name, shape), seen in wanted.items():
        assert [one[0] for one in seen] == [200] * TIMES + ["/x"] * TIMES, (name, shape)
    for kinds in (("envoy", "mesh-proxy"), ("mesh-proxy", "envoy"), ("mesh-proxy", "mesh-proxy")):
        found = observe(kinds)
        for key, seen in wanted.items():
            assert found[key] == seen, (kinds, key)
    times = [dict(one[3])["x-envoy-upstream-service-time"] for one in wanted["quiet", "id"][:TIMES]]
    assert times == [str(7000 + number) for number in range(TIMES)]
