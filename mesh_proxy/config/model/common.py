"""Pieces that several concepts share: addresses, string matchers, percentages."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressConfig:
    """Where to bind or connect: a TCP address or a unix socket (`envoy.config.core.v3.Address`)."""

    host: str = ""
    """IP literal for listeners; IP or DNS name for endpoints; empty for a unix socket"""
    port: int = 0
    path: str = ""
    """path of a unix socket (`@name` is abstract); empty for TCP"""
    mode: int = 0
    """permission bits of a bound unix socket, 0 = leave to the umask"""
    ipv4_compat: bool = False
    """an IPv6 wildcard that also takes IPv4"""

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketOptionConfig:
    """One option of a socket (`envoy.config.core.v3.SocketOption`), as setsockopt(2) takes it."""

    level: int
    name: int
    value: int | bytes = 0
    state: str = "STATE_PREBIND"
    """when it is set: `STATE_PREBIND`, `STATE_BOUND` or `STATE_LISTENING`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BindConfig:
    """From where upstream connections come (`envoy.config.core.v3.BindConfig`)."""

    addresses: tuple[AddressConfig, ...] = ()
    """the first of the endpoint's family is taken; empty = as the kernel likes"""
    freebind: bool = False
    """an address that this machine does not have (yet)"""
    socket_options: tuple[SocketOptionConfig, ...] = ()


class StringMatchKind(enum.Enum):
    """`envoy.type.matcher.v3.StringMatcher.match_pattern`."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    CONTAINS = "contains"
    REGEX = "safe_regex"


@dataclass(frozen=True, slots=True, kw_only=True)
class StringMatcherConfig:
    """One StringMatcher. A regex must match the whole string (RE2)."""

    kind: StringMatchKind
    value: str
    ignore_case: bool = False
    """not for a regex"""


class HeaderMatchKind(enum.Enum):
    """`envoy.config.route.v3.HeaderMatcher.header_match_specifier`."""

    STRING = "string"
    RANGE = "range"
    PRESENT = "present"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMatcherConfig:
    """One HeaderMatcher."""

    name: str
    """lower-case; may be a pseudo header (`:method`, `:path`, `:authority`, `:scheme`)"""
    kind: HeaderMatchKind
    string: StringMatcherConfig | None = None
    """for STRING; the old exact/prefix/suffix/contains/regex fields are translated into it"""
    range_start: int = 0
    """for RANGE, inclusive"""
    range_end: int = 0
    """for RANGE, exclusive"""
    present: bool = True
    """for PRESENT"""
    invert: bool = False
    treat_missing_as_empty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryParameterMatcherConfig:
    """`envoy.config.route.v3.QueryParameterMatcher`."""

    name: str
    string: StringMatcherConfig | None = None
    """None: the parameter must be present (`present_match`)"""
    present: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FractionConfig:
    """`RuntimeFractionalPercent`: a share of requests, perhaps overridden by a runtime key."""

    numerator: int
    denominator: int = 100
    """100, 10_000 or 1_000_000"""
    runtime_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderValueOptionConfig:
    """A header to add (`HeaderValueOption`). `value` may hold `%…%` operators."""

    name: str
    """lower-case"""
    value: str
    action: str = "APPEND_IF_EXISTS_OR_ADD"
    """`APPEND_IF_EXISTS_OR_ADD`, `ADD_IF_ABSENT`, `OVERWRITE_IF_EXISTS_OR_ADD` or `OVERWRITE_IF_EXISTS`"""
    keep_empty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMutationConfig:
    """The request or response headers that a route, virtual host or route table adds and removes."""

    add: tuple[HeaderValueOptionConfig, ...] = ()
    remove: tuple[str, ...] = ()
    """lower-case names"""

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSourceConfig:
    """Bytes read when the configuration was loaded (`DataSource`)."""

    data: bytes
    filename: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessLogFilterConfig:
    """A condition on a log entry (`envoy.config.accesslog.v3.AccessLogFilter`) as a small tree."""

    kind: str
    """`status_code`, `duration`, `not_health_check`, `traceable`, `runtime`, `and`, `or`, `header`, `response_flag` or
    `grpc_status`"""
    op: str = ""
    """for status_code and duration: `EQ`, `GE` or `LE`"""
    value: int = 0
    """the status, or the duration in milliseconds"""
    runtime_key: str = ""
    fraction: FractionConfig | None = None
    header: HeaderMatcherConfig | None = None
    values: tuple[str, ...] = ()
    """response flags, or gRPC status names"""
    exclude: bool = False
    children: tuple[AccessLogFilterConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyFormatConfig:
    """How the body of a local reply is written (`SubstitutionFormatString`): `text` or `json`, never both."""

    text: str | None = None
    """a format string"""
    json: dict[str, Any] | None = field(default=None, hash=False)
    """nested; leaves are format strings"""
    content_type: str = ""
    """empty: `text/plain` or `application/json`"""
    omit_empty_values: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessLogConfig:
    """One access logger: a file or standard stream (`envoy.access_loggers.{file,stdout,stderr}`)."""

    path: str
    """file path; `/dev/stdout` and `/dev/stderr` for the stream loggers"""
    text_format: str | None = None
    """None and no json_format: Envoy's default line"""
    json_format: dict[str, Any] | None = field(default=None, hash=False)
    """nested; leaves are format strings"""
    omit_empty_values: bool = False
    sort_properties: bool = True
    """JSON keys in alphabetical order, as Envoy writes them"""
    filter: AccessLogFilterConfig | None = None
