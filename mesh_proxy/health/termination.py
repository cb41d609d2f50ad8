"""How long a proxy goes on after SIGTERM, by the variables of Istio's agent (pkg/envoy/agent.go).

Without any of them SIGTERM stops accepting, and the proxy ends with its last connection or after `--drain-time-s`. In a pod
others go on sending for a moment, until they know that it ends; so with one of them the proxy goes on accepting and asks callers
to leave. It ends after TERMINATION_DRAIN_DURATION_SECONDS, or with EXIT_ON_ZERO_ACTIVE_CONNECTIONS as soon as no connection is
left, but not before MINIMUM_DRAIN_DURATION.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

DURATION: Final = "TERMINATION_DRAIN_DURATION_SECONDS"
ON_ZERO: Final = "EXIT_ON_ZERO_ACTIVE_CONNECTIONS"
MINIMUM: Final = "MINIMUM_DRAIN_DURATION"
DEFAULT_S: Final = 5.0
"""of both durations"""
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Termination:
    """What the variables say."""

    accept_s: float
    """how long new connections are accepted at least"""
    until_idle: bool
    """then wait for the last connection"""


def termination(environment: Mapping[str, str]) -> Termination | None:
    """None when there is none of the variables. Raises ValueError, naming the one that cannot be read."""
    if not any(environment.get(name) for name in (DURATION, ON_ZERO, MINIMUM)):
        return None
    if environment.get(ON_ZERO, "").lower() in ("1", "t", "true"):
        return Termination(_seconds(environment, MINIMUM), True)
    return Termination(_seconds(environment, DURATION), False)


def _seconds(environment: Mapping[str, str], name: str) -> float:
    """`5`, or a duration such as `1m30s`."""
    text = environment.get(name, "").strip()
    if not text:
        return DEFAULT_S
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    if not re.fullmatch(r"([0-9]+(\.[0-9]+)?(ms|s|m|h))+", text):
        raise ValueError(f"{name}: {text!r} is no duration such as 5s")
    return sum(float(number) * _UNITS[unit] for number, _, unit in re.findall(r"([0-9]+(\.[0-9]+)?)(ms|s|m|h)", text))
