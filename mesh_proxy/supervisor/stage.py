"""Where the supervisor stands."""

from __future__ import annotations

import enum
from typing import Final


class Stage(enum.Enum):
    """The values are Envoy's words (`envoy.admin.v3.ServerInfo.State`), but for STOPPED."""

    PRE_INITIALIZING = "PRE_INITIALIZING"
    """reading the configuration"""
    INITIALIZING = "INITIALIZING"
    """workers start and get the first version"""
    LIVE = "LIVE"
    DRAINING = "DRAINING"
    STOPPED = "STOPPED"


STATE_NUMBERS: Final = {"LIVE": 0, "DRAINING": 1, "PRE_INITIALIZING": 2, "INITIALIZING": 3, "STOPPED": 1}
"""`server.state`"""
