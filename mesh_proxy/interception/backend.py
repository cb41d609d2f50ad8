"""The programs that write rules: iptables with the legacy or the nft back-end, for IPv4 and IPv6, and `ip` for routes."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import Final

TIMEOUT_S: Final = 30.0
LOCK_WAIT_S: Final = 10
"""how long iptables waits for another program that holds its lock"""
KINDS: Final = ("nft", "legacy")


class InterceptionError(RuntimeError):
    """The machine does not do what it was asked; the message says what it answered."""


def run(command: list[str], text: str = "") -> str:
    """The output of a program. Raises InterceptionError."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise InterceptionError(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise InterceptionError(f"{' '.join(command)}: no answer within {TIMEOUT_S:g} s") from None
    if done.returncode:
        raise InterceptionError(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Backend:
    """One family of iptables programs, for one IP version."""

    kind: str
    """`nft` or `legacy`; empty for a machine that has only one, under the plain names"""
    version: int

    @property
    def _name(self) -> str:
        return ("iptables" if self.version == 4 else "ip6tables") + (f"-{self.kind}" if self.kind else "")

    def save(self) -> str:
        """The rules that there are."""
        return run([f"{self._name}-save"])

    def restore(self, text: str) -> None:
        """Change rules as the text says; each table at once or not at all. Nothing else is touched."""
        wait = ["--wait", str(LOCK_WAIT_S)] if self.kind != "nft" else []
        run([f"{self._name}-restore", "--noflush", *wait], text)


def detect(wanted: str, version: int) -> Backend:
    """The back-end to use: the one asked for, else the one that holds rules already, else nft. Rules in both would both count,
    and nobody would find them."""
    there = [kind for kind in KINDS if shutil.which(Backend(kind, version)._name + "-restore")]
    if wanted:
        if wanted not in there:
            raise InterceptionError(f"{Backend(wanted, version)._name}-restore is not installed")
        return Backend(wanted, version)
    for kind in reversed(KINDS):  # old rules first, as Istio does
        if kind in there and _holds_rules(Backend(kind, version)):
            return Backend(kind, version)
    for kind in KINDS:
        if kind in there and _works(Backend(kind, version)):
            return Backend(kind, version)
    plain = Backend("", version)
    if not there and shutil.which(plain._name + "-restore"):
        return plain
    raise InterceptionError(f"no {plain._name} works here")


def _holds_rules(backend: Backend) -> bool:
    try:
        return any(line.startswith("-A ") for line in backend.save().splitlines())
    except InterceptionError:
        return False


def _works(backend: Backend) -> bool:
    try:
        backend.restore("*nat\nCOMMIT\n")
    except InterceptionError:
        return False
    return True
