"""What the system says about resolving names: `/etc/resolv.conf` (resolv.conf(5)) and `/etc/hosts` (hosts(5))."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

RESOLV_CONF = "/etc/resolv.conf"
HOSTS = "/etc/hosts"


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """The part of resolv.conf that a stub resolver follows."""

    servers: tuple[str, ...] = ("127.0.0.1",)
    """IP addresses, perhaps with a zone (`fe80::1%eth0`)"""
    search: tuple[str, ...] = ()
    """domains, without dots at the ends"""
    ndots: int = 1
    """a name with so many dots is tried as it is before the search list"""
    timeout_s: float = 5.0
    """wait for one server"""
    attempts: int = 2
    """rounds through the servers"""
    rotate: bool = False
    """begin at a random server, not always at the first"""


def parse_resolv_conf(text: str) -> ResolvConf:
    """Unknown words and bad values are passed over, as the C library does."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    numbers = {"ndots": 1, "timeout": 5, "attempts": 2}
    limits = {"ndots": 15, "timeout": 30, "attempts": 5}
    rotate = False
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if not words:
            continue
        if words[0] == "nameserver" and len(words) > 1 and len(servers) < 3:
            if _is_address(words[1].partition("%")[0]):
                servers.append(words[1])
        elif words[0] in ("search", "domain"):
            domains = words[1:] if words[0] == "search" else words[1:2]
            search = tuple(name for domain in domains if (name := domain.strip(".").lower()))
        elif words[0] == "options":
            for word in words[1:]:
                name, colon, value = word.partition(":")
                if name == "rotate":
                    rotate = True
                elif name in numbers and colon and value.isdecimal():
                    numbers[name] = min(int(value), limits[name])
    return ResolvConf(
        servers=tuple(servers) or ("127.0.0.1",),
        search=search,
        ndots=numbers["ndots"],
        timeout_s=float(max(numbers["timeout"], 1)),
        attempts=max(numbers["attempts"], 1),
        rotate=rotate,
    )


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Name -> addresses in the order of the file."""
    names: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if len(words) < 2 or not _is_address(words[0]):
            continue
        address = str(ipaddress.ip_address(words[0]))
        for word in words[1:]:
            name = word.lower().removesuffix(".")
            if address not in names.get(name, ()):
                names[name] = (*names.get(name, ()), address)
    return names


def candidates(name: str, conf: ResolvConf) -> list[str]:
    """The full names to ask for, in order."""
    if name.endswith("."):
        return [name[:-1]]
    longer = [f"{name}.{domain}" for domain in conf.search]
    return [name, *longer] if name.count(".") >= conf.ndots else [*longer, name]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class SystemFiles:
    """Both files, read again when they change."""

    __slots__ = ("_conf", "_hosts", "_hosts_path", "_resolv_path", "_stamps")

    def __init__(self, resolv_path: str = RESOLV_CONF, hosts_path: str = HOSTS) -> None:
        self._resolv_path = resolv_path
        self._hosts_path = hosts_path
        self._stamps: dict[str, object] = {}
        self._conf = ResolvConf()
        self._hosts: dict[str, tuple[str, ...]] = {}

    def conf(self) -> ResolvConf:
        """resolv.conf as it is now; its defaults when there is none."""
        if self._changed(self._resolv_path):
            self._conf = parse_resolv_conf(_read(self._resolv_path))
        return self._conf

    def hosts(self) -> dict[str, tuple[str, ...]]:
        """The hosts file as it is now."""
        if self._changed(self._hosts_path):
            self._hosts = parse_hosts(_read(self._hosts_path))
        return self._hosts

    def _changed(self, path: str) -> bool:
        try:
            status = os.stat(path)
            stamp: object = (status.st_ino, status.st_mtime_ns, status.st_size)
        except OSError:
            stamp = None
        if path in self._stamps and self._stamps[path] == stamp:
            return False
        self._stamps[path] = stamp
        return True


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
