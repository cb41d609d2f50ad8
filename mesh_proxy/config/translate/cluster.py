"""Clusters: type, load balancing, circuit breakers, protocol options."""

from __future__ import annotations

from math import isqrt

from google.protobuf.message import Message

from mesh_proxy.config import features
from mesh_proxy.config.dubbo_protos import CLUSTER_OPTIONS
from mesh_proxy.config.model.cluster import (
    ClusterConfig,
    EndpointSetConfig,
    OutlierDetectionConfig,
    SubsetConfig,
    SubsetSelectorConfig,
    ThresholdsConfig,
)
from mesh_proxy.config.model.common import BindConfig
from mesh_proxy.config.model.dubbo import DubboClusterConfig
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.common import dns_resolver, required, socket_address, socket_options
from mesh_proxy.config.translate.context import Context, run
from mesh_proxy.config.translate.dubbo_options import cluster_options, metadata_with_options
from mesh_proxy.config.translate.endpoint import endpoint_set
from mesh_proxy.config.translate.health_check import health_check
from mesh_proxy.config.translate.istio import left_out
from mesh_proxy.config.translate.protocol import upstream_options
from mesh_proxy.config.translate.source import reference
from mesh_proxy.config.translate.transport import transport_matches, upstream_transport, used_secrets
from mesh_proxy.stats.group import sanitize

MOST_RING_PLACES = 8 * 1024 * 1024
"""default and upper limit of `maximum_ring_size`"""


def translate_cluster(message: Message, path: str, context: Context | None = None) -> ClusterConfig:
    """`envoy.config.cluster.v3.Cluster`."""
    return run(message, path, _cluster, context)


