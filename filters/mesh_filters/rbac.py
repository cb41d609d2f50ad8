"""`envoy.filters.http.rbac`: which requests may pass, by who sends them and what they are for (Envoy: `http/rbac`).

What the rules say of a request is in its metadata, under the filter's well-known name, so that later filters and logs can tell:
`shadow_engine_result`, `shadow_effective_policy_id`, `enforced_engine_result`, `enforced_effective_policy_id`, each behind the
configured prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from mesh_codecs.events import RequestHeaders
from mesh_filters.definition import FilterContext, FilterFactory
from mesh_filters.filter import Filter, FilterStatus, Stream
from mesh_filters.rbac_rules import Engine, RulesConfig
from mesh_filters.route_rules import RouteRules

NAME: Final = "envoy.filters.http.rbac"
"""where the metadata stands, whatever the filter is called in the configuration"""
COMMON: Final = "envoy.common"
LOG_HINT: Final = "access_log_hint"
BODY: Final = b"RBAC: access denied"
UNREADABLE: Final = "unreadable"
"""stands for the policy when a Dubbo call cannot be read"""
POLICIES: Final = 10_000
"""policies with statistics of their own; those beyond have none"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RbacConfig:
    """`RBAC` of the filter, and of a route."""

    rules: RulesConfig | None = None
    """None: everybody may pass"""
    shadow_rules: RulesConfig | None = None
    """what they would say is counted and told, nothing more"""
    rules_prefix: str = ""
    shadow_prefix: str = ""
    per_rule_stats: bool = False

    @property
    def idle(self) -> bool:
        """No rules but those of routes."""
        return self.rules is None and self.shadow_rules is None

    def factory(self, context: FilterContext) -> FilterFactory:
        """One filter serves all streams."""
        return RbacFilter(self, context)


class Rules:
    """Both engines of one configuration, and their statistics."""

    __slots__ = ("_context", "_named", "_policies", "_prefix", "config", "enforced", "shadow", "stats", "told")

    def __init__(self, config: RbacConfig, context: FilterContext, prefix: str, named: RbacConfig | None = None) -> None:
        """`named` has the prefixes of statistics. A route's own are in the metadata only, as with Envoy."""
        self.config = config
        self._named = named = named or config
        self._context = context
        self._prefix = prefix
        self._policies: dict[str, Any] = {}
        self.enforced = Engine(config.rules, context) if config.rules is not None else None
        self.shadow = Engine(config.shadow_rules, context) if config.shadow_rules is not None else None
        own, shadow = named.rules_prefix, named.shadow_prefix
        self.stats = (
            context.stats(f"{prefix}{_dotted(own)}", counters=("allowed", "denied")),
            context.stats(f"{prefix}{_dotted(shadow)}", counters=("shadow_allowed", "shadow_denied")),
        )
        own, shadow = config.rules_prefix or own, config.shadow_prefix or shadow
        self.told = (
            (f"{own}enforced_engine_result", f"{own}enforced_effective_policy_id"),
            (f"{shadow}shadow_engine_result", f"{shadow}shadow_effective_policy_id"),
        )

    def check(self, subject: Any, *, shadow: bool, found: dict[str, Any]) -> tuple[bool, str]:
        """Ask the rules that are enforced, or those in the shadow: whether the subject may pass, and by which policy."""
        engine = self.shadow if shadow else self.enforced
        if engine is None:
            return True, ""
        allowed, policy = engine.decide(subject)
        if engine.action == "LOG":
            subject.dynamic_metadata = metadata = subject.dynamic_metadata or {}
            metadata[COMMON] = {**metadata.get(COMMON, {}), LOG_HINT: bool(policy)}
        stats = self.stats[shadow]
        name = ("shadow_" if shadow else "") + ("allowed" if allowed else "denied")
        setattr(stats, name, getattr(stats, name) + 1)
        if policy and self.config.per_rule_stats:
            self._count(policy, name, shadow)
        result, policy_key = self.told[shadow]
        found[result] = "allowed" if allowed else "denied"
        if policy:
            found[policy_key] = policy
        return allowed, policy

    def _count(self, policy: str, name: str, shadow: bool) -> None:
        prefix = self._named.shadow_prefix if shadow else self._named.rules_prefix
        key = f"{self._prefix}{_dotted(prefix)}policy.{policy}."
        stats = self._policies.get(key)
        if stats is None:
            if len(self._policies) >= POLICIES:
                return
            counters = ("allowed", "denied", "shadow_allowed", "shadow_denied")
            stats = self._policies[key] = self._context.stats(key, counters=counters)
        setattr(stats, name, getattr(stats, name) + 1)


def _dotted(prefix: str) -> str:
    return f"{prefix}." if prefix and not prefix.endswith(".") else prefix


def tell(stream: Any, found: dict[str, Any]) -> None:
    """Leave the results for others."""
    if found:
        metadata = stream.dynamic_metadata
        if metadata is None:
            metadata = stream.dynamic_metadata = {}
        before = metadata.get(NAME)
        metadata[NAME] = found if before is None else {**before, **found}


def details_of(policy: str) -> str:
    """`%RESPONSE_CODE_DETAILS%` of a denial; white space would break log lines."""
    return f"rbac_access_denied_matched_policy[{'_'.join(policy.split()) if policy else 'none'}]"


def unreadable(event: RequestHeaders) -> bool:
    """Whether rules may have taken a Dubbo call for harmless because nobody can read it: its service, or the attachments at
    which they looked."""
    return event.path == b"/" or getattr(event.headers, "unreadable", False)


class RbacFilter(Filter):
    """Asks the shadow rules, then those that count."""

    __slots__ = ("_rules",)

    def __init__(self, config: RbacConfig, context: FilterContext) -> None:
        prefix = f"{context.stat_prefix}rbac."
        self._rules: RouteRules[RbacConfig, Rules] = RouteRules(
            config, context.name, lambda one: Rules(one, context, prefix, config)
        )

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Decide."""
        rules = self._rules.of(stream)
        found: dict[str, Any] = {}
        rules.check(stream, shadow=True, found=found)
        allowed, policy = rules.check(stream, shadow=False, found=found)
        tell(stream, found)
        if allowed and event.http_version == b"Dubbo" and rules.enforced is not None and unreadable(event):
            rules.stats[0].allowed -= 1
            rules.stats[0].denied += 1
            allowed, policy = False, UNREADABLE
        if allowed:
            return FilterStatus.CONTINUE
        stream.send_local_reply(403, BODY, details=details_of(policy))
        return FilterStatus.STOP
