"""Bootstraps with transport sockets: accepted and refused. Certificates are made at import, files are gone at the end."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from tls_support import certificate, downstream, inline, upstream

from bootstraps import CHAIN, CLUSTER, EXT, options, typed, web
from bootstraps.bad import Bad, unsupported
from bootstraps.good import Good
from mesh_proxy.config.model.tls import SanType
from mesh_proxy.tls.authority import Authority, key_pem, new_key

FOLDER = Path(tempfile.mkdtemp(prefix="mesh-proxy-tls-"))
atexit.register(shutil.rmtree, FOLDER, True)
MESH = Authority("mesh.local")
PAIR = MESH.workload("web")
OTHER_PAIR = MESH.workload("other")
RSA = MESH.issue(dns=["web"], key=new_key("rsa"))
RAW = typed("raw", "transport_sockets.raw_buffer.v3.RawBuffer")
CA = f"trusted_ca: {inline(MESH.pem)}"
OWN = f"tls_certificates: [{certificate(PAIR)}]"
SPIFFE = f"{EXT}transport_sockets.tls.v3.SPIFFECertValidatorConfig"
PIN = "DEADBEEF" * 8
(FOLDER / "chain.pem").write_bytes(PAIR.chain)
(FOLDER / "key.pem").write_bytes(PAIR.key)
(FOLDER / "root.pem").write_bytes(MESH.pem)
(FOLDER / "empty.pem").write_bytes(b"")
SECRET = f"{EXT}transport_sockets.tls.v3.Secret"
(FOLDER / "sds.yaml").write_text(
    f"""
resources:
- "@type": {SECRET}
  name: default
  tls_certificate: {{certificate_chain: {{filename: {FOLDER}/chain.pem}}, private_key: {{filename: {FOLDER}/key.pem}}}}
- "@type": {SECRET}
  name: ROOTCA
  validation_context: {{trusted_ca: {{filename: {FOLDER}/root.pem}}}}
"""
)
SDS = f"sds_config: {{path_config_source: {{path: {FOLDER}/sds.yaml}}, resource_api_version: V3, initial_fetch_timeout: 0s}}"
FILES = (
    f"tls_certificates: [{{certificate_chain: {{filename: {FOLDER}/chain.pem}}, private_key: {{filename: {FOLDER}/key.pem}}, "
    f"watched_directory: {{path: {FOLDER}}}}}]"
)


def chain(socket: str) -> str:
    """With a filter chain's transport socket."""
    return web(chain=f"transport_socket: {socket}")


def cluster(socket: str) -> str:
    """With a cluster's."""
    return web(cluster=f"transport_socket: {socket}")


def static(secrets: str, socket: str) -> str:
    """With `static_resources.secrets`."""
    return chain(socket).replace("  - {name: b}\n", f"  - {{name: b}}\n  secrets: [{secrets}]\n")


