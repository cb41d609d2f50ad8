"""`x-forwarded-client-cert`: who called, as far as the proxies on the way have seen certificates.
A header, of Dubbo an attachment.

Follows Envoy's `ConnectionManagerUtility::mutateXfccRequestHeader`. On a connection without a client certificate the header goes,
as whoever is at its other end could have written anything into it; only ALWAYS_FORWARD_ONLY trusts it all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mesh_codecs.errors import RemoteProtocolError

if TYPE_CHECKING:
    from mesh_codecs.dubbo import DubboMessage
    from mesh_codecs.headers import Headers
    from mesh_proxy.tls.peer import TlsInfo

XFCC: Final = b"x-forwarded-client-cert"
_ORDER: Final = ("cert", "chain", "subject", "uri", "dns")
"""in which the details stand, as in Envoy"""


class ClientCertHeader:
    """One connection manager's policy."""

    __slots__ = ("_append", "_details", "_sanitize", "_set")

    def __init__(self, mode: str, details: tuple[str, ...]) -> None:
        self._sanitize = mode == "SANITIZE"
        self._set = mode in ("APPEND_FORWARD", "SANITIZE_SET")
        self._append = mode == "APPEND_FORWARD"
        self._details = tuple(name for name in _ORDER if name in details)

    def apply(self, headers: Headers, tls: TlsInfo | None) -> None:
        """Remove, keep, set or extend the header of one request."""
        if self._sanitize or tls is None or tls.peer is None:
            headers.remove(XFCC)
        elif self._set:
            element = self._element(tls)
            before = headers.get_joined(XFCC) if self._append else None
            headers.set(XFCC, before + b"," + element if before else element)

    def apply_to_call(self, message: DubboMessage, tls: TlsInfo | None) -> bool:
        """The same for the attachment of a Dubbo call, in whatever case its name is written. False when the attachments are out
        of reach: nobody can say then what a provider would read there."""
        clear = self._sanitize or tls is None or tls.peer is None
        if not clear and not self._set:
            return True
        try:
            found = message.attachments
        except RemoteProtocolError:
            return False
        if found is None:
            return False
        names = [name for name in (*found.values, *found.others) if name.lower() == XFCC]
        changes: dict[bytes, bytes | None] = dict.fromkeys(names)
        if not clear:
            assert tls is not None
            before = [found.values[name] for name in names if name in found.values] if self._append else []
            changes[XFCC] = b",".join((*before, self._element(tls)))
        if changes:
            message.edit_attachments(changes)
        return True

    def _element(self, tls: TlsInfo) -> bytes:
        """For this connection's peer, made once."""
        element = tls.forwarded
        if not element:
            element = tls.forwarded = describe(tls, self._details)
        return element


def client_cert_header(mode: str, details: tuple[str, ...]) -> ClientCertHeader | None:
    """`forward_client_cert_details` and `set_current_client_cert_details`; None when the header is left alone."""
    return None if mode == "ALWAYS_FORWARD_ONLY" else ClientCertHeader(mode, details)


def describe(tls: TlsInfo, details: tuple[str, ...]) -> bytes:
    """The element for one peer: `By=spiffe://…;Hash=…;Subject="…";URI=…`."""
    parts = [f"By={uri}" for uri in tls.local_uri_san]
    parts.append(f"Hash={tls.peer_fingerprint_256}")
    for name in details:
        if name == "cert":
            parts.append(f'Cert="{tls.peer_certificate}"')
        elif name == "chain":
            parts.append(f'Chain="{"".join(one.quoted_pem for one in tls.peer_chain)}"')
        elif name == "subject":
            parts.append(f'Subject="{tls.peer_subject}"')
        elif name == "uri":
            parts += [f"URI={uri}" for uri in tls.peer_uri_san] or ["URI="]
        else:
            parts += [f"DNS={dns}" for dns in tls.peer_dns_san]
    return ";".join(parts).encode()
