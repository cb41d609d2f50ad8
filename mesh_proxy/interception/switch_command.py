"""`mesh-proxy intercept on|off|status`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Final

from mesh_proxy.interception.admin_client import AdminError, address, ask
from mesh_proxy.interception.apply import Interception
from mesh_proxy.interception.backend import InterceptionError
from mesh_proxy.interception.options import add_flags, backend_of, settings_of
from mesh_proxy.interception.settings import SettingsError
from mesh_proxy.interception.switch import Plan, Switch, SwitchError

OFFLINE_VARIABLE: Final = "MESH_PROXY_OFFLINE_HOOK"
ONLINE_VARIABLE: Final = "MESH_PROXY_ONLINE_HOOK"
STILL_THERE: Final = 3
"""exit code of `off` while connections still pass through the proxy, and of `status` when it is off"""


def intercept(arguments: Sequence[str], prog: str) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        prog=f"{prog} intercept",
        allow_abbrev=False,
        description="Open or close interception under traffic. Takes the flags of `iptables`, which say what is intercepted.",
    )
    parser.add_argument("state", choices=("on", "off", "status"))
    parser.add_argument("--offline-hook", action="append", metavar="HOOK", help=f"command or http:// URL [${OFFLINE_VARIABLE}]")
    parser.add_argument("--online-hook", action="append", metavar="HOOK", help=f"likewise, after the rules [${ONLINE_VARIABLE}]")
    parser.add_argument("--hook-timeout", type=float, default=30.0, metavar="S", help="for each hook [30]")
    parser.add_argument("--timeout", type=float, default=15.0, metavar="S", help="off: how long callers have to leave [15]")
    parser.add_argument("--cut", action="store_true", help="off: then end the connections that are left")
    parser.add_argument("--admin", default="", metavar="HOST:PORT", help="admin interface of the proxy [127.0.0.1:15000]")
    parser.add_argument("--admin-address-path", default="", metavar="FILE", help="file with that address")
    parser.add_argument("--no-proxy", action="store_true", help="switch the rules alone, ask the proxy nothing")
    add_flags(parser)
    given = parser.parse_args(arguments)
    try:
        settings = dataclasses.replace(settings_of(given), spare_open_connections=True)
        interception = Interception(settings, backend_of(given))
        admin = "" if given.no_proxy else address(given.admin, given.admin_address_path)
        if given.state == "status":
            return _status(interception, admin)
        plan = Plan(
            admin=admin,
            offline=_hooks(given.offline_hook, OFFLINE_VARIABLE),
            online=_hooks(given.online_hook, ONLINE_VARIABLE),
            hook_timeout_s=given.hook_timeout,
            timeout_s=given.timeout,
            cut=given.cut,
        )
        switch = Switch(interception, plan, lambda line: print(line, flush=True))
        if given.state == "on":
            switch.on()
            return 0
        return STILL_THERE if switch.off() else 0
    except SettingsError as error:
        print(f"{prog} intercept: {error}", file=sys.stderr)
        return 1
    except (SwitchError, InterceptionError, AdminError) as error:
        print(f"{prog} intercept {given.state}: {error}", file=sys.stderr)
        return 2


def _hooks(given: list[str] | None, variable: str) -> tuple[str, ...]:
    if given is not None:
        return tuple(hook for hook in given if hook)
    hook = os.environ.get(variable, "")
    return (hook,) if hook else ()


def _status(interception: Interception, admin: str) -> int:
    problems = interception.check()
    print("on" if not problems else "\n".join(["off", *problems]))
    if admin:
        status, body = ask(admin, "GET", "/intercepted")
        print(f"through the proxy: {body.decode(errors='replace').strip() if status == 200 else f'unknown ({status})'}")
    return STILL_THERE if problems else 0
