"""Dates as HTTP writes them; `email.utils` would bring half a megabyte of other things."""

from __future__ import annotations

import time
from typing import Final

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(second: int) -> bytes:
    """An IMF-fixdate (RFC 9110, 5.6.7) of seconds since 1970."""
    year, month, day, hour, minute, seconds, weekday, _, _ = time.gmtime(second)
    return b"%b, %02d %b %04d %02d:%02d:%02d GMT" % (
        _DAYS[weekday].encode(),
        day,
        _MONTHS[month - 1].encode(),
        year,
        hour,
        minute,
        seconds,
    )
