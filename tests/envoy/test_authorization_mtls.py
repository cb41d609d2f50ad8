"""Who a peer is, over mutual TLS: policies by identity as Istio writes them, for requests and connections, and what services are told."""

import socket
import ssl
from collections.abc import Iterator

import pytest
import yaml
from asked_services import AskedServices, serving
from parity import Case, Observation, Pair, Side, Suite, bootstrap, cluster, file_log, hcm, http2_cluster, listener, tcp_proxy
from parity.config import LOG_OPERATORS
from tls_support import certificate, client, downstream, inline

from mesh_proxy.tls.authority import Authority

pytestmark = pytest.mark.envoy

HTTP = "type.googleapis.com/envoy.extensions.filters.http."
NETWORK = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC"
ROUTER = f'{{name: router, typed_config: {{"@type": {HTTP}router.v3.Router}}}}'
PLAIN = "[{match: {prefix: /}, route: {cluster: a}}]"
LOG = {**LOG_OPERATORS, "uri": "%DOWNSTREAM_PEER_URI_SAN%", "told": "%DYNAMIC_METADATA(envoy.filters.http.rbac)%"}
MESH = Authority("cluster.local")
PEERS = {
    "a": MESH.issue(uris=["spiffe://cluster.local/ns/foo/sa/a"], dns=[], subject=""),
    "b": MESH.issue(uris=["spiffe://cluster.local/ns/bar/sa/b"], dns=[], subject=""),
    "foreign": MESH.issue(uris=["spiffe://other.domain/ns/foo/sa/a"], dns=[], subject=""),
    "longer": MESH.issue(uris=["spiffe://cluster.local/ns/foo/sa/ab"], dns=[], subject=""),
    "dns": MESH.issue(uris=[], dns=["shop.test", "www.shop.test"], subject="shop"),
    "none": None,
}
CONTEXT = f"tls_certificates: [{certificate(MESH.workload('web'))}], validation_context: {{trusted_ca: {inline(MESH.pem)}}}"
SOCKET = yaml.safe_load(downstream(CONTEXT))


def principal(match: str) -> str:
    return f"{{authenticated: {{principal_name: {{{match}}}}}}}"


def regex(text: str) -> str:
    return principal(f"safe_regex: {{regex: '{text}'}}")


POLICIES = {
    "exact": principal("exact: spiffe://cluster.local/ns/foo/sa/a"),
    "prefix": principal("prefix: spiffe://cluster.local/"),
    "namespace": regex(".*/ns/foo/.*"),
    "account": regex("spiffe://.+/ns/foo/(.+/|)sa/a(/.+)?"),
    "suffix": regex("spiffe://.*/sa/b"),
    "everybody": regex(".+"),
    "notns": f"{{and_ids: {{ids: [{{not_id: {{or_ids: {{ids: [{regex('.*/ns/bar/.*')}]}}}}}}]}}}}",
    "any": "{authenticated: {}}",
    "dns": principal("exact: shop.test"),
    "seconddns": principal("exact: www.shop.test"),
    "subject": principal("exact: CN=shop"),
    "aliases": f"{{or_ids: {{ids: [{principal('exact: spiffe://cluster.local/ns/foo/sa/a')}, {principal('exact: spiffe://other.domain/ns/foo/sa/a')}]}}}}",
}


def rules(text: str, action: str) -> str:
    return f"rules: {{action: {action}, policies: {{p: {{permissions: [{{any: true}}], principals: [{text}]}}}}}}"


def secure(name: str, *filters: object) -> dict[str, object]:
    one = listener(name, *filters)
    one["filter_chains"][0]["transport_socket"] = SOCKET
    return one


def site(name: str, filters: str) -> dict[str, object]:
    chain = f"http_filters: [{filters}, {ROUTER}]"
    return secure(name, hcm(name, yaml.safe_load(PLAIN), chain, [file_log(f"$(dir)/{name}.log", LOG)]))


def by_request(name: str, text: str, action: str = "ALLOW") -> dict[str, object]:
    return site(name, f"{{name: rbac, typed_config: {{'@type': {HTTP}rbac.v3.RBAC, {rules(text, action)}}}}}")


