"""The command line: Envoy's flags, one readable line when they are wrong."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mesh_proxy.cli.arguments import UsageError, help_text, parse_arguments
from mesh_proxy.cli.main import main

ENVOY_FLAGS = (
    "stats-tag", "enable-core-dump", "socket-mode", "socket-path", "disable-extensions", "cpuset-threads", "mode", "base-id",
    "enable-mutex-tracing", "disable-hot-restart", "parent-shutdown-time-s", "drain-strategy", "drain-time-s", "version", "help",
    "file-flush-min-size-kb", "file-flush-interval-msec", "service-zone", "service-node", "service-cluster", "config-path",
    "hot-restart-version", "restart-epoch", "log-path", "enable-fine-grain-logging", "log-format-escaped", "log-format",
    "component-log-level", "log-level", "local-address-ip-version", "admin-address-path", "log-stacktrace-single-entry",
    "skip-deprecated-logs", "ignore-unknown-dynamic-fields", "reject-unknown-dynamic-fields", "allow-unknown-static-fields",
    "allow-unknown-fields", "config-yaml", "concurrency", "base-id-path", "skip-hot-restart-parent-stats",
    "skip-hot-restart-on-no-parent", "use-dynamic-base-id",
)  # fmt: skip
"""of Envoy 1.40"""


def test_every_flag_of_envoy_is_known_and_explained() -> None:
    text = help_text("mesh-proxy")
    assert {flag for flag in ENVOY_FLAGS if not re.search(rf"--{flag}\b", text)} == set()


def test_defaults_are_envoys() -> None:
    options = parse_arguments(["-c", "x.yaml"])
    assert options.concurrency == os.cpu_count()
    assert (options.drain_time_s, options.parent_shutdown_time_s, options.drain_strategy) == (600, 900, "gradual")
    assert (options.file_flush_interval_msec, options.log_level, options.mode) == (10000, "info", "serve")
    assert (options.base_id, options.restart_epoch, options.socket_path, options.socket_mode) == (
        0,
        0,
        "@envoy_domain_socket",
        0o600,
    )
    assert options.without_effect == ()


def test_what_istio_passes_is_taken() -> None:
    line = (
        "-c etc/envoy-rev.json --drain-time-s 45 --drain-strategy immediate --local-address-ip-version v4 "
        "--file-flush-interval-msec 1000 --disable-hot-restart --allow-unknown-static-fields -l warning "
        "--component-log-level misc:error --skip-deprecated-logs --concurrency 2"
    )
    options = parse_arguments(line.split())
    assert options.component_log_levels == (("misc", "error"),)
    assert options.allow_unknown_static_fields
    assert options.without_effect == ()
    worker = options.for_workers()
    assert (worker.concurrency, worker.drain_time_s, worker.file_flush_interval_s) == (2, 45.0, 1.0)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "a configuration is needed"),
        ("-c a --concurrency -1", "--concurrency"),
        ("-c a --concurrency two", "not an unsigned 32-bit number"),
        ("-c a --drain-strategy slow", "--drain-strategy"),
        ("-c a --codec-engine nghttp2", "--codec-engine"),
        ("-c a -l loud", "unknown log level 'loud'"),
        ("-c a --component-log-level nope:info", "unknown log component 'nope'"),
        ("-c a --component-log-level upstream", "not of the form name:level"),
        ("-c a --socket-mode 999", "octal"),
        ("-c a --no-such-flag", "--no-such-flag"),
        ("-c a extra", "extra"),
        ("-c a --use-dynamic-base-id --restart-epoch 1", "--use-dynamic-base-id"),
        ("-c a --stats-tag ab", "tag:value"),
        ("-c a --stats-tag a:b --stats-tag a:c", "one value per tag"),
        ("-c a --file-flush-interval-msec 0", "above 0"),
        ("-c a --conc 2", "--conc"),
    ],
)
def test_wrong_command_lines(argv: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        parse_arguments(argv.split())
    assert main(argv.split()) == 1
    assert message in capsys.readouterr().err


def test_flags_without_effect_are_named() -> None:
    options = parse_arguments(["-c", "x", "--base-id", "3", "--disable-extensions", "a", "--enable-core-dump"])
    assert [text.partition(":")[0] for text in options.without_effect] == ["--enable-core-dump", "--disable-extensions"]


def test_zero_workers_mean_one() -> None:
    assert parse_arguments(["-c", "x", "--concurrency", "0"]).concurrency == 1


def test_version_and_help_win_over_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nonsense", "--version"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"  version: \w+/0\.\d+\.\d+/Clean/RELEASE/\w+ \((compiled|interpreted)\)\n$", printed)
    assert main(["--nonsense", "-h"]) == 0
    assert "hot restart" in capsys.readouterr().out
    assert main(["--hot-restart-version"]) == 0
    assert capsys.readouterr().out == "1\n"
    assert main(["--hot-restart-version", "--disable-hot-restart"]) == 0
    assert capsys.readouterr().out == "disabled\n"


def test_epoch_zero_given_is_not_the_same_as_none() -> None:
    assert not parse_arguments(["-c", "x"]).epoch_given
    given = parse_arguments(["-c", "x", "--restart-epoch", "0"])
    assert (given.epoch_given, given.restart_epoch) == (True, 0)


def test_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "good.yaml"
    good.write_text("static_resources: {clusters: [{name: a, load_assignment: {cluster_name: a}}]}\n")
    assert main(["validate", str(good)]) == 0
    assert capsys.readouterr().out == f"configuration '{good}' OK\n"
    assert main(["-c", str(good), "--mode", "validate"]) == 0
    assert capsys.readouterr().out == f"configuration '{good}' OK\n"
    bad = tmp_path / "bad.yaml"
    bad.write_text("static_resources: {listeners: [{name: a, adress: 1}]}\n")
    assert main(["validate", str(bad)]) == 1
    seen = capsys.readouterr()
    assert "listeners[0].adress" in seen.err
    assert seen.out == ""
