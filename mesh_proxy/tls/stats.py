"""`listener.<address>.ssl.*` and `cluster.<name>.ssl.*`, with Envoy's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mesh_proxy.stats.group import StatGroup, stat_kind

if TYPE_CHECKING:
    from mesh_proxy.stats.registry import StatRegistry


class SslStats(StatGroup):
    """Handshakes and their failures."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        "connection_error",
        "handshake",
        "session_reused",
        "no_certificate",
        "fail_verify_no_cert",
        "fail_verify_error",
        "fail_verify_san",
        "fail_verify_cert_hash",
        "ocsp_staple_failed",
        "ocsp_staple_omitted",
        "ocsp_staple_responses",
        "ocsp_staple_requests",
        "was_key_usage_invalid",
    )
    __slots__ = COUNTERS

    connection_error: int
    handshake: int
    session_reused: int
    no_certificate: int
    fail_verify_no_cert: int
    fail_verify_error: int
    fail_verify_san: int
    fail_verify_cert_hash: int


class SocketFactoryStats(StatGroup):
    """`….server_ssl_socket_factory.*` and `….client_ssl_socket_factory.*`."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        "ssl_context_update_by_sds",
        "upstream_context_secrets_not_ready",
        "downstream_context_secrets_not_ready",
    )
    __slots__ = COUNTERS

    ssl_context_update_by_sds: int
    upstream_context_secrets_not_ready: int
    downstream_context_secrets_not_ready: int


def count_by_name(registry: StatRegistry, prefix: str, name: str) -> None:
    """Count one of a family that grows with what peers bring: `ssl.versions.TLSv1.3`, `ssl.ciphers.<name>`."""
    head, dot, name = name.rpartition(".")  # a statistic's own name has no dot
    prefix += head + dot
    group = registry.get(stat_kind((name,)), prefix)
    setattr(group, name, getattr(group, name) + 1)
