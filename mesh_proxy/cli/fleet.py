"""What `mesh-proxy inspect` makes of the sidecars' answers: who agrees, who differs in what, and how that is shown."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

MOST_DIFFERENCES: Final = 5
"""shown for one sidecar in the table; JSON has all"""
SHORT: Final = 12
"""digits of a digest in the table"""

Key = tuple[str, str]
"""(type, name)"""


@dataclass(slots=True)
class Sidecar:
    """One that was asked."""

    address: str
    answer: Any
    """of `/config_digest`; None: it did not answer"""
    why: str = ""
    details: Any = None
    """the answer with single resources, if they were asked for"""

    @property
    def total(self) -> str:
        """Of its answer; empty without one."""
        return str(self.answer.get("total", "")) if isinstance(self.answer, dict) else ""


@dataclass(slots=True)
class Finding:
    """One line of the report."""

    address: str
    verdict: str
    """`agrees`, `differs`, `warming` or `unreachable`"""
    node: str = ""
    total: str = ""
    remarks: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """It has exactly what it should have."""
        return self.verdict == "agrees"

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "address": self.address,
            "node": self.node,
            "verdict": self.verdict,
            "total": self.total,
            "remarks": self.remarks,
            "differences": self.differences,
        }


def digests_of(answer: Mapping[str, Any]) -> dict[Key, str]:
    """The single resources of an answer."""
    return {(str(one["type"]).rpartition("/")[2], str(one["name"])): str(one["digest"]) for one in answer["resources"]}


def total_of(resources: Mapping[Key, str]) -> str:
    """The total that a sidecar with these resources has (`mesh_proxy.supervisor.digests`)."""
    lines = sorted(f"{kind} {name} {digest}\n" for (kind, name), digest in resources.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def compare(sidecar: Sidecar, total: str, wanted: Mapping[str, Any] | None) -> Finding:
    """What there is to say of one."""
    answer = sidecar.answer
    if not isinstance(answer, dict) or not sidecar.total:
        return Finding(sidecar.address, "unreachable", remarks=[sidecar.why or "this is no answer of /config_digest"])
    finding = Finding(sidecar.address, "agrees", str(answer.get("node", {}).get("id", "")), sidecar.total)
    if answer.get("state") != "LIVE":
        finding.remarks.append(f"is {answer.get('state')}")
    for one in answer.get("refused", ()):
        first = str(one["details"]).partition("\n")[0]
        finding.remarks.append(f"refused version {one['version']!r} of {one['source']}: {first}")
    warming = answer.get("warming", ())
    if warming:
        finding.remarks.append(f"waits for {', '.join(warming)}")
    if sidecar.total != total:
        finding.verdict = "differs"
        if sidecar.why:
            finding.remarks.append(sidecar.why)
        if sidecar.details is not None and wanted is not None and "resources" in wanted:
            finding.differences = _differences(digests_of(sidecar.details), digests_of(wanted))
    elif warming:
        finding.verdict = "warming"
    return finding


def _differences(has: Mapping[Key, str], wanted: Mapping[Key, str]) -> list[str]:
    found = []
    for key in sorted(has.keys() | wanted.keys()):
        name = f"{key[0].rpartition('.')[2]} {key[1]}"
        if key not in has:
            found.append(f"lacks {name}")
        elif key not in wanted:
            found.append(f"has also {name}")
        elif has[key] != wanted[key]:
            found.append(f"has another {name} ({has[key][:SHORT]} instead of {wanted[key][:SHORT]})")
    return found


def table(findings: Sequence[Finding], total: str, *, known: int, given: bool) -> str:
    """For people."""
    rows = [("ADDRESS", "NODE", "TOTAL", "VERDICT")]
    rows += [(one.address, one.node or "-", one.total[:SHORT] or "-", one.verdict) for one in findings]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = []
    for i, row in enumerate(rows):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if not i:
            continue
        finding = findings[i - 1]
        shown = [*finding.remarks, *finding.differences[:MOST_DIFFERENCES]]
        if len(finding.differences) > MOST_DIFFERENCES:
            shown.append(f"and {len(finding.differences) - MOST_DIFFERENCES} more")
        lines += [f"    {text}" for text in shown]
    agree = sum(one.agrees for one in findings)
    asked = f"{len(findings)} of {known} sidecars" if known > len(findings) else f"{len(findings)} sidecars"
    whose = "expected" if given else "most common"
    lines.append(f"{agree} of {asked} agree; the {whose} total is {total[:SHORT] or 'unknown'}")
    return "\n".join(lines) + "\n"
