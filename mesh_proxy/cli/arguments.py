"""From argv to Options."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from mesh_proxy.cli.options import Options
from mesh_proxy.logs import LEVELS, canonical_level, parse_component_levels

USAGE_EXIT_CODE: Final = 1

WITHOUT_EFFECT: Final = {
    "ignore_unknown_dynamic_fields": "each unknown field is warned of",
    "enable_fine_grain_logging": "levels are set by component",
    "enable_mutex_tracing": "there are no mutexes",
    "enable_core_dump": "use ulimit -c",
    "log_stacktrace_single_entry": "a stack trace is always one entry",
    "disable_extensions": "extensions cannot be disabled",
}
"""Accepted flags that do nothing (yet), and why; named once in the log when given."""


class UsageError(Exception):
    """The command line is wrong; the text says what."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _unsigned(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > 0xFFFF_FFFF:
        raise argparse.ArgumentTypeError(f"{text!r} is not an unsigned 32-bit number")
    return int(text)


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _level(text: str) -> str:
    try:
        return canonical_level(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _components(text: str) -> tuple[tuple[str, str], ...]:
    try:
        return parse_component_levels(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _octal(text: str) -> int:
    if not re.fullmatch(r"[0-7]{1,4}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an octal file mode such as 600")
    return int(text, 8)


def _tag(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.isalnum() or not value or "." in value:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form tag:value (letters and digits; no dot in the value)")
    return name, value


def _parser(prog: str) -> _Parser:
    parser = _Parser(
        prog=prog,
        allow_abbrev=False,
        add_help=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{prog} -c FILE [options]\n       {prog} validate FILE [options]\n       {prog} demo [--once]\n"
        f"       {prog} inspect ADDRESS… [options]\n       {prog} certs NAME… [options]\n"
        f"       {prog} migrate [options]\n       {prog} iptables apply|clean|show [options]\n"
        f"       {prog} intercept on|off|status [options]\n"
        f"       {prog} localhost --provider LISTEN=TARGET --consumer LISTEN=TARGET\n"
        f"       {prog} probes FILE\n       {prog} wait [options]",
        description="A service-mesh sidecar configured in Envoy's language. Flags, meanings and defaults are Envoy's.",
        epilog="SIGTERM drains and exits, SIGINT exits at once, SIGUSR1 reopens the log files, "
        "SIGHUP starts the process that takes over.",
    )

    group = parser.add_argument_group("configuration")
    group.add_argument("-c", "--config-path", metavar="FILE", default="", help="Envoy v3 bootstrap, YAML or JSON")
    group.add_argument("--config-yaml", metavar="YAML", default="", help="bootstrap given inline; merged over --config-path")
    group.add_argument("--mode", choices=("serve", "validate"), default="serve", help="validate: check, say OK, exit [serve]")
    group.add_argument("--allow-unknown-static-fields", action="store_true", help="warn of unknown fields, do not refuse them")
    group.add_argument("--allow-unknown-fields", action="store_true", help="old name of --allow-unknown-static-fields")
    group.add_argument("--reject-unknown-dynamic-fields", action="store_true", help="refuse unknown keys in watched files")
    group.add_argument("--ignore-unknown-dynamic-fields", action="store_true", help="no effect: each unknown key is warned of")
    group.add_argument("--disable-extensions", metavar="LIST", default="", help="no effect")

    group = parser.add_argument_group("processes")
    group.add_argument("--concurrency", metavar="N", type=_unsigned, help="number of worker processes [one per CPU; 0 means 1]")
    group.add_argument("--cpuset-threads", action="store_true", help="count only the CPUs of our cpuset for --concurrency")
    group.add_argument(
        "--local-address-ip-version", choices=("v4", "v6"), default="v4", help="family of our own address in logs [v4]"
    )
    group.add_argument("--admin-address-path", metavar="FILE", default="", help="write the admin address here once it is bound")

    group.add_argument(
        "--status-port",
        metavar="PORT",
        type=_port,
        action="append",
        default=[],
        help="answer /healthz/ready, /app-health/… and /stats/prometheus on this port of all addresses; may be given again",
    )

    group = parser.add_argument_group("who we are", "Each of them overrides the node of the bootstrap.")
    group.add_argument("--service-cluster", metavar="NAME", default="", help="node.cluster")
    group.add_argument("--service-node", metavar="NAME", default="", help="node.id")
    group.add_argument("--service-zone", metavar="NAME", default="", help="node.locality.zone")
    group.add_argument("--stats-tag", metavar="TAG:VALUE", type=_tag, action="append", default=[], help="tag on every statistic")

    group = parser.add_argument_group("logs")
    group.add_argument("-l", "--log-level", metavar="LEVEL", type=_level, default="info", help=f"{', '.join(LEVELS)} [info]")
    group.add_argument(
        "--component-log-level", metavar="LIST", type=_components, default=(), help="levels by component, e.g. upstream:debug"
    )
    group.add_argument(
        "--log-format", metavar="PATTERN", default="", help="spdlog pattern, default [%%Y-%%m-%%d %%T.%%e][%%P][%%l][%%n] %%v"
    )
    group.add_argument("--log-format-escaped", action="store_true", help="write line breaks inside a message as \\n")
    group.add_argument("--log-path", metavar="FILE", default="", help="file of the log [standard error]")
    group.add_argument("--file-flush-interval-msec", metavar="MS", type=_unsigned, default=10_000, help="access logs [10000]")
    group.add_argument("--file-flush-min-size-kb", metavar="KB", type=_unsigned, default=64, help="access logs [64]")
    group.add_argument("--skip-deprecated-logs", action="store_true", help="do not warn of deprecated fields")
    group.add_argument("--enable-fine-grain-logging", action="store_true", help="no effect")
    group.add_argument("--log-stacktrace-single-entry", action="store_true", help="no effect: always so")

    group = parser.add_argument_group("shutdown and drain")
    group.add_argument("--drain-time-s", metavar="S", type=_unsigned, default=600, help="longest drain [600]")
    group.add_argument(
        "--drain-strategy",
        choices=("gradual", "immediate"),
        default="gradual",
        help="no effect: all connections are asked to close at once",
    )

    group = parser.add_argument_group(
        "hot restart",
        "A process started with the --socket-path and --base-id of a running one takes over from it.",
    )
    group.add_argument("--base-id", metavar="N", type=_unsigned, default=0, help="distinguishes proxies on one host [0]")
    group.add_argument("--use-dynamic-base-id", action="store_true", help="choose a free base id")
    group.add_argument("--base-id-path", metavar="FILE", default="", help="write the base id here")
    group.add_argument("--restart-epoch", metavar="N", type=_unsigned, help="0 for the first process, then 1, 2 … [found out]")
    group.add_argument("--socket-path", metavar="PATH", default="@envoy_domain_socket", help="[@envoy_domain_socket]")
    group.add_argument("--socket-mode", metavar="MODE", type=_octal, default=0o600, help="of a socket with a path [600]")
    group.add_argument(
        "--parent-shutdown-time-s", metavar="S", type=_unsigned, default=900, help="the old process ends after [900]"
    )
    group.add_argument("--disable-hot-restart", action="store_true", help="neither take over nor be taken over from")
    group.add_argument(
        "--skip-hot-restart-on-no-parent", action="store_true", help="start as usual when an epoch above 0 finds no old process"
    )
    group.add_argument("--skip-hot-restart-parent-stats", action="store_true", help="do not go on with the old process's counts")

    group = parser.add_argument_group("other")
    group.add_argument(
        "--codec-engine", choices=("mesh", "h2"), default="mesh", help="HTTP/2 by our own codec or by the h2 library [mesh]"
    )
    group.add_argument("--enable-mutex-tracing", action="store_true", help="no effect")
    group.add_argument("--enable-core-dump", action="store_true", help="no effect: use ulimit -c")
    group.add_argument("--hot-restart-version", action="store_true", help="print the hot restart version and exit")
    group.add_argument("--version", action="store_true", help="print the version and exit")
    group.add_argument("-h", "--help", action="store_true", help="print this text and exit")
    return parser


def help_text(prog: str) -> str:
    """What --help prints."""
    return _parser(prog).format_help()


def wants(argv: Sequence[str], *names: str) -> bool:
    """One of these flags stands in argv; for --help and --version, which win over any mistake."""
    return any(argument in names for argument in argv)


def default_concurrency(cpuset: bool) -> int:
    """One worker per CPU."""
    return max(1, len(os.sched_getaffinity(0)) if cpuset else os.cpu_count() or 1)


def parse_arguments(argv: Sequence[str], prog: str = "mesh-proxy") -> Options:
    """Raises UsageError."""
    found = vars(_parser(prog).parse_args(list(argv)))
    defaults = Options()
    values: dict[str, Any] = {name: value for name, value in found.items() if name in Options.__dataclass_fields__}
    concurrency = found["concurrency"]
    values["epoch_given"] = found["restart_epoch"] is not None
    values["restart_epoch"] = found["restart_epoch"] or 0
    values["concurrency"] = default_concurrency(found["cpuset_threads"]) if concurrency is None else max(1, concurrency)
    values["component_log_levels"] = found["component_log_level"]
    values["allow_unknown_static_fields"] |= found["allow_unknown_fields"]
    tags = found["stats_tag"]
    if len(dict(tags)) != len(tags):
        raise UsageError("--stats-tag: one value per tag")
    values["stats_tags"] = tuple(tags)
    values["status_ports"] = tuple(found["status_port"])
    values["without_effect"] = tuple(
        f"--{name.replace('_', '-')}: {why}" for name, why in WITHOUT_EFFECT.items() if values[name] != getattr(defaults, name)
    )
    options = Options(**values)
    _check(options)
    return options


def _check(options: Options) -> None:
    if not options.config_path and not options.config_yaml:
        raise UsageError("a configuration is needed: -c FILE or --config-yaml YAML")
    if options.codec_engine == "h2" and importlib.util.find_spec("h2") is None:
        raise UsageError("--codec-engine h2 needs the h2 library: pip install 'mesh-proxy[h2]'")
    if options.use_dynamic_base_id and options.restart_epoch:
        raise UsageError("--use-dynamic-base-id cannot be used with a --restart-epoch above 0")
    if options.file_flush_interval_msec == 0:
        raise UsageError("--file-flush-interval-msec must be above 0")
    if not options.socket_path:
        raise UsageError("--socket-path must not be empty")


def program_name() -> str:
    """What to call ourselves in messages."""
    name = os.path.basename(sys.argv[0] if sys.argv else "")
    return "mesh-proxy" if name in ("", "__main__.py", "-c", "-m") else name
