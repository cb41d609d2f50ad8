"""What must differ between two proxies is normalised, what may differ is listed; everything else is compared exactly.

Both tables are data, and each row says why it is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

Flat = dict[str, str]
"""An observation as `path -> value`, for example `response.headers.server -> envoy`."""

NORMALISE: tuple[tuple[str, str, str, str], ...] = (
    # (path pattern, regular expression, replacement, why)
    ("*.headers.date", r"^\w{3}, \d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2} GMT$", "<date>", "the clock of the answer"),
    ("*", r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<uuid>", "a request id made by the proxy"),
    ("*.headers.x-envoy-upstream-service-time", r"^\d+$", "<ms>", "measured by the proxy's clock"),
    ("upstream[[]*.headers.x-envoy-expected-rq-timeout-ms", r"^\d+$", "<left>", "what is left when a retry starts"),
    ("log*.ms-*", r"^\d+$", "<ms>", "a duration; whether there is one is compared"),
    ("log*.at-*", r"\d", "9", "a time; its form is compared"),
    ("note.*last_updated", r"\d", "9", "a time; its form is compared"),
    ("log*.id-*", r"^\d+$", "<id>", "a number that the proxy counts up"),
)

ACCEPTED: tuple[tuple[str, str, str], ...] = (
    # (case pattern, path pattern, why the difference is right)
    ("*", "log*.down-wire-*", "Envoy leaves out parts of the request line and of separators; ours is what the socket carried"),
    ("*", "log*.down-header-*", "Envoy leaves out the start line and separators; ours is the head as it was on the wire"),
    (
        "*",
        "log*.response-headers-bytes",
        "on a request that was never parsed Envoy counts date and server, which are ours to add later",
    ),
    ("connect_failure_next_endpoint", "upstream.headers.x-envoy-expected-rq-timeout-ms", "what is left when a retry starts"),
    ("hop_by_hop_response", "response.headers.x-hop", "RFC 9110, 7.6.1: a field that Connection nominates ends at this hop"),
    ("tcp_*", "log.flags", "the same two flags, in one order for HTTP and TCP"),
    ("head_*", "response.headers.transfer-encoding", "RFC 9112, 6.1: a HEAD answer need not announce a coding that no body uses"),
    ("bad_version", "*", "a version that we do not speak is 505 (RFC 9110, 15.6.6); 426 would ask for an upgrade"),
    ("unknown_method", "*", "RFC 9110, 9.1: methods are extensible, and a proxy passes them on"),
    ("early_hints", "response.1xx*", "RFC 9110, 15.2: a proxy forwards 1xx answers; Envoy drops all but 100"),
    ("processing", "response.1xx*", "RFC 9110, 15.2: a proxy forwards 1xx answers; Envoy drops all but 100"),
    ("expect_continue_refused", "upstream.outcome", "a request given up: FIN or RST, as the moment has it, says the same"),
    ("early_response", "end", "we end with FIN after reading on for a while, so that the answer cannot be lost to a reset"),
    (
        "stats_downclose",
        "note.http.downclose.downstream_cx_destroy_*",
        "we let the caller close first (RFC 9112, 9.6), as it was told",
    ),
    ("stats_cut", "note.http.cut.*", "a response cut short: we reset the caller at once instead of after the delayed close"),
    ("websocket*", "upstream.headers.connection", "we write `upgrade` ourselves instead of copying the caller's spelling"),
    ("websocket*", "*.headers.upgrade", "protocol names are case-insensitive (RFC 9110, 7.8) and compared in lower case"),
    (
        "websocket*",
        "log.details",
        "half-close: the tunnel ends when both directions ended; Envoy cuts it at the first FIN and says DC or UC",
    ),
    ("websocket*", "log.flags", "half-close, see log.details"),
    ("connect_*", "log.details", "half-close, see websocket"),
    ("connect_*", "log.flags", "half-close, see websocket"),
    ("connect_terminated", "note.rest", "half-close: what the endpoint still says after the caller's FIN is delivered"),
    ("connect_terminated", "log.tx", "half-close: what the endpoint still says after the caller's FIN is delivered"),
    ("stats_upgrade", "note.*", "half-close: the tunnel ends in order, so nothing is counted as cut"),
    ("websocket_ignored_by_upstream", "*", "RFC 9110, 7.8: a server may ignore an upgrade; its ordinary answer is passed on"),
)


def normalise(flat: Flat, ports: Mapping[str, int]) -> Flat:
    """Replace ports by their names and apply `NORMALISE`. `ports` holds the configured ones and those seen in this case."""
    names = {str(port): name for name, port in ports.items()}
    # A word of its own: the same five digits also occur within bodies written in hexadecimal.
    port_pattern = re.compile(r"(?<![0-9A-Za-z])(?:" + "|".join(names) + r")(?![0-9A-Za-z])") if names else None
    found: Flat = {}
    for path, value in flat.items():
        if port_pattern is not None:
            path, value = (port_pattern.sub(lambda m: f"<{names[m[0]]}>", text) for text in (path, value))
        for where, pattern, replacement, _ in NORMALISE:
            if fnmatchcase(path, where):
                value = re.sub(pattern, replacement, value)
        found[path] = value
    return found


def accepted(case: str, path: str, own: Mapping[str, str]) -> bool:
    """Whether a difference there is right, by the case itself or by `ACCEPTED`."""
    patterns = [where for name, where, _ in ACCEPTED if fnmatchcase(case, name)] + list(own)
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def differences(case: str, envoy: Flat, ours: Flat, accept: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(path, Envoy's value, our value) for each path that differs and is not accepted; a missing value is `<absent>`."""
    envoy, ours = _fold(envoy, ours), _fold(ours, envoy)
    found = []
    for path in sorted(envoy.keys() | ours.keys(), key=_rank):
        left, right = envoy.get(path, "<absent>"), ours.get(path, "<absent>")
        if left != right and not accepted(case, path, accept):
            found.append((path, left, right))
    return found


def _fold(one: Flat, other: Flat) -> Flat:
    """`one`, with each upstream request and log line that the other side lacks altogether folded into one entry."""
    lacking = {room for path in one if (room := path.partition(".")[0]).startswith(("upstream", "log"))}
    lacking -= {path.partition(".")[0] for path in other}
    folded = {path: value for path, value in one.items() if path.partition(".")[0] not in lacking}
    for room in lacking:
        folded[room] = ", ".join(
            f"{p.partition('.')[2]}={v}" for p, v in one.items() if p.startswith(f"{room}.") and "headers" not in p
        )
    return folded


def _rank(path: str) -> tuple[int, str]:
    """Status and errors first, then the answer, the upstream, the log."""
    order = ("response.status", "response.error", "response", "end", "upstream", "tcp", "note", "log")
    return next((i for i, start in enumerate(order) if path.startswith(start)), len(order)), path


def report(case: str, found: list[tuple[str, str, str]], left: str = "envoy", right: str = "ours") -> str:
    width = max((len(path) for path, _, _ in found), default=0)
    lines = [f"{case}: {len(found)} difference(s)"]
    for path, envoy, ours in found:
        lines.append(f"  {path:<{width}}  {left}: {_short(envoy)}")
        lines.append(f"  {'':<{width}}  {right:>{len(left)}}: {_short(ours)}")
    return "\n".join(lines)


def _short(value: str) -> str:
    return value if len(value) <= 300 else f"{value[:300]}… ({len(value)} characters)"
