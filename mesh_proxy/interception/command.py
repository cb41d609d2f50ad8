"""`mesh-proxy iptables apply|clean|show`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mesh_proxy.interception.apply import Interception
from mesh_proxy.interception.backend import InterceptionError
from mesh_proxy.interception.options import add_flags, backend_of, settings_of
from mesh_proxy.interception.rules import plan, restore_text
from mesh_proxy.interception.settings import SettingsError

DIFFERENT = 3
"""exit code of `show --check` when the rules are not there as the flags say"""


def iptables(arguments: Sequence[str], prog: str) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        prog=f"{prog} iptables",
        allow_abbrev=False,
        description="Rules that bring an application's connections to the proxy. The flags are those of istio-iptables. Needs "
        "CAP_NET_ADMIN and CAP_NET_RAW, and works in the network namespace that it runs in.",
    )
    parser.add_argument("action", choices=("apply", "clean", "show"), help="write the rules, take them away, or print them")
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="apply: print the rules for iptables-restore, and write none"
    )
    parser.add_argument("--check", action="store_true", help=f"show: exit with {DIFFERENT} unless the rules are as the flags say")
    add_flags(parser)
    given = parser.parse_args(arguments)
    try:
        settings = settings_of(given)
        if given.dry_run:
            if given.action == "apply":
                for version in (4, 6):
                    text = restore_text(plan(settings, version))
                    print(f"# for ip{'6' if version == 6 else ''}tables-restore --noflush\n{text}" if text else "", end="")
            return 0
        return _act(Interception(settings, backend_of(given)), given)
    except SettingsError as error:
        print(f"{prog} iptables: {error}", file=sys.stderr)
        return 1
    except InterceptionError as error:
        print(f"{prog} iptables {given.action}: {error}", file=sys.stderr)
        return 2


def _act(interception: Interception, given: argparse.Namespace) -> int:
    if given.action == "apply":
        print("rules written and verified" if interception.apply() else "the rules are there already")
    elif given.action == "clean":
        print("rules removed" if interception.clean() else "there are no rules")
    elif given.check:
        problems = interception.check()
        print("\n".join(problems) if problems else "the rules are as they should be")
        return DIFFERENT if problems else 0
    else:
        print(interception.show(), end="")
    return 0