def _cluster(reader: Reader, context: Context) -> ClusterConfig:
    if reader.oneof("cluster_discovery_type") == "cluster_type":
        raise reader.error("custom cluster types are not supported", "cluster_type")
    kind = reader.enum("type")
    if kind not in features.CLUSTER_TYPES:
        raise reader.error(f"{kind} is not supported", "type")
    policy = reader.enum("lb_policy")
    if policy not in features.LB_POLICIES:
        raise reader.error(f"{policy} is not supported", "lb_policy")
    if kind == "ORIGINAL_DST":
        if policy != "CLUSTER_PROVIDED":
            raise reader.error("must be CLUSTER_PROVIDED for a cluster of type ORIGINAL_DST", "lb_policy")
        if reader.has("load_assignment"):
            raise reader.error("a cluster of type ORIGINAL_DST has no endpoints of its own", "load_assignment")
    elif policy == "CLUSTER_PROVIDED":
        raise reader.error(f"a cluster of type {kind} provides no load balancer", "lb_policy")
    name = reader.text("name")
    dns_resolver(reader)
    options = upstream_options(reader)
    _filters(reader)
    breakers = reader.sub("circuit_breakers")
    low, high, per_host = _breakers(breakers) if breakers is not None else (ThresholdsConfig(), ThresholdsConfig(), None)
    common = reader.sub("common_lb_config")
    panic, weighted, by_hostname = _common_lb(common, kind) if common is not None else (50.0, False, False)
    checks = reader.subs("health_checks")
    if len(checks) > 1:
        raise checks[1].error("only one health check is supported")
    if checks and kind == "ORIGINAL_DST":
        raise checks[0].error("is not supported for a cluster of type ORIGINAL_DST")
    if checks and options.protocol == "HTTP1" and checks[0].oneof("health_checker") == "grpc_health_check":
        raise checks[0].error("needs a cluster that speaks HTTP/2", "grpc_health_check")
    socket = reader.sub("transport_socket")
    outlier = reader.sub("outlier_detection")
    failure_refresh = reader.sub("dns_failure_refresh_rate")
    choices = reader.sub("least_request_lb_config")
    ring_least, ring_most, maglev_size = _hash_tables(reader)
    before = len(context.references)
    service_name = _eds(reader, context, kind, name)
    alpn = ("h2",) if options.protocol == "HTTP2" else ()  # as Envoy's pools do; servers of gRPC insist on it
    transport = upstream_transport(socket, context, alpn) if socket is not None else None
    matches = transport_matches(reader, context, alpn)
    labels, dubbo = metadata_with_options(reader, "metadata", CLUSTER_OPTIONS)
    return ClusterConfig(
        name=name,
        kind=kind,
        alt_stat_name=reader.text("alt_stat_name"),
        connect_timeout_s=reader.seconds("connect_timeout", 5.0) or 5.0,
        per_connection_buffer_limit_bytes=reader.number("per_connection_buffer_limit_bytes", 1_048_576),
        lb_policy=policy,
        least_request_choice_count=choices.number("choice_count", 2) if choices is not None else 2,
        ring_hash_minimum_size=ring_least,
        ring_hash_maximum_size=ring_most,
        maglev_table_size=maglev_size,
        hash_by_hostname=by_hostname,
        endpoints=_endpoints(reader, kind, name),
        eds_service_name=service_name,
        references=tuple(context.references[before:]),
        thresholds=low,
        high_thresholds=high,
        per_host_max_connections=per_host,
        dns_refresh_rate_s=reader.seconds("dns_refresh_rate", 5.0) or 5.0,
        dns_jitter_s=reader.seconds("dns_jitter", 0.0) or 0.0,
        dns_failure_refresh_base_s=failure_refresh.seconds("base_interval") if failure_refresh is not None else None,
        dns_failure_refresh_max_s=failure_refresh.seconds("max_interval") if failure_refresh is not None else None,
        respect_dns_ttl=reader.flag("respect_dns_ttl"),
        dns_lookup_family=reader.enum("dns_lookup_family"),
        wait_for_warm_on_init=reader.flag("wait_for_warm_on_init", True),
        max_requests_per_connection=options.max_requests_per_connection,
        idle_timeout_s=options.idle_timeout_s,
        max_connection_duration_s=options.max_connection_duration_s,
        max_stream_duration_s=options.max_stream_duration_s,
        upstream_protocol=options.protocol,
        http1_enable_trailers=options.http1_enable_trailers,
        http2=options.http2,
        dubbo=cluster_options(dubbo) if dubbo is not None else DubboClusterConfig(),
        max_response_headers_kb=options.max_response_headers_kb,
        max_response_headers_count=options.max_response_headers_count,
        transport_socket=transport,
        transport_matches=matches,
        tls_secrets=used_secrets(context, (transport, *(match.socket for match in matches))),
        bind=_bind(reader),
        tcp_keepalive=_keepalive(reader),
        panic_threshold_percent=panic,
        locality_weighted=weighted,
        subsets=_subsets(reader, policy),
        outlier_detection=_outlier_detection(outlier) if outlier is not None else None,
        health_check=health_check(checks[0]) if checks else None,
        ignore_new_until_checked=common is not None and common.flag("ignore_new_hosts_until_first_hc"),
        ignore_health_on_removal=reader.flag("ignore_health_on_host_removal"),
        metadata=labels,
        original_dst_http_header=_original_dst(reader, kind),
        cleanup_interval_s=reader.seconds("cleanup_interval", 5.0) or 5.0,
        close_connections_on_host_health_failure=reader.flag("close_connections_on_host_health_failure"),
    )


def _filters(reader: Reader) -> None:
    """`filters` of upstream connections: only such as may be left out."""
    for entry in reader.subs("filters"):
        name, config = entry.text("name"), entry.extension("typed_config")
        why = left_out(config) if config is not None else ""
        if not why:
            raise config.unsupported("upstream network filter") if config is not None else entry.error("needs typed_config")
        entry.problems.warn(entry.path, f"ignored: {name}: {why}")


def _eds(reader: Reader, context: Context, kind: str, name: str) -> str:
    eds = reader.sub("eds_cluster_config")
    if kind != "EDS":
        if eds is not None:
            raise reader.error("is only for clusters of type EDS", "eds_cluster_config")
        return ""
    if eds is None:
        raise reader.error("is required for clusters of type EDS", "eds_cluster_config")
    prefix = f"cluster.{sanitize(reader.text('alt_stat_name') or name)}."
    service_name = eds.text("service_name")
    reference(eds, context, "eds", service_name or name, stat_prefix=prefix, field="eds_config")
    return service_name


