"""Keys that tokens are signed with (RFC 7517), and the proof of a signature. The cryptography is PyJWT's.

Which key may prove which algorithm follows from its kind, never from the token alone: an RSA key does not become the secret of an
HMAC. PyJWT is imported when the first keys are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from mesh_filters.jwt_token import Status, Token

MAX_KEYS: Final = 1000
"""keys of a set that are read; more are a mistake or an attack"""
_BY_CURVE: Final = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",)}
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_PUBLIC: Final = ("kty", "n", "e", "crv", "x", "y", "k", "alg")
"""members that are of use here; private ones are not looked at"""


class Key:
    """One key of a set."""

    __slots__ = ("_made", "_members", "alg", "algorithms", "kid")

    def __init__(self, members: Mapping[str, Any], algorithms: tuple[str, ...]) -> None:
        self.kid = str(members.get("kid", ""))
        self.alg = str(members.get("alg", ""))
        self.algorithms = algorithms
        self._members = {name: members[name] for name in _PUBLIC if name in members}
        self._made: dict[str, Any] = {}
        self._verifier(algorithms[0])  # a bad key is found at once

    def _verifier(self, alg: str) -> Any:
        from jwt.algorithms import get_default_algorithms

        found = self._made.get(alg)
        if found is None:
            algorithm = get_default_algorithms()[alg]
            found = self._made[alg] = (algorithm, algorithm.from_jwk(self._members))
        return found

    def proves(self, token: Token) -> bool:
        """Whether the token was signed with this key."""
        algorithm, key = self._verifier(token.alg)
        try:
            return bool(algorithm.verify(token.signed, key, token.signature))
        except (ValueError, TypeError):
            return False


class KeySet:
    """A JWK set.

    Raises:
        ValueError: it is none, or has no key of use.
    """

    __slots__ = ("keys",)

    def __init__(self, text: bytes) -> None:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("is not JSON") from None
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise ValueError("has no list of keys")
        if len(entries) > MAX_KEYS:
            raise ValueError(f"has more than {MAX_KEYS} keys")
        made = [_key(entry) for entry in entries]
        self.keys = tuple(key for key in made if key is not None)
        if not self.keys:
            raise ValueError("has no key that can be used")

    def verify(self, token: Token) -> Status:
        """OK, VERIFICATION when no signature fits, NO_KEY when no key comes into question."""
        if token.verified_by is self:
            return Status.OK
        tried = False
        for key in self.keys:
            if token.kid and key.kid and token.kid != key.kid:
                continue
            if (key.alg and key.alg != token.alg) or token.alg not in key.algorithms:
                continue
            tried = True
            if key.proves(token):
                token.verified_by = self
                return Status.OK
        return Status.VERIFICATION if tried else Status.NO_KEY


def _key(members: Any) -> Key | None:
    """None: a key of a kind that we do not know, or for encryption."""
    if not isinstance(members, dict) or members.get("use", "sig") != "sig":
        return None
    kind = members.get("kty")
    algorithms: tuple[str, ...] = ()
    if kind == "RSA":
        algorithms = _RSA
    elif kind == "EC":
        algorithms = _BY_CURVE.get(str(members.get("crv")), ())
    elif kind == "OKP" and members.get("crv") == "Ed25519":
        algorithms = ("EdDSA",)
    elif kind == "oct":
        algorithms = ("HS256", "HS384", "HS512")
    if not algorithms:
        return None
    from jwt.exceptions import InvalidKeyError

    try:
        return Key(members, algorithms)
    except (InvalidKeyError, ValueError, KeyError, TypeError):
        return None
