"""Writing rules and taking them away. Each table changes in one step, from what is there to what is wanted."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from typing import Final

from mesh_proxy.interception.backend import Backend, InterceptionError, detect, run
from mesh_proxy.interception.rules import PREFIX, Rule, plan, tables
from mesh_proxy.interception.settings import Settings
from mesh_proxy.interception.state import Table, differences, normal, parse

_log = logging.getLogger("interception")

SOURCE6: Final = "::6/128"
"""from where the proxy connects to the application over IPv6; IPv4's 127.0.0.6 is there by itself"""
VERSIONS: Final = (4, 6)


class Interception:
    """Rules for one namespace."""

    def __init__(self, settings: Settings, backend: str = "") -> None:
        self.settings = settings
        self._wanted = backend

    def apply(self) -> bool:
        """Make the rules those of the settings; False when they were so before. Raises InterceptionError, also when the kernel
        does not tell back what was written."""
        if self.settings.ipv6:
            self._add_source6()
        self._add_routes()
        changed = False
        for version in VERSIONS:
            if version == 4 or self.settings.ipv6:
                changed = self._apply(detect(self._wanted, version)) or changed
        return changed

    def _apply(self, backend: Backend) -> bool:
        rules = plan(self.settings, backend.version)
        there = parse(backend.save())
        if not differences(rules, there):
            return False
        backend.restore(_change(there, rules, self._own(backend.version)))
        problems = differences(rules, parse(backend.save()))
        if problems:
            raise InterceptionError(f"IPv{backend.version}: the rules are not as written: {'; '.join(problems)}")
        return True

    def release(self) -> bool:
        """Close the way to the chains of ours, and leave them there: new connections are not intercepted any more, and those that
        are open go on, as the kernel tracks connections only while a rule needs it. False when nothing led there."""
        changed = False
        for version in VERSIONS:
            for backend in self._backends(version):
                text = _change(parse(backend.save()), (), self._own(version), keep=True)
                if text:
                    backend.restore(text)
                    changed = True
        return changed

    def clean(self) -> bool:
        """Take away every chain of ours, every jump to one, and the rules of these settings in other chains; False when there was
        nothing. Both back-ends and both IP versions are looked at."""
        changed = False
        for version in VERSIONS:
            for backend in self._backends(version):
                there = parse(backend.save())
                text = _change(there, (), self._own(version))
                if text:
                    backend.restore(text)
                    changed = True
                left = [f"{name}: {chain}" for name, table in parse(backend.save()).items() for chain in table.ours]
                if left:
                    raise InterceptionError(f"IPv{version}: chains are left: {', '.join(left)}")
        return self._remove_routes() or changed

    def check(self) -> list[str]:
        """What is not as the settings say."""
        problems = []
        for version in VERSIONS:
            if version == 4 or self.settings.ipv6:
                backend = detect(self._wanted, version)
                problems += [f"IPv{version}: {one}" for one in differences(plan(self.settings, version), parse(backend.save()))]
        return problems

    def show(self) -> str:
        """Our chains and the rules that lead there, as iptables-save prints them."""
        lines = []
        for version in VERSIONS:
            for backend in self._backends(version):
                found = _ours(backend.save())
                if found:
                    lines += [f"# IPv{version}, {backend.kind or 'iptables'}", *found]
        return "".join(f"{line}\n" for line in lines)

    def _backends(self, version: int) -> list[Backend]:
        """All that there are, or the one asked for."""
        if self._wanted:
            return [detect(self._wanted, version)]
        found = []
        for kind in ("nft", "legacy", ""):
            backend = Backend(kind, version)
            try:
                backend.save()
            except InterceptionError:
                continue
            found.append(backend)
            if kind == "legacy":
                break  # the plain name is one of the two
        return found

    def _own(self, version: int) -> tuple[Rule, ...]:
        """Rules that may be ours in chains that are not, whichever mode they were made for."""
        both = [
            dataclasses.replace(self.settings, inbound_interception_mode=mode, ipv6=True, spare_open_connections=True)
            for mode in ("REDIRECT", "TPROXY")
        ]
        found = [rule for settings in both for rule in plan(settings, version)]
        return tuple(rule for rule in found if not rule.chain.startswith(PREFIX))

    # Routes

    def _add_source6(self) -> None:
        if "::6/128" not in run(["ip", "-6", "addr", "show", "dev", "lo"]):
            # Without nodad it could not be bound to for a moment, and the first intercepted connections would fail.
            run(["ip", "-6", "addr", "add", SOURCE6, "dev", "lo", "nodad"])

    def _route(self, version: int) -> tuple[list[str], list[str]]:
        ip = ["ip", f"-{version}"]
        table = str(self.settings.inbound_tproxy_route_table)
        everything = "0.0.0.0/0" if version == 4 else "::/0"
        rule = [*ip, "rule", "{}", "fwmark", str(self.settings.inbound_tproxy_mark), "lookup", table]
        return rule, [*ip, "route", "{}", "local", everything, "dev", "lo", "table", table]

    def _add_routes(self) -> None:
        """Marked packets are for this machine, whatever address they are for."""
        if not self.settings.tproxy or not self.settings.inbound_ports_include:
            return
        for version in VERSIONS:
            if version == 4 or self.settings.ipv6:
                rule, route = self._route(version)
                if not self._has_rule(version):
                    run([word.format("add") for word in rule])
                run([word.format("replace") for word in route])

    def _has_rule(self, version: int) -> bool:
        wanted = f"fwmark {self.settings.inbound_tproxy_mark:#x} lookup {self.settings.inbound_tproxy_route_table}"
        return any(wanted in line for line in run(["ip", f"-{version}", "rule"]).splitlines())

    def _remove_routes(self) -> bool:
        removed = False
        for version in VERSIONS:
            rule, route = self._route(version)
            with contextlib.suppress(InterceptionError):  # no ip program, no such IP version: then there are none either
                while self._has_rule(version):
                    run([word.format("del") for word in rule])
                    removed = True
            if removed:
                with contextlib.suppress(InterceptionError):
                    run([word.format("del") for word in route])
        with contextlib.suppress(InterceptionError):
            run(["ip", "-6", "addr", "del", SOURCE6, "dev", "lo"])
            removed = True
        return removed


