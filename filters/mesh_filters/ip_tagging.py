"""`envoy.filters.http.ip_tagging`: names of the address ranges that a caller belongs to, in a header."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Final

from mesh_codecs.events import RequestHeaders
from mesh_filters.definition import FilterContext
from mesh_filters.filter import Filter, FilterStatus, Stream
from mesh_filters.values import remote_ip

HEADER: Final = b"x-envoy-ip-tags"
REMEMBERED: Final = 4096
"""addresses whose tags are known; then the memory starts anew"""
_NOT_IN_A_NAME: Final = re.compile(r"[^0-9A-Za-z_]")
_Networks = dict[int, dict[int, list[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class IpTaggingConfig:
    """`IPTagging`."""

    request_type: str = "BOTH"
    """BOTH, INTERNAL or EXTERNAL"""
    tags: tuple[tuple[str, tuple[str, ...]], ...]
    """(tag, its ranges as `address/bits`)"""
    header: str = ""
    """instead of x-envoy-ip-tags"""
    append: bool = False
    """to what `header` has already (APPEND_IF_EXISTS_OR_ADD); else that is removed (SANITIZE)"""

    def factory(self, context: FilterContext) -> Filter:
        """One filter for all streams."""
        return IpTaggingFilter(self, context)


class Ranges:
    """Tags by address: one look-up for each length of prefix that occurs."""

    __slots__ = ("_known", "_v4", "_v6")

    def __init__(self, tags: tuple[tuple[str, tuple[str, ...]], ...]) -> None:
        self._v4: _Networks = {}
        self._v6: _Networks = {}
        self._known: dict[bytes, tuple[str, ...]] = {}
        for tag, ranges in tags:
            for text in ranges:
                network = ipaddress.ip_network(text)
                shift = network.max_prefixlen - network.prefixlen
                by_shift = (self._v4 if network.version == 4 else self._v6).setdefault(shift, {})
                found = by_shift.setdefault(int(network.network_address) >> shift, [])
                if tag not in found:
                    found.append(tag)

    def of(self, ip: bytes) -> tuple[str, ...]:
        """The tags of an address, in alphabetical order; none for what is no IP address."""
        found = self._known.get(ip)
        if found is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            found = self._known[ip] = self._find(ip)
        return found

    def _find(self, ip: bytes) -> tuple[str, ...]:
        try:
            address = ipaddress.ip_address(ip.decode("latin-1"))
        except ValueError:
            return ()
        number = int(address)
        tags: set[str] = set()
        for shift, networks in (self._v4 if address.version == 4 else self._v6).items():
            tags.update(networks.get(number >> shift, ()))
        return tuple(sorted(tags))


class IpTaggingFilter(Filter):
    """Holds nothing of a stream."""

    __slots__ = ("_append", "_header", "_hits", "_internal", "_ranges", "_stats")

    def __init__(self, config: IpTaggingConfig, context: FilterContext) -> None:
        self._ranges = Ranges(config.tags)
        self._header = config.header.lower().encode()
        self._append = config.append
        self._internal = {"BOTH": None, "INTERNAL": True, "EXTERNAL": False}[config.request_type]
        prefix = context.stat_prefix + "ip_tagging."
        self._stats: Any = context.stats(prefix, counters=("no_hit", "total"))
        self._hits = {tag: context.stats(f"{prefix}{_NOT_IN_A_NAME.sub('_', tag)}.", counters=("hit",)) for tag, _ in config.tags}

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Write the tags."""
        if self._internal is not None and stream.is_internal is not self._internal:
            return FilterStatus.CONTINUE
        tags = self._ranges.of(remote_ip(stream))
        headers = event.headers
        own = self._header
        changed = bool(tags)
        if own and not self._append and own in headers.first:
            headers.remove(own)
            changed = True
        stats = self._stats
        if tags:
            name = own or HEADER
            before = headers.get_joined(name)
            value = ",".join(tags).encode()
            headers.set(name, before + b"," + value if before else value)
            for tag in tags:
                self._hits[tag].hit += 1
        else:
            stats.no_hit += 1
        stats.total += 1
        if changed:
            stream.clear_route()
        return FilterStatus.CONTINUE