D = "listeners.0.filter_chains.0.transport_socket"
U = "clusters.0.transport_socket"
BELIEVED = (f"{CLUSTER}.transport_socket.typed_config.common_tls_context",)
GOOD = [
    Good(
        "downstream TLS",
        chain(
            downstream(
                f"{OWN}, alpn_protocols: [h2, http/1.1], validation_context: {{{CA}}}, "
                "tls_params: {tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3, "
                "cipher_suites: ['[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]', ECDHE-RSA-AES128-GCM-SHA256], "
                "ecdh_curves: [P-256]}",
                "require_client_certificate: true",
                "require_sni: true",
                "disable_stateless_session_resumption: true",
                "ocsp_staple_policy: LENIENT_STAPLING",
            )
        ),
        {
            f"{D}.common.alpn": ("h2", "http/1.1"),
            f"{D}.common.parameters.ciphers": (
                "ECDHE-ECDSA-AES128-GCM-SHA256",
                "ECDHE-ECDSA-CHACHA20-POLY1305",
                "ECDHE-RSA-AES128-GCM-SHA256",
            ),
            f"{D}.common.parameters.curve": "prime256v1",
            f"{D}.require_client_certificate": True,
            f"{D}.require_sni": True,
            f"{D}.tickets": False,
            f"{D}.common.validation.trusted_ca": MESH.pem,
        },
    ),
    Good("keys of two kinds", chain(downstream(f"tls_certificates: [{certificate(PAIR)}, {certificate(RSA)}]"))),
    Good(
        "files that are watched",
        chain(downstream(FILES)),
        {f"{D}.common.certificates": (f"file/{FOLDER}/chain.pem~{FOLDER}/key.pem",)},
    ),
    Good(
        "validation",
        cluster(
            upstream(
                f"validation_context: {{{CA}, match_typed_subject_alt_names: [{{san_type: URI, matcher: {{prefix: 'spiffe://'}}}}], "
                f"verify_certificate_hash: [{PIN}], verify_certificate_spki: [NvqYIYSbgK2vCJpQhObf77vv+bQWtc5ek5RIOwPiC9A=], "
                f"crl: {inline(MESH.revocation_list())}, only_verify_leaf_cert_crl: true, allow_expired_certificate: true, "
                "max_verify_depth: 3, trust_chain_verification: VERIFY_TRUST_CHAIN}",
                "sni: web",
                "max_session_keys: 0",
                "auto_host_sni: true",
                "auto_sni_san_validation: true",
                "enforce_rsa_key_usage: false",
                "allow_renegotiation: false",
            )
        ),
        {
            f"{U}.sni": "web",
            f"{U}.auto_host_sni": True,
            f"{U}.auto_san_check": True,
            f"{U}.resumption": False,
            f"{U}.enforce_rsa_key_usage": False,
            f"{U}.common.validation.hashes": (PIN.lower(),),
            f"{U}.common.validation.spki_pins": ("NvqYIYSbgK2vCJpQhObf77vv+bQWtc5ek5RIOwPiC9A=",),
            f"{U}.common.validation.allow_expired": True,
            f"{U}.common.validation.only_leaf_crl": True,
            f"{U}.common.validation.max_depth": 3,
            f"{U}.common.validation.subject_alt_names.0.kind": SanType.URI,
        },
    ),
    Good(
        "names of any kind",
        cluster(upstream(f"validation_context: {{{CA}, match_subject_alt_names: [{{exact: web}}]}}")),
        {f"{U}.common.validation.subject_alt_names.3.matcher.value": "web"},
    ),
    Good(
        "trust domains",
        chain(
            downstream(
                f"{OWN}, validation_context: {{custom_validator_config: {{name: envoy.tls.cert_validator.spiffe, typed_config: "
                f'{{"@type": {SPIFFE}, trust_domains: [{{name: mesh.local, trust_bundle: {inline(MESH.pem)}}}]}}}}}}',
                "require_client_certificate: true",
            )
        ),
        {f"{D}.common.validation.trust_domains": (("mesh.local", MESH.pem),)},
    ),
    Good(
        "secrets from a file, merged over the default",
        chain(
            downstream(
                f"tls_certificate_sds_secret_configs: [{{name: default, {SDS}}}], combined_validation_context: {{"
                "default_validation_context: {match_typed_subject_alt_names: [{san_type: URI, matcher: {prefix: 'spiffe://mesh.local/'}}]}, "
                f"validation_context_sds_secret_config: {{name: ROOTCA, {SDS}}}}}",
                "require_client_certificate: true",
            )
        )
        + "node: {id: me, cluster: c}",
        {
            f"{D}.common.certificates": (f"sds/{FOLDER}/sds.yaml#default",),
            f"{D}.common.validation_secret": f"sds/{FOLDER}/sds.yaml#ROOTCA",
        },
    ),
    Good(
        "static secrets",
        static(
            f"{{name: own, tls_certificate: {certificate(PAIR)}}}, {{name: ca, validation_context: {{{CA}}}}}",
            downstream(
                "tls_certificate_sds_secret_configs: [{name: own}], validation_context_sds_secret_config: {name: ca}",
                "require_client_certificate: true",
            ),
        ),
        {f"{D}.common.certificates": ("static/own",), "listeners.0.tls_secrets.0.label": "own"},
    ),
    Good(
        "HTTP/2 is offered by ALPN",
        web(
            cluster=f"transport_socket: {upstream(f'validation_context: {{{CA}}}')}, "
            + options("explicit_http_config: {http2_protocol_options: {}}")
        ),
        {f"{U}.common.alpn": ("h2",)},
    ),
    Good("nothing is asked of the endpoint", cluster(upstream("")), {f"{U}.common.validation.trusted_ca": b""}, BELIEVED),
    Good(
        "by the endpoint's metadata",
        web(
            cluster="transport_socket_matches: [{name: tls, match: {tlsMode: istio}, transport_socket: "
            f"{upstream(f'validation_context: {{{CA}}}')}}}, {{name: plain, match: {{}}, transport_socket: {RAW}}}]"
        ),
        {"clusters.0.transport_matches.0.match": (("tlsMode", "istio"),), "clusters.0.transport_matches.1.socket": None},
    ),
]

