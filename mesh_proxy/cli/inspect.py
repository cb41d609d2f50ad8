"""`mesh-proxy inspect`: do all these sidecars have the same configuration, and is it the one that they should have?

Each sidecar's admin interface is asked for `/config_digest`: first for the totals alone, and for its single resources only
where the total is not the expected one. Without `--expect` the total that most of them have is expected.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from mesh_proxy.cli.fetch import FetchError, fetch_json
from mesh_proxy.cli.fleet import Finding, Sidecar, compare, digests_of, table, total_of

AT_ONCE: Final = 64
"""sidecars that are asked at the same time"""
AGREE: Final = 0
DISAGREE: Final = 1
USAGE: Final = 2


def inspect(arguments: Sequence[str], prog: str) -> int:
    """The exit code: 0 only when every sidecar that was asked answered, and all agree."""
    options = _parser(prog).parse_args(list(arguments))
    try:
        addresses = _addresses(options)
        expected = _expected(options.expect) if options.expect else None
    except (OSError, ValueError) as error:
        print(f"{prog} inspect: {error}", file=sys.stderr)
        return USAGE
    known = len(addresses)
    if options.sample and options.sample < known:
        addresses = random.Random(options.seed).sample(addresses, options.sample)
    findings, total = asyncio.run(_inspect(addresses, expected, options.timeout))
    good = all(finding.agrees for finding in findings)
    if options.json:
        report = {
            "agree": good,
            "expected_total": total,
            "known": known,
            "asked": len(findings),
            "sidecars": [finding.as_json() for finding in findings],
        }
        print(json.dumps(report, indent=1))
    else:
        print(table(findings, total, known=known, given=expected is not None), end="")
    return AGREE if good else DISAGREE


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{prog} inspect",
        description="Compare the configurations of sidecars with each other, and with an expected one.",
    )
    parser.add_argument("address", nargs="*", help="admin addresses: HOST:PORT, or the path of a unix socket")
    parser.add_argument("--from", dest="source", metavar="FILE", help="more addresses, one a line; - is the standard input")
    parser.add_argument("--expect", metavar="FILE", help="a saved answer of /config_digest that all must equal")
    parser.add_argument("--sample", type=_positive, metavar="N", help="ask only N of them, drawn at random")
    parser.add_argument("--seed", type=int, help="draw the same sample again")
    parser.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS", help="for the whole answer of one sidecar (5)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _addresses(options: argparse.Namespace) -> list[str]:
    found = list(options.address)
    if options.source:
        text = sys.stdin.read() if options.source == "-" else Path(options.source).read_text()
        found += [line.split("#")[0].strip() for line in text.splitlines()]
    addresses = list(dict.fromkeys(address for address in found if address))
    if not addresses:
        raise ValueError("no address is given")
    return addresses


def _expected(name: str) -> Mapping[str, Any]:
    """An answer of `/config_digest`, or at least its `total` or its `resources`."""
    try:
        value = json.loads(Path(name).read_text())
        if isinstance(value, list):
            value = {"resources": value}
        if not isinstance(value, dict) or not ("total" in value or "resources" in value):
            raise ValueError("holds neither total nor resources")
        if "resources" in value:
            value = {**value, "total": total_of(digests_of(value))}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{name} is not an answer of /config_digest: {error}") from None
    return value


async def _inspect(addresses: Iterable[str], expected: Mapping[str, Any] | None, timeout_s: float) -> tuple[list[Finding], str]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(address: str, path: str) -> Any:
        async with gate:
            return await fetch_json(address, path, timeout_s)

    async def ask_sidecar(address: str) -> Sidecar:
        try:
            return Sidecar(address, await ask(address, "/config_digest?summary"))
        except FetchError as error:
            return Sidecar(address, None, str(error))

    sidecars = await asyncio.gather(*(ask_sidecar(address) for address in addresses))
    totals = Counter(one.total for one in sidecars if one.total)
    total = str(expected["total"]) if expected is not None else totals.most_common(1)[0][0] if totals else ""

    async def look_closer(sidecar: Sidecar) -> None:
        try:
            sidecar.details = await ask(sidecar.address, "/config_digest")
        except FetchError as error:
            sidecar.why = str(error)

    other = [one for one in sidecars if one.total and one.total != total]
    reference = next((one for one in sidecars if one.total == total), None)
    closer = [*other, *([reference] if reference is not None and other and expected is None else [])]
    await asyncio.gather(*(look_closer(one) for one in closer))
    wanted = expected if expected is not None else reference.details if reference is not None else None
    return [compare(one, total, wanted) for one in sidecars], total
