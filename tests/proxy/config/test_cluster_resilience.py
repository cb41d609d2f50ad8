"""What a cluster says about outliers and names that do not resolve."""

from bootstraps import web

from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.config.model import ClusterConfig, OutlierDetectionConfig


def load(text: str) -> ClusterConfig:
    return load_bootstrap(None, web(cluster=text)).clusters[0]


def test_outlier_detection_has_envoys_defaults() -> None:
    assert load("outlier_detection: {}").outlier_detection == OutlierDetectionConfig()
    assert load("alt_stat_name: x").outlier_detection is None


def test_every_field_of_outlier_detection() -> None:
    config = load(
        "outlier_detection: {consecutive_5xx: 1, consecutive_gateway_failure: 2, interval: 3s, base_ejection_time: 4s, "
        "max_ejection_time: 5s, max_ejection_percent: 6, enforcing_consecutive_5xx: 7, enforcing_consecutive_gateway_failure: 8, "
        "success_rate_minimum_hosts: 9, success_rate_request_volume: 10, success_rate_stdev_factor: 11, "
        "enforcing_success_rate: 12, failure_percentage_threshold: 13, failure_percentage_minimum_hosts: 14, "
        "failure_percentage_request_volume: 15, enforcing_failure_percentage: 16, max_ejection_time_jitter: 17s, "
        "always_eject_one_host: true}"
    )
    assert config.outlier_detection == OutlierDetectionConfig(
        consecutive_5xx=1,
        consecutive_gateway_failure=2,
        interval_s=3.0,
        base_ejection_time_s=4.0,
        max_ejection_time_s=5.0,
        max_ejection_percent=6,
        enforcing_consecutive_5xx=7,
        enforcing_consecutive_gateway_failure=8,
        success_rate_minimum_hosts=9,
        success_rate_request_volume=10,
        success_rate_stdev_factor=11,
        enforcing_success_rate=12,
        failure_percentage_threshold=13,
        failure_percentage_minimum_hosts=14,
        failure_percentage_request_volume=15,
        enforcing_failure_percentage=16,
        max_ejection_time_jitter_s=17.0,
        always_eject_one_host=True,
    )


def test_refresh_of_names() -> None:
    config = load("dns_jitter: 1.5s, dns_failure_refresh_rate: {base_interval: 2s, max_interval: 9s}")
    assert (config.dns_jitter_s, config.dns_failure_refresh_base_s, config.dns_failure_refresh_max_s) == (1.5, 2.0, 9.0)
    config = load("dns_failure_refresh_rate: {base_interval: 2s}")
    assert (config.dns_failure_refresh_base_s, config.dns_failure_refresh_max_s) == (2.0, None)
    assert load("alt_stat_name: x").dns_failure_refresh_base_s is None


def test_locality_weights() -> None:
    assert load("common_lb_config: {locality_weighted_lb_config: {}}").locality_weighted
    assert not load("common_lb_config: {}").locality_weighted
