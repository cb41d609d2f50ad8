"""The rules of the demo and what each of them must give: pure figures, no traffic."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mesh_proxy.demo.bootstrap import SHARE_OF_V2

NAME_HEADER: Final = "x-answered-by"
"""response header with the name of the service that answered"""
SIDECAR: Final = "sidecar"
"""who answered when no service did"""
SIGMAS: Final = 5.0
"""tolerance of a share, in standard deviations of a fair draw: a right split is called wrong once in 1.7 million runs"""


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One route of the configuration, the requests that try it, and the right answer."""

    name: str
    path: str
    shares: Mapping[str, float]
    """who answers -> share of the answers; they add up to 1"""
    portion: int
    """per cent of all requests of the demo"""
    headers: tuple[tuple[str, str], ...] = ()
    status: int = 200
    location: str = ""
    """path of the `location` header, for a redirect"""


FLAKY_EVERY: Final = 3
"""every so-manieth request to the flaky service meets a 503 on its first attempt"""

WEIGHTED: Final = Rule(
    f"weights {100 - SHARE_OF_V2}/{SHARE_OF_V2}",
    "/cart",
    {"v1": 1 - SHARE_OF_V2 / 100, "v2": SHARE_OF_V2 / 100},
    50,
)
RETRIED: Final = Rule("retry on 5xx", "/flaky", {"flaky": 1.0}, 15)
RULES: Final = (
    Rule("x-version: v2 -> v2", "/cart", {"v2": 1.0}, 25, headers=(("x-version", "v2"),)),
    WEIGHTED,
    RETRIED,
    Rule("redirect /old/ -> /new/", "/old/cart", {SIDECAR: 1.0}, 5, status=301, location="/new/cart"),
    Rule("direct response", "/about", {SIDECAR: 1.0}, 5),
)


DUBBO_RULES: Final = (
    Rule("dubbo.tag: v2 -> v2", "demo.Shop/cart", {"v2": 1.0}, 40, headers=(("dubbo.tag", "v2"),), status=20),
    Rule("no tag -> v1", "demo.Shop/cart", {"v1": 1.0}, 55, status=20),
    Rule("unknown service", "demo.Nowhere/cart", {SIDECAR: 1.0}, 5, status=60),
)
"""paths are `service/method`, headers attachments, statuses Dubbo's"""


GRPC_RULES: Final = (
    Rule("gRPC, x-version: v2", "/demo.Shop/Cart", {"v2": 1.0}, 40, headers=(("x-version", "v2"),), status=0),
    Rule("gRPC -> v1", "/demo.Shop/Cart", {"v1": 1.0}, 55, status=0),
    Rule("gRPC, closed service", "/demo.Closed/Cart", {SIDECAR: 1.0}, 5, status=7),
)
"""statuses are gRPC's"""


GUEST_HTTP: Final = Rule("guest: HTTP 403", "/cart", {SIDECAR: 1.0}, 100, status=403)
GUEST_DUBBO: Final = Rule("guest: Dubbo error", "demo.Shop/cart", {SIDECAR: 1.0}, 100, status=80)
GUEST_GRPC: Final = Rule("guest: PERMISSION_DENIED", "/demo.Shop/Cart", {SIDECAR: 1.0}, 100, status=7)
"""what the services' sidecar says to a workload that may not call"""


@dataclass(slots=True)
class Result:
    """What the requests of one rule met."""

    rule: Rule
    sent: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    """who answered -> right answers"""
    failures: Counter[str] = field(default_factory=Counter)
    """what went wrong -> how often"""
    latencies: list[float] = field(default_factory=list)
    """seconds of each answered request, as the caller saw it"""

    def problems(self) -> list[str]:
        """Why this is not what the rule promises; empty if it is."""
        found = [f"{self.rule.name}: {what} ({count} of {self.sent})" for what, count in sorted(self.failures.items())]
        total = self.answered.total()
        for name in sorted(self.answered.keys() | self.rule.shares.keys()):
            share = self.rule.shares.get(name, 0.0)
            count = self.answered[name]
            if abs(count - total * share) > tolerance(total, share):
                found.append(f"{self.rule.name}: {name} answered {count} of {total}, expected {share:.0%}")
        return found


def tolerance(total: int, share: float) -> float:
    """By how many answers a count may differ from its expectation."""
    if share in (0.0, 1.0):
        return 0.0
    return SIGMAS * math.sqrt(total * share * (1 - share)) + 1


def plan(requests: int, seed: int, of: Sequence[Rule] = RULES) -> list[Rule]:
    """Which rule each request tries: every rule its portion and at least one, in a shuffled order."""
    rules = [rule for rule in of for _ in range(max(1, requests * rule.portion // 100))]
    rules += [of[1]] * (requests - len(rules))
    random.Random(seed).shuffle(rules)
    return rules


def percentile(values: Sequence[float], per_cent: float) -> float:
    """The nearest-rank percentile; 0 for no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * per_cent / 100) - 1)]