def _subsets(reader: Reader, policy: str) -> SubsetConfig | None:
    """`lb_subset_config`. Without selectors it has no effect, as in Envoy."""
    subsets = reader.sub("lb_subset_config")
    if subsets is None:
        return None
    if policy == "CLUSTER_PROVIDED":
        raise subsets.error("is not for clusters that provide their own load balancer")
    if not subsets.message.subset_selectors:
        subsets.mark_read(field.name for field, _ in subsets.message.ListFields())
        return None
    return SubsetConfig(
        fallback_policy=subsets.enum("fallback_policy"),
        default_subset=subsets.struct("default_subset"),
        selectors=subsets.each("subset_selectors", _selector),
        locality_weight_aware=subsets.flag("locality_weight_aware"),
        panic_mode_any=subsets.flag("panic_mode_any"),
        list_as_any=subsets.flag("list_as_any"),
        metadata_fallback_list=subsets.enum("metadata_fallback_policy") == "FALLBACK_LIST",
    )


def _selector(reader: Reader) -> SubsetSelectorConfig:
    keys = tuple(dict.fromkeys(reader.strings("keys")))
    single = reader.flag("single_host_per_subset")
    if single and len(keys) != 1:
        raise reader.error("needs exactly one key", "single_host_per_subset")
    policy, fallback = reader.enum("fallback_policy"), reader.strings("fallback_keys_subset")
    if policy == "KEYS_SUBSET":
        if not fallback or not set(fallback) < set(keys):
            raise reader.error("must be some, and not all, of keys", "fallback_keys_subset")
    elif fallback:
        raise reader.error("is only for KEYS_SUBSET", "fallback_keys_subset")
    return SubsetSelectorConfig(keys=keys, single_host_per_subset=single, fallback_policy=policy, fallback_keys=fallback)


def _endpoints(reader: Reader, kind: str, name: str) -> EndpointSetConfig | None:
    assignment = reader.sub("load_assignment")
    if assignment is None:
        return EndpointSetConfig(cluster_name=name) if kind in ("STATIC", "STRICT_DNS") else None
    if kind == "EDS":
        raise reader.error("a cluster of type EDS gets its endpoints from the control plane", "load_assignment")
    endpoints = endpoint_set(assignment, names_allowed=kind != "STATIC")
    if kind == "LOGICAL_DNS" and [len(locality.endpoints) for locality in endpoints.localities] != [1]:
        raise assignment.error("a cluster of type LOGICAL_DNS must have exactly one locality with one endpoint")
    if kind in ("STRICT_DNS", "LOGICAL_DNS"):
        for locality in endpoints.localities:
            if any(endpoint.address.path for endpoint in locality.endpoints):
                raise assignment.error(f"a cluster of type {kind} cannot have unix sockets as endpoints")
    return endpoints


def _breakers(reader: Reader) -> tuple[ThresholdsConfig, ThresholdsConfig, int | None]:
    found: dict[str, ThresholdsConfig] = {}
    for entry in reader.subs("thresholds"):
        found.setdefault(entry.enum("priority"), _thresholds(entry))
    per_host: int | None = None
    for entry in reader.subs("per_host_thresholds"):
        priority, limit = entry.enum("priority"), entry.optional_number("max_connections")
        if priority == "DEFAULT" and per_host is None:
            per_host = limit
        elif priority != "DEFAULT":
            raise entry.error("only the DEFAULT priority is supported here", "priority")
    return found.get("DEFAULT", ThresholdsConfig()), found.get("HIGH", ThresholdsConfig()), per_host


def _thresholds(reader: Reader) -> ThresholdsConfig:
    budget = reader.sub("retry_budget")
    return ThresholdsConfig(
        max_connections=reader.number("max_connections", 1024),
        max_pending_requests=reader.number("max_pending_requests", 1024),
        max_requests=reader.number("max_requests", 1024),
        max_retries=reader.number("max_retries", 3),
        retry_budget_percent=budget.percent("budget_percent", 20.0) if budget is not None else None,
        retry_budget_min_concurrency=budget.number("min_retry_concurrency", 3) if budget is not None else 3,
        track_remaining=reader.flag("track_remaining"),
    )


def _common_lb(reader: Reader, kind: str) -> tuple[float, bool, bool]:
    """`CommonLbConfig`: the panic threshold, whether localities share the load by weight, whether names are hashed."""
    hashing = reader.sub("consistent_hashing_lb_config")
    by_hostname = hashing is not None and hashing.flag("use_hostname_for_hashing")
    if hashing is not None and by_hostname and kind != "STRICT_DNS":
        raise hashing.error("is only for clusters of type STRICT_DNS", "use_hostname_for_hashing")
    return (
        reader.percent("healthy_panic_threshold", 50.0),
        reader.sub("locality_weighted_lb_config") is not None,
        by_hostname,
    )


