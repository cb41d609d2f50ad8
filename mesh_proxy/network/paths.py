"""Path normalisation before routing (`normalize_path`, `merge_slashes`, `path_with_escaped_slashes_action`)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mesh_proxy.stream.http_stream import HttpStream

_ESCAPED_SLASH: Final = re.compile(rb"%2[fF]|%5[cC]")
_SLASHES: Final = re.compile(rb"//+")
_UNRESERVED: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNRESERVED_BYTES: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def check_path(stream: HttpStream) -> bool:
    """Normalise the request's path as configured. True when the request was answered instead."""
    config = stream.manager.config
    request = stream.request
    path, mark, query = request.path.partition(b"?")
    original = path
    action = config.path_with_escaped_slashes_action
    redirect = False
    if action != "KEEP_UNCHANGED" and _ESCAPED_SLASH.search(path):
        if action == "REJECT_REQUEST":
            stream.send_local_reply(400, details="path_normalization_failed")
            return True
        path = _ESCAPED_SLASH.sub(lambda m: b"/" if m.group()[1:] in (b"2f", b"2F") else b"\\", path)
        redirect = action == "UNESCAPE_AND_REDIRECT"
    if config.normalize_path:
        normal = normalize(path)
        if normal is None:
            stream.send_local_reply(400, details="path_normalization_failed")
            return True
        path = normal
    if config.merge_slashes:
        path = _SLASHES.sub(b"/", path)
    if path != original:
        request.path = path + mark + query
        if redirect:
            stream.manager.stats.downstream_rq_redirected_with_normalized_path += 1
            stream.send_local_reply(307, details="path_normalization_redirect", headers=[(b"location", request.path)])
            return True
    return False


def normalize(path: bytes) -> bytes | None:
    r"""RFC 3986, 6.2.2 as Envoy does it: unreserved characters unescaped, `\` is `/`, dot segments removed.

    None when the path climbs above its root or holds a null byte.
    """
    if b"%00" in path or b"\0" in path:
        return None
    text = _UNRESERVED.sub(_unescape, path).replace(b"\\", b"/")
    if b"/." not in text and b"%2e" not in text:
        return text
    out: list[bytes] = []
    segments = text.split(b"/")[1:]
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment == b".":
            if last:
                out.append(b"")
        elif segment == b"..":
            if out:
                out.pop()
            if last:
                out.append(b"")
        else:
            out.append(segment)
    return b"/" + b"/".join(out)


def _unescape(match: re.Match[bytes]) -> bytes:
    code = int(match.group(1), 16)
    return bytes((code,)) if code in _UNRESERVED_BYTES else match.group()