def by_connection(name: str, text: str, action: str = "ALLOW") -> dict[str, object]:
    rbac = yaml.safe_load(f"{{name: rbac, typed_config: {{'@type': {NETWORK}, stat_prefix: {name}., {rules(text, action)}}}}}")
    return secure(name, rbac, tcp_proxy(name, "cluster: a"))


ASKED = f"{{name: authz, typed_config: {{'@type': {HTTP}ext_authz.v3.ExtAuthz, grpc_service: {{envoy_grpc: {{cluster_name: authz}}, timeout: 20s}}, transport_api_version: V3, include_peer_certificate: true, include_tls_session: true}}}}"
SUITE = Suite(
    bootstrap(
        [
            *(by_request(name, text) for name, text in POLICIES.items()),
            by_request("denyns", POLICIES["namespace"], "DENY"),
            by_connection("tcpexact", POLICIES["exact"]),
            by_connection("tcpdeny", POLICIES["namespace"], "DENY"),
            site("asked", ASKED),
        ],
        [cluster("a", "a"), http2_cluster("authz", "port.authz")],
    ),
)
SERVERS: dict[int, AskedServices] = {}


@pytest.fixture(scope="module", autouse=True)
def services(pair: Pair) -> Iterator[None]:
    with serving(SERVERS, (side.ports["port.authz"] for side in pair.sides)):
        yield


def complete(got: bytes) -> bool:
    head, found, body = got.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    return bool(found) and len(body) >= length


def ask(side: Side, at: str, peer: str) -> bytes:
    """The whole answer; empty when the connection ends without one."""
    context = client(MESH.pem, pair=PEERS[peer])
    got = b""
    with socket.create_connection(("127.0.0.1", side.ports[f"port.{at}"]), timeout=20) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="web.test") as one:
                one.sendall(b"GET /x HTTP/1.1\r\nhost: a.test\r\n\r\n")
                while not complete(got) and (data := one.recv(65536)):
                    got += data
        except (ssl.SSLError, ConnectionError):
            pass
    return got


def asks(at: str, peer: str) -> Case:
    def talk(pair: Pair, side: Side, seen: Observation) -> None:
        seen.notes["status"] = ask(side, at, peer)[9:12].decode()

    return Case(f"{at}_{peer}", run=talk, listener=at, log=1)


def connects(at: str, peer: str) -> Case:
    def talk(pair: Pair, side: Side, seen: Observation) -> None:
        seen.notes["passes"] = str(ask(side, at, peer).startswith(b"HTTP/1.1 200"))

    return Case(f"{at}_{peer}", run=talk, listener="exact", log=0)


REQUESTS = tuple(asks(at, peer) for at in (*POLICIES, "denyns") for peer in PEERS)
CONNECTIONS = tuple(connects(at, peer) for at in ("tcpexact", "tcpdeny") for peer in PEERS)


@pytest.mark.parametrize("case", [*REQUESTS, *CONNECTIONS], ids=str)
def test_identity(pair: Pair, case: Case) -> None:
    pair.check(case)


def test_the_policies_tell_the_peers_apart(pair: Pair) -> None:
    """So that agreement means something: each policy lets somebody pass and somebody not."""
    ours = pair.sides[1]
    for at in POLICIES:
        statuses = {ask(ours, at, peer)[9:12] for peer in PEERS}
        assert statuses == ({b"200"} if at == "any" else {b"200", b"403"}), at  # TLS is all that `any` asks for


@pytest.mark.parametrize("peer", PEERS)
def test_what_services_are_told(pair: Pair, peer: str) -> None:
    told = []
    for side in pair.sides:
        server = SERVERS[side.ports["port.authz"]]
        server.asked.clear()
        assert ask(side, "asked", peer).startswith(b"HTTP/1.1 200")
        attributes = server.asked[0]["attributes"]
        kept = {key: attributes["source"].get(key) for key in ("principal", "certificate")}
        told.append({**kept, "local": attributes["destination"].get("principal"), "sni": attributes.get("tlsSession")})
    assert told[1] == told[0]