def _hash_tables(reader: Reader) -> tuple[int, int, int]:
    """Sizes: of the ring at least and at most, of Maglev's table. A table of another policy is passed over, as in Envoy."""
    ring, maglev = reader.sub("ring_hash_lb_config"), reader.sub("maglev_lb_config")
    least, most, size = 1024, MOST_RING_PLACES, 65537
    if ring is not None:
        least = ring.number("minimum_ring_size", 1024)
        most = ring.number("maximum_ring_size", MOST_RING_PLACES)
        if ring.enum("hash_function") != "XX_HASH":
            raise ring.error("only XX_HASH is supported", "hash_function")
        if least > most:
            raise ring.error("must not be larger than maximum_ring_size", "minimum_ring_size")
    if maglev is not None:
        size = maglev.number("table_size", 65537)
        if not _is_prime(size):
            raise maglev.error("must be a prime", "table_size")
    return least, most, size


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))


def _bind(reader: Reader) -> BindConfig | None:
    bind = reader.sub("upstream_bind_config")
    if bind is None:
        return None
    source = bind.sub("source_address")
    more = bind.subs("extra_source_addresses")
    if more and bind.message.additional_source_addresses:
        raise bind.error("is not for use together with extra_source_addresses", "additional_source_addresses")
    if (more or bind.message.additional_source_addresses) and source is None:
        raise bind.error("needs source_address too", "extra_source_addresses" if more else "additional_source_addresses")
    addresses = [socket_address(source, names_allowed=False)] if source is not None else []
    addresses += [socket_address(required(one, "address"), names_allowed=False) for one in more]
    addresses += bind.each("additional_source_addresses", lambda one: socket_address(one, names_allowed=False))
    return BindConfig(
        addresses=tuple(addresses),
        freebind=bind.flag("freebind"),
        socket_options=socket_options(bind),
    )


def _keepalive(reader: Reader) -> tuple[int, int, int] | None:
    options = reader.sub("upstream_connection_options")
    keepalive = options.sub("tcp_keepalive") if options is not None else None
    if keepalive is None:
        return None
    return (
        keepalive.number("keepalive_probes"),
        keepalive.number("keepalive_time"),
        keepalive.number("keepalive_interval"),
    )


def _original_dst(reader: Reader, kind: str) -> str:
    config = reader.sub("original_dst_lb_config")
    if config is None:
        return ""
    if kind != "ORIGINAL_DST":
        raise reader.error("is only for clusters of type ORIGINAL_DST", "original_dst_lb_config")
    header = config.lower("http_header_name") or "x-envoy-original-dst-host"
    return header if config.flag("use_http_header") else ""


def _outlier_detection(reader: Reader) -> OutlierDetectionConfig:
    if "outlier_detection" not in features.OTHER:
        raise reader.error("outlier detection is not supported")
    base = reader.seconds("base_ejection_time", 30.0) or 30.0
    return OutlierDetectionConfig(
        consecutive_5xx=reader.number("consecutive_5xx", 5),
        consecutive_gateway_failure=reader.number("consecutive_gateway_failure", 5),
        interval_s=reader.seconds("interval", 10.0) or 10.0,
        base_ejection_time_s=base,
        max_ejection_time_s=reader.seconds("max_ejection_time", max(300.0, base)) or base,
        max_ejection_percent=reader.number("max_ejection_percent", 10),
        enforcing_consecutive_5xx=reader.number("enforcing_consecutive_5xx", 100),
        enforcing_consecutive_gateway_failure=reader.number("enforcing_consecutive_gateway_failure", 0),
        success_rate_minimum_hosts=reader.number("success_rate_minimum_hosts", 5),
        success_rate_request_volume=reader.number("success_rate_request_volume", 100),
        success_rate_stdev_factor=reader.number("success_rate_stdev_factor", 1900),
        enforcing_success_rate=reader.number("enforcing_success_rate", 100),
        failure_percentage_threshold=reader.number("failure_percentage_threshold", 85),
        failure_percentage_minimum_hosts=reader.number("failure_percentage_minimum_hosts", 5),
        failure_percentage_request_volume=reader.number("failure_percentage_request_volume", 50),
        enforcing_failure_percentage=reader.number("enforcing_failure_percentage", 0),
        max_ejection_time_jitter_s=reader.seconds("max_ejection_time_jitter", 0.0) or 0.0,
        always_eject_one_host=reader.flag("always_eject_one_host"),
    )
