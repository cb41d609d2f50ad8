"""The time-out that a call asks for by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mesh_codecs.errors import RemoteProtocolError

if TYPE_CHECKING:
    from mesh_codecs.dubbo import DubboMessage

MAX_ASKED_MS: Final = 24 * 3600 * 1000
_NAMES: Final = (b"_TO", b"_to", b"timeout")
"""what is left of a countdown first (Dubbo's `timeout-countdown`), then the time-out of the consumer's configuration"""


def asked_timeout(message: DubboMessage) -> float | None:
    """Seconds from the attachments `_TO` or `timeout` (milliseconds); None when the call does not say or cannot be read."""
    try:
        found = message.attachments
    except RemoteProtocolError:
        return None
    if found is None:
        return None
    for name in _NAMES:
        text = found.values.get(name)
        if text and text.isdigit() and len(text) < 10 and 0 < int(text) <= MAX_ASKED_MS:
            return int(text) / 1000.0
    return None
