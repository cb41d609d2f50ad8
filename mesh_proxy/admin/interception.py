"""Connections that were redirected to us, and switching the redirection."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Final

from mesh_proxy.admin.exchange import AdminRequest, AdminResponse, text, to_json
from mesh_proxy.worker import messages as m

if TYPE_CHECKING:
    from mesh_proxy.supervisor.supervisor import Supervisor

SWITCH_LIMIT_S: Final = 180.0
"""hooks, rules and the time that callers have to leave, together"""


async def intercepted(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """How many connections are there whose destination was another address."""
    return await _count(supervisor, "")


async def drain_intercepted(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """Ask them to leave in the words of their protocols, or end them; how many there are."""
    return await _count(supervisor, "cut" if request.flag("cut") else "drain")


async def _count(supervisor: Supervisor, action: str) -> AdminResponse:
    answers = await supervisor.pool.ask(lambda request_id: m.Intercepted(request_id, action))
    return to_json({"connections": sum(answers.values()), "workers": len(answers)})


async def intercept(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """`?state=on|off`: as `mesh-proxy intercept` with the flags that the environment holds. Needs the rights to write rules."""
    state = request.query.get("state", "")
    if state not in ("on", "off"):
        return text("usage: /intercept?state=on or /intercept?state=off\n", 400)
    command = [sys.executable, "-m", "mesh_proxy", "intercept", state, "--admin", supervisor.admin.local]
    timeout = request.query.get("timeout", "")
    if timeout:
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)?", timeout):
            return text("timeout: seconds, below 1000\n", 400)
        command += ["--timeout", timeout]
    if request.flag("cut"):
        command.append("--cut")
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(os.environ),  # uvloop takes nothing else
    )
    try:
        async with asyncio.timeout(SWITCH_LIMIT_S):
            output, _ = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
        return text(f"not done after {SWITCH_LIMIT_S:g} s\n", 504)
    said = output.decode(errors="replace").splitlines()
    body = json.dumps({"state": state, "exit_code": child.returncode, "steps": said}, indent=1, ensure_ascii=False)
    return text(body, 200 if child.returncode in (0, 3) else 500, content_type="application/json")