C = f"{CHAIN}.transport_socket.typed_config.common_tls_context"
X = f"{CLUSTER}.transport_socket.typed_config.common_tls_context"
MISFIT = f"{{certificate_chain: {inline(PAIR.chain)}, private_key: {inline(OTHER_PAIR.key)}}}"
LOCKED = f"{{certificate_chain: {inline(PAIR.chain)}, private_key: {inline(key_pem(new_key(), b'secret'))}}}"
BAD = [
    Bad("a listener without a certificate", chain(downstream("")), C, "needs a certificate"),
    Bad("a key of another certificate", chain(downstream(f"tls_certificates: [{MISFIT}]")), C, "do not belong together"),
    Bad("a key without its password", chain(downstream(f"tls_certificates: [{LOCKED}]")), C, "no password"),
    Bad(
        "half a pair",
        chain(downstream(f"tls_certificates: [{{certificate_chain: {inline(PAIR.chain)}}}]")),
        f"{C}.tls_certificates[0]",
        "needs certificate_chain and private_key",
    ),
    Bad(
        "a bundle without a certificate",
        cluster(upstream("validation_context: {trusted_ca: {inline_string: x}}")),
        f"{X}.validation_context.trusted_ca",
        "no certificate",
    ),
    Bad(
        "names that nobody vouches for",
        cluster(upstream("validation_context: {match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: a}}]}")),
        X,
        "need trusted_ca",
    ),
    unsupported(
        "a client certificate that nobody checks",
        chain(downstream(OWN, "require_client_certificate: true")),
        C,
        "without a trusted_ca",
    ),
    Bad(
        "an unknown cipher suite",
        chain(downstream(f"{OWN}, tls_params: {{cipher_suites: [ECDHE-ECDSA-AES128-GCM-SHA256, NOPE]}}")),
        C,
        "unknown cipher suite NOPE",
    ),
    unsupported(
        "TLS 1.1",
        chain(downstream(f"{OWN}, tls_params: {{tls_minimum_protocol_version: TLSv1_1}}")),
        f"{C}.tls_params.tls_minimum_protocol_version",
        "below 1.2",
    ),
    Bad(
        "a pin that is none",
        cluster(upstream(f"validation_context: {{{CA}, verify_certificate_hash: [{'x' * 64}]}}")),
        f"{X}.validation_context.verify_certificate_hash[0]",
        "SHA-256",
    ),
    unsupported(
        "peers that nobody vouches for",
        cluster(upstream(f"validation_context: {{{CA}, trust_chain_verification: ACCEPT_UNTRUSTED}}")),
        f"{X}.validation_context.trust_chain_verification",
        "not accepted",
    ),
    Bad(
        "an unknown secret",
        chain(downstream("tls_certificate_sds_secret_configs: [{name: nope}]")),
        f"{C}.tls_certificate_sds_secret_configs[0].name",
        "there is no secret",
    ),
    Bad(
        "secrets over gRPC",
        chain(downstream("tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}}}]")),
        f"{C}.tls_certificate_sds_secret_configs[0].sds_config.ads",
        "only files",
    ),
    Bad(
        "a key provider",
        chain(
            downstream(
                f"tls_certificates: [{{certificate_chain: {inline(PAIR.chain)}, private_key_provider: {{provider_name: p, typed_config: "
                '{"@type": type.googleapis.com/google.protobuf.Empty}}}]'
            )
        ),
        f"{C}.tls_certificates[0].private_key_provider",
        "not supported",
    ),
]