def _change(there: dict[str, Table], rules: tuple[Rule, ...], own: tuple[Rule, ...], *, keep: bool = False) -> str:
    """The input of iptables-restore that leads from what is there to the rules. `keep`: chains of ours stay as they are."""
    lines: list[str] = []
    wanted = {name: (chains, mine) for name, chains, mine in tables(rules)}
    for name in sorted({*there, *wanted}):
        table = there.get(name, Table())
        chains, mine = wanted.get(name, ([], []))
        foreign = {(rule.chain, normal(rule.params)) for rule in own if rule.table == name}
        gone = [
            (chain, words)
            for chain, found in table.chains.items()
            if not chain.startswith(PREFIX)
            for words in found
            if (words[-2:-1] == ["-j"] and words[-1].startswith(PREFIX)) or (chain, normal(words)) in foreign
        ]
        old = [chain for chain in table.ours if chain not in chains and not keep]
        if not (chains or mine or gone or old):
            continue
        lines.append(f"*{name}")
        lines += [f":{chain} - [0:0]" for chain in (*chains, *old)]  # made, or emptied
        lines += [f"-D {chain} {' '.join(words)}" for chain, words in gone]
        lines += [rule.line() for rule in mine]
        lines += [f"-X {chain}" for chain in old]
        lines.append("COMMIT")
    return "".join(f"{line}\n" for line in lines)


def _ours(saved: str) -> list[str]:
    lines: list[str] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line
        elif line.startswith((":" + PREFIX, "-A ")) and PREFIX in line:
            if table not in lines:
                lines.append(table)
            lines.append(line)
    return lines
