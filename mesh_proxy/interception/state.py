"""Rules as the kernel tells them, made comparable with rules as they were given.

iptables-save writes what it was given in its own words: `--mark 1337` becomes `--mark 0x539`, `-p tcp --dport 80` becomes
`-p tcp -m tcp --dport 80`, names become numbers and the order of options is its own. `normal` brings both to one form.
"""

from __future__ import annotations

import grp
import ipaddress
import pwd
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field

from mesh_proxy.interception.rules import PREFIX, Rule

Form = tuple[str, ...]
"""options of one rule, sorted: each with its values, a `!` before it when negated"""

_MARKS = {"--mark", "--set-mark", "--set-xmark", "--tproxy-mark"}
_SAME = {"--set-xmark": "--set-mark", "--to-port": "--to-ports"}
_LEFT_OUT = {"-m", "--on-ip", "--nfmask", "--ctmask"}
"""options that only say what the others imply"""
_FLAGS = {"--save-mark", "--restore-mark", "--transparent"}
"""options without a value"""


def normal(params: Iterable[str]) -> Form:
    """One rule, in a form that does not depend on who writes it."""
    words = list(params)
    found: list[str] = []
    negated = ""
    index = 0
    while index < len(words):
        option = words[index]
        index += 1
        if option == "!":
            negated = "! "
            continue
        value = ""
        if option not in _FLAGS and index < len(words) and (not words[index].startswith("-") or words[index][1:].isdigit()):
            value = words[index]
            index += 1
        if option == "--tcp-flags" and index < len(words):  # a mask and the flags that must be set in it
            value = f"{','.join(sorted(value.split(',')))} {words[index]}"
            index += 1
        if option not in _LEFT_OUT:
            found.append(f"{negated}{_SAME.get(option, option)} {_value(option, value)}")
        negated = ""
    return tuple(sorted(found))


def _value(option: str, value: str) -> str:
    if option in _MARKS:
        mark, _, mask = value.partition("/")
        return f"{int(mark, 0):#x}/{int(mask, 0) if mask else 0xFFFFFFFF:#x}"
    if option in ("-s", "-d"):
        return str(ipaddress.ip_network(value, strict=False))
    if option == "--ctstate":
        return ",".join(sorted(value.split(",")))
    try:
        if option == "--uid-owner" and not value.isdigit():
            return str(pwd.getpwnam(value).pw_uid)
        if option == "--gid-owner" and not value.isdigit():
            return str(grp.getgrnam(value).gr_gid)
    except KeyError:
        pass
    return value


@dataclass(slots=True)
class Table:
    """One table as it is."""

    chains: dict[str, list[list[str]]] = field(default_factory=dict)
    """chain → its rules in order, each as the words after the chain's name"""

    @property
    def ours(self) -> list[str]:
        """Chains with our prefix."""
        return [name for name in self.chains if name.startswith(PREFIX)]

    def jumps(self) -> list[tuple[str, list[str]]]:
        """(built-in chain, rule) that lead to chains with our prefix."""
        return [
            (chain, words)
            for chain, rules in self.chains.items()
            if not chain.startswith(PREFIX)
            for words in rules
            if words[-2:-1] == ["-j"] and words[-1].startswith(PREFIX)
        ]


def parse(saved: str) -> dict[str, Table]:
    """What iptables-save says, by table."""
    tables: dict[str, Table] = {}
    table = Table()
    for line in saved.splitlines():
        if line.startswith("*"):
            table = tables.setdefault(line[1:].strip(), Table())
        elif line.startswith(":"):
            table.chains.setdefault(line[1:].split()[0], [])
        elif line.startswith("-A "):
            chain, *words = shlex.split(line)[1:]
            table.chains.setdefault(chain, []).append(words)
    return tables


def expected(rules: Iterable[Rule]) -> dict[str, dict[str, list[Form]]]:
    """Table → chain → rules in the order in which they will stand, where nothing of ours was before."""
    found: dict[str, dict[str, list[Form]]] = {}
    for rule in rules:
        chains = found.setdefault(rule.table, {})
        chain = chains.setdefault(rule.chain, [])
        chain.insert(rule.position - 1 if rule.position else len(chain), normal(rule.params))
        if rule.target.startswith(PREFIX):
            chains.setdefault(rule.target, [])
    return found


def differences(rules: Iterable[Rule], tables: dict[str, Table]) -> list[str]:
    """What is not as the rules say: chains of ours must hold exactly their rules in order, and built-in chains must have ours in
    order among whatever else they hold."""
    wanted = expected(rules)
    problems = []
    for name, chains in wanted.items():
        table = tables.get(name, Table())
        for chain, forms in chains.items():
            there = [normal(words) for words in table.chains.get(chain, [])]
            if chain.startswith(PREFIX):
                if chain not in table.chains:
                    problems.append(f"{name}: chain {chain} is missing")
                elif there != forms:
                    problems.append(f"{name}: chain {chain} holds other rules")
            elif [form for form in there if form in forms] != forms:
                problems.append(f"{name}: chain {chain} does not hold its {len(forms)} rules, once and in order")
    for name, table in tables.items():
        for chain in table.ours:
            if chain not in wanted.get(name, {}):
                problems.append(f"{name}: chain {chain} is left from other rules")
    return problems
