"""A JSON Web Token taken apart (RFC 7519, 7515), and what can be wrong with it in Envoy's words (`jwt_verify_lib`).

Nothing here believes a token: signatures are the business of `jwt_keys`.
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
import re
from typing import Any, Final

ALGORITHMS: Final = frozenset(
    ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256", "HS384", "HS512", "EdDSA")
)
"""everything else is refused, `none` first of all"""
_WEB_SAFE: Final = re.compile(rb"[-_0-9A-Za-z]*")
_UINT64: Final = 1 << 64


class Status(enum.Enum):
    """What became of a token; the value is the text for its sender."""

    OK = "OK"
    MISSED = "Jwt is missing"
    NOT_YET_VALID = "Jwt not yet valid"
    EXPIRED = "Jwt is expired"
    BAD_FORMAT = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
    HEADER_BASE64 = "Jwt header is an invalid Base64url encoded"
    HEADER_JSON = "Jwt header is an invalid JSON"
    HEADER_ALG = "Jwt header [alg] field is required and must be a string"
    HEADER_ALG_UNKNOWN = "Jwt header [alg] is not supported"
    HEADER_KID = "Jwt header [kid] field is not a string"
    HEADER_CRIT = "Jwt header [crit] is not supported"
    PAYLOAD_BASE64 = "Jwt payload is an invalid Base64url encoded"
    PAYLOAD_JSON = "Jwt payload is an invalid JSON"
    ISS = "Jwt payload [iss] field is not a string"
    SUB = "Jwt payload [sub] field is not a string"
    JTI = "Jwt payload [jti] field is not a string"
    IAT = "Jwt payload [iat] field is not an integer"
    IAT_RANGE = "Jwt payload [iat] field is not a positive 64 bit integer"
    NBF = "Jwt payload [nbf] field is not an integer"
    NBF_RANGE = "Jwt payload [nbf] field is not a positive 64 bit integer"
    EXP = "Jwt payload [exp] field is not an integer"
    EXP_RANGE = "Jwt payload [exp] field is not a positive 64 bit integer"
    AUD = "Jwt payload [aud] field is not a string or string list"
    SIGNATURE_BASE64 = "Jwt signature is an invalid Base64url encoded"
    UNKNOWN_ISSUER = "Jwt issuer is not configured"
    AUDIENCE = "Audiences in Jwt are not allowed"
    VERIFICATION = "Jwt verification fails"
    NO_KEY = "Jwks doesn't have key to match kid or alg from Jwt"
    FETCH = "Jwks remote fetch is failed"


class TokenError(Exception):
    """A token cannot be read."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.value)
        self.status = status


class Token:
    """One that could be read."""

    __slots__ = (
        "alg", "audiences", "exp", "header", "iat", "issuer", "kid", "nbf", "payload", "payload_text", "raw", "signature",
        "signed", "subject", "verified_by",
    )  # fmt: skip

    def __init__(self, raw: bytes) -> None:
        """Raises TokenError."""
        parts = raw.split(b".")
        if len(parts) != 3 or not all(parts):
            raise TokenError(Status.BAD_FORMAT)
        self.raw = raw
        self.header = header = _object(parts[0], Status.HEADER_BASE64, Status.HEADER_JSON)
        alg = header.get("alg")
        if not isinstance(alg, str):
            raise TokenError(Status.HEADER_ALG)
        if alg not in ALGORITHMS:
            raise TokenError(Status.HEADER_ALG_UNKNOWN)
        if "crit" in header:
            raise TokenError(Status.HEADER_CRIT)  # RFC 7515, 4.1.11: we understand no extension
        self.alg: str = alg
        self.kid = _text(header, "kid", Status.HEADER_KID)
        self.payload_text = parts[1]
        self.payload = payload = _object(parts[1], Status.PAYLOAD_BASE64, Status.PAYLOAD_JSON)
        self.issuer = _text(payload, "iss", Status.ISS)
        self.subject = _text(payload, "sub", Status.SUB)
        _text(payload, "jti", Status.JTI)
        self.iat = _seconds(payload, "iat", Status.IAT, Status.IAT_RANGE)
        self.nbf = _seconds(payload, "nbf", Status.NBF, Status.NBF_RANGE)
        self.exp = _seconds(payload, "exp", Status.EXP, Status.EXP_RANGE)
        self.audiences = _audiences(payload)
        signature = decode(parts[2])
        if signature is None:
            raise TokenError(Status.SIGNATURE_BASE64)
        self.signature = signature
        self.signed = raw[: len(parts[0]) + 1 + len(parts[1])]
        self.verified_by: object = None
        """the keys that have proved the signature"""


def decode(text: bytes) -> bytes | None:
    """Base64url without padding (RFC 7515, 2); None when it is not that."""
    if _WEB_SAFE.fullmatch(text) is None or len(text) % 4 == 1:
        return None
    try:
        return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return None


def encode(data: bytes) -> bytes:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _object(text: bytes, bad_base64: Status, bad_json: Status) -> dict[str, Any]:
    data = decode(text)
    if data is None:
        raise TokenError(bad_base64)
    try:
        value = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise TokenError(bad_json) from None
    if not isinstance(value, dict):
        raise TokenError(bad_json)
    return value


def _text(fields: dict[str, Any], name: str, wrong: Status) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise TokenError(wrong)
    return value


def _seconds(fields: dict[str, Any], name: str, wrong: Status, out_of_range: Status) -> int:
    """Seconds since the epoch; 0 when absent."""
    value = fields.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TokenError(wrong)
    if not 0 <= value < _UINT64:
        raise TokenError(out_of_range)
    return int(value)


def _audiences(fields: dict[str, Any]) -> tuple[str, ...]:
    value = fields.get("aud", ())
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
        raise TokenError(Status.AUD)
    return tuple(value)


def plain_audience(text: str) -> str:
    """An audience without scheme and final slash: these make no difference, as with Envoy."""
    for scheme in ("https://", "http://"):
        if text.startswith(scheme):
            text = text[len(scheme) :]
            break
    return text[:-1] if text.endswith("/") else text
