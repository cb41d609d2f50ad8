"""The head of a call: the five strings in front of the arguments.

They are, in every serialization and in this order: version of the Dubbo protocol, service, version of the service, method,
types of the parameters as JVM descriptors.
"""

from __future__ import annotations

import re
from typing import Final

from mesh_codecs.errors import RemoteProtocolError

GENERIC_TYPES: Final = b"Ljava/lang/String;[Ljava/lang/String;[Ljava/lang/Object;"
_GENERIC_METHODS: Final = (b"$invoke", b"$invokeAsync")

_DESCRIPTOR: Final = re.compile(rb"\[*(?:[VZBCDFIJS]|L[^;\[]+;)")
_VERSION: Final = re.compile(rb"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", re.ASCII)


class InvocationHead:
    """The parsed head. Shared by all messages with the same head bytes: never change one. All text is UTF-8."""

    __slots__ = (
        "argument_count",
        "arguments_at",
        "dubbo_version",
        "generic",
        "method",
        "parameter_types",
        "plan",
        "response_attachments",
        "serialization",
        "service",
        "service_version",
        "state",
    )

    def __init__(self, serialization: int, strings: list[bytes | None], arguments_at: int, state: object = None) -> None:
        version, service, service_version, method, types = strings
        if service is None or method is None:
            raise RemoteProtocolError("dubbo.bad_head", detail="no service or no method")
        self.serialization = serialization
        self.dubbo_version = version or b""
        self.service = service
        self.service_version = service_version
        """None when the sender wrote null, as callbacks do"""
        self.method = method
        self.parameter_types = types or b""
        """JVM descriptors, one after the other; empty for a method without parameters"""
        self.argument_count = count_arguments(self.parameter_types)
        """-1 when the descriptors are not well-formed: arguments and attachments are then out of reach"""
        self.arguments_at = arguments_at
        """offset in the frame (header included) of the first argument"""
        self.generic = self.parameter_types == GENERIC_TYPES and method in _GENERIC_METHODS
        """a generic call: the first argument names the real method"""
        self.response_attachments = supports_response_attachments(self.dubbo_version)
        """the caller understands responses with attachments"""
        self.state = state
        """what the walker of this serialization must know at the first argument"""
        self.plan: object = None
        """room for whoever owns the memo: what it worked out from this head, e.g. the route"""

    def __repr__(self) -> str:
        return f"<InvocationHead {self.service!r}:{self.service_version!r} {self.method!r} {self.parameter_types!r}>"


def count_arguments(descriptors: bytes) -> int:
    """How many parameters JVM descriptors name; -1 when malformed."""
    if not descriptors:
        return 0
    found = _DESCRIPTOR.findall(descriptors)
    return len(found) if sum(map(len, found)) == len(descriptors) else -1


def supports_response_attachments(version: bytes) -> bool:
    """Dubbo's own rule: the protocol version lies in 2.0.2 … 2.0.99. Releases before 2.6.3 send their own version (2.5.4)."""
    match = _VERSION.match(version)
    if match is None:
        return False
    major, minor, patch = match.groups()
    return int(major) == 2 and int(minor) == 0 and 2 <= int(patch or 0) <= 99
