"""Telling the application: a hook is a command, or an HTTP call such as those of Dubbo's QoS port.

`http://127.0.0.1:22222/offline` is a GET, `POST http://…` a POST; anything else is a command, split as a shell would split it
and run without one.
"""

from __future__ import annotations

import http.client
import shlex
import subprocess
import time
import urllib.parse
from typing import Final

METHODS: Final = ("GET", "POST", "PUT", "DELETE")
MAX_ANSWER: Final = 4096
"""bytes of an answer or of a command's output that a message repeats at most"""


class HookError(RuntimeError):
    """The application was not told, or said no."""


def call(hook: str, timeout_s: float) -> float:
    """Call it; the seconds that it took. Raises HookError."""
    started = time.monotonic()
    method, _, rest = hook.partition(" ")
    if method in METHODS and rest.strip().startswith("http://"):
        _http(hook, method, rest.strip(), timeout_s)
    elif hook.startswith("http://"):
        _http(hook, "GET", hook, timeout_s)
    else:
        _command(hook, timeout_s)
    return time.monotonic() - started


def _http(hook: str, method: str, url: str, timeout_s: float) -> None:
    parts = urllib.parse.urlsplit(url)
    try:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
        try:
            connection.request(method, urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, "")))
            answer = connection.getresponse()
            body = answer.read(MAX_ANSWER)
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise HookError(f"{hook}: {error}") from None
    if not 200 <= answer.status < 300:
        raise HookError(f"{hook}: {answer.status} {body.decode(errors='replace').strip()}")


def _command(hook: str, timeout_s: float) -> None:
    try:
        words = shlex.split(hook)
        if not words:
            raise ValueError("no command")
        done = subprocess.run(words, capture_output=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise HookError(f"{hook}: not done after {timeout_s:g} s") from None
    except (OSError, ValueError) as error:
        raise HookError(f"{hook}: {error}") from None
    if done.returncode:
        said = (done.stderr or done.stdout)[-MAX_ANSWER:].decode(errors="replace").strip()
        raise HookError(f"{hook}: exit code {done.returncode}{f': {said}' if said else ''}")
