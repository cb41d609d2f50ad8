"""Opening and closing interception under traffic, without losing a request.

Opening: the application leaves its registry (`offline` hooks), the rules are written, it comes back (`online` hooks). Callers
that come back then come through the proxy; connections from before stay as they are.

Closing: callers whose connections pass through the proxy are asked to leave in the words of their protocol, the way through the
rules is closed, and those who came in between are asked too. From then on new connections go straight to the application. The
chains stay in the kernel, out of use, until no such connection is left: connection tracking ends with the last rule that needs
it, and with it every redirected connection that is still open.

A connection that is busy all the time cannot be closed without losing a request. It goes on through the proxy as long as it
lives, unless the caller of this asks to cut what is left at the time-out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from mesh_proxy.interception.admin_client import AdminError, ask
from mesh_proxy.interception.apply import Interception
from mesh_proxy.interception.backend import InterceptionError
from mesh_proxy.interception.hooks import HookError, call

POLL_S: Final = 0.1
"""how often the proxy is asked how many connections are left"""
QUIET: Final = 2
"""looks in a row that must find no connection: one may just be on its way from the kernel to the proxy"""
CUT_S: Final = 5.0
"""how long connections may take to end once they are cut"""


class SwitchError(RuntimeError):
    """It could not be done; the message says what is the case now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to switch."""

    admin: str
    """of the proxy; empty: it is not asked anything"""
    offline: Sequence[str] = ()
    """hooks before the rules are written"""
    online: Sequence[str] = ()
    """hooks after that"""
    hook_timeout_s: float = 30.0
    timeout_s: float = 15.0
    """closing: how long connections have to leave by themselves"""
    cut: bool = False
    """closing: end what is left after that"""


class Switch:
    """One sidecar's interception. `say` gets a line for each step."""

    def __init__(self, interception: Interception, plan: Plan, say: Callable[[str], None]) -> None:
        self._interception = interception
        self._plan = plan
        self._say = say

    def on(self) -> None:
        """Open it. Raises SwitchError; then the application is online and the rules are as before, unless the message says
        otherwise."""
        if self._plan.admin:
            self._require_ready()
        try:
            self._call(self._plan.offline, "offline")
        except HookError as error:
            self._bring_back()
            raise SwitchError(f"interception stays off, as the application could not go offline: {error}") from None
        try:
            changed = self._interception.apply()
        except InterceptionError as error:
            self._bring_back()
            raise SwitchError(f"interception could not be opened: {error}") from None
        self._say("rules: written and verified" if changed else "rules: there already")
        try:
            self._call(self._plan.online, "online")
        except HookError as error:
            raise SwitchError(f"interception is on, but the application did not go online again: {error}") from None

    def off(self) -> int:
        """Close it; how many connections still pass through the proxy. Raises SwitchError."""
        asked = bool(self._plan.admin)
        try:
            if asked:
                self._say(f"callers: {self._leave()} connections were asked to leave")
            self._say("rules: out of use" if self._interception.release() else "rules: not in use")
            left = self._wait() if asked else 0
            if not left:
                self._interception.clean()
                self._say("rules: removed")
            else:
                self._say(f"callers: {left} connections go on through the proxy until they end; `clean` would cut them")
            return left
        except (InterceptionError, AdminError) as error:
            raise SwitchError(f"interception could not be closed: {error}") from None

    def _wait(self) -> int:
        deadline = time.monotonic() + self._plan.timeout_s
        left = self._leave()  # those who came while the rules were still in use
        quiet = 0
        while (left or quiet < QUIET) and time.monotonic() < deadline:
            time.sleep(POLL_S)
            left = self._leave()  # and those who were waiting to be accepted
            quiet = 0 if left else quiet + 1
        if left and self._plan.cut:
            self._say(f"callers: {left} connections are cut")
            self._leave(cut=True)
            deadline = time.monotonic() + CUT_S
            while (left := self._count()) and time.monotonic() < deadline:
                time.sleep(POLL_S)
        return left

    def _leave(self, *, cut: bool = False) -> int:
        return self._ask("POST", f"/drain_intercepted{'?cut' if cut else ''}")

    def _count(self) -> int:
        return self._ask("GET", "/intercepted")

    def _ask(self, method: str, path: str) -> int:
        status, body = ask(self._plan.admin, method, path)
        if status != 200:
            raise AdminError(f"{self._plan.admin}{path}: {status} {body.decode(errors='replace').strip()}")
        try:
            return int(json.loads(body)["connections"])
        except (ValueError, KeyError, TypeError):
            raise AdminError(f"{self._plan.admin}{path}: an answer that is not understood") from None

    def _require_ready(self) -> None:
        try:
            status, body = ask(self._plan.admin, "GET", "/ready")
        except AdminError as error:
            raise SwitchError(f"interception stays off, as the proxy does not answer: {error}") from None
        if status != 200:
            raise SwitchError(f"interception stays off, as the proxy is {body.decode(errors='replace').strip()}")

    def _call(self, hooks: Sequence[str], what: str) -> None:
        for hook in hooks:
            took = call(hook, self._plan.hook_timeout_s)
            self._say(f"application: {what} by {hook} ({took:.2f} s)")

    def _bring_back(self) -> None:
        try:
            self._call(self._plan.online, "online")
        except HookError as error:
            self._say(f"application: it did not go online again: {error}")
