"""The entry point: what was asked, in the order that keeps the processes small.

The worker's modules are imported first and the spawner is forked; only then come protobuf and YAML, into the supervisor alone.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mesh_hotrestart import PROTOCOL_VERSION
from mesh_proxy.cli.arguments import UsageError, help_text, parse_arguments, program_name, wants
from mesh_proxy.cli.options import Options
from mesh_proxy.cli.sidecarset import VERSION, VERSION_ALT, idle, role_of
from mesh_proxy.cli.version import version_line
from mesh_proxy.config.errors import ConfigError

if TYPE_CHECKING:
    from mesh_proxy.supervisor.run import Loader
    from mesh_proxy.worker.interface import DataPlaneFactory


COMMANDS: Final = {
    "certs": ("mesh_proxy.tls.command", "certs"),
    "intercept": ("mesh_proxy.interception.switch_command", "intercept"),
    "localhost": ("mesh_proxy.interception.localhost", "localhost"),
    "probes": ("mesh_proxy.health.rewrite", "probes"),
    "wait": ("mesh_proxy.interception.wait", "wait"),
    "migrate": ("mesh_proxy.cli.migrate", "migrate"),
    "iptables": ("mesh_proxy.interception.command", "iptables"),
}
"""commands of their own → (module, function), imported only when they are given"""


def main(argv: Sequence[str] | None = None, *, factory: DataPlaneFactory | None = None, load: Loader | None = None) -> int:
    """Run the command line; the exit code. `factory` and `load` are for tests of the processes alone."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    prog = program_name()
    if arguments[:1] == ["demo"]:
        return int(importlib.import_module("mesh_proxy.demo").main(arguments[1:]))
    if arguments[:1] == ["inspect"]:
        return int(importlib.import_module("mesh_proxy.cli.inspect").inspect(arguments[1:], prog))
    if arguments[:1] and arguments[0] in COMMANDS:
        module, function = COMMANDS[arguments[0]]
        return int(getattr(importlib.import_module(module), function)(arguments[1:], prog))
    if wants(arguments, "--version"):
        print(f"\n{version_line(prog)}\n")
        return 0
    if wants(arguments, "-h", "--help"):
        print(help_text(prog), end="")
        return 0
    if wants(arguments, "--hot-restart-version"):
        print("disabled" if wants(arguments, "--disable-hot-restart") else PROTOCOL_VERSION)
        return 0
    if arguments[:1] == ["validate"]:
        if len(arguments) > 1 and not arguments[1].startswith("-"):
            arguments[1:1] = ["-c"]
        arguments[:1] = ["--mode", "validate"]
    try:
        options = parse_arguments(arguments, prog)
    except UsageError as error:
        print(f"{prog}: {error}\nFor the list of flags: {prog} --help", file=sys.stderr)
        return 1
    if options.mode == "validate":
        return _validate(prog, options, load)
    try:
        role = role_of(os.environ)
    except ValueError as error:
        print(f"{prog}: {VERSION}, {VERSION_ALT}: {error}", file=sys.stderr)
        return 1
    if role.idle:
        return idle(role)
    from mesh_proxy.supervisor.run import run

    return run(options, factory=factory, load=load)


def _validate(prog: str, options: Options, load: Loader | None) -> int:
    from mesh_proxy.supervisor.run import load_configuration

    name = options.config_path or "<inline>"
    try:
        load_configuration(options, load)
    except ConfigError as error:
        print(f"{prog}: error in configuration '{name}':\n{error}", file=sys.stderr)
        return 1
    print(f"configuration '{name}' OK")
    return 0
