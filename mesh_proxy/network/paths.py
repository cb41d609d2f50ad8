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
    if b"#" in request.path:
        # A fragment is for browsers only; proxies that differ on where the path ends can be played against each other.
        return _refuse(stream)
    path, mark, query = request.path.partition(b"?")
    original = path
    action = config.path_with_escaped_slashes_action
    escaped = action != "KEEP_UNCHANGED" and _ESCAPED_SLASH.search(path) is not None
    if escaped:
        path = _ESCAPED_SLASH.sub(lambda m: b"/" if m.group()[1:] in (b"2f", b"2F") else b"\\", path)
    if config.normalize_path:
        normal = normalize(path)
        if normal is None:
            return _refuse(stream)
        path = normal
    if config.merge_slashes:
        path = _SLASHES.sub(b"/", path)
    if path != original:
        request.path = path + mark + query
    if escaped and action == "REJECT_REQUEST":
        return _refuse(stream)
    if escaped and action == "UNESCAPE_AND_REDIRECT":
        stream.manager.stats.downstream_rq_redirected_with_normalized_path += 1
        stream.send_local_reply(307, details="path_normalization_failed", headers=[(b"location", request.path)])
        return True
    return False


def _refuse(stream: HttpStream) -> bool:
    stream.manager.stats.downstream_rq_failed_path_normalization += 1
    stream.send_local_reply(400, details="path_normalization_failed", close=True)
    return True


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
