"""What is known about a TLS connection: the object at `ConnectionInfo.tls`.

Logs (`mesh_proxy.formatting.tls`), headers, matchers and filters read its attributes by name. Without a peer certificate the
`peer_*` names are empty; a connection in plain text has no such object at all (`tls` is None).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh_proxy.tls.certificate import read_certificate
from mesh_proxy.tls.chains import shown_chain

if TYPE_CHECKING:
    import ssl

    from mesh_proxy.tls.certificate import Certificate


class TlsInfo:
    """One connection's. A certificate that was not accepted leaves no connection behind, so what is here was validated if the
    listener validates at all (`peer_validated`)."""

    __slots__ = (
        "_connection",
        "alpn",
        "cipher",
        "forwarded",
        "local",
        "peer",
        "peer_validated",
        "resumed",
        "server_name",
        "version",
    )

    def __init__(
        self,
        *,
        version: str = "",
        cipher: str = "",
        alpn: str = "",
        server_name: str = "",
        peer: Certificate | None = None,
        local: Certificate | None = None,
        peer_validated: bool = False,
        resumed: bool = False,
        connection: ssl.SSLObject | None = None,
    ) -> None:
        self.version = version
        """`TLSv1.2`, `TLSv1.3`"""
        self.cipher = cipher
        """OpenSSL's name"""
        self.alpn = alpn
        """application protocol that was agreed on; empty if none was"""
        self.server_name = server_name
        """SNI"""
        self.peer = peer
        """the peer's own certificate; None when it showed none"""
        self.local = local
        """the one that we showed"""
        self.peer_validated = peer_validated
        """the peer showed a certificate, and it was checked against a trust bundle or a pin"""
        self.resumed = resumed
        """an earlier session went on"""
        self._connection = connection
        self.forwarded = b""
        """what x-forwarded-client-cert says of the peer, made at the first request"""

    @property
    def session_id(self) -> str:
        """Hexadecimal."""
        session = self._connection.session if self._connection is not None else None
        return session.id.hex() if session is not None else ""

    @property
    def peer_chain(self) -> tuple[Certificate, ...]:
        """The certificates that the peer sent, its own first; those that cannot be read are left out."""
        found: list[Certificate] = []
        for data in shown_chain(self._connection) if self._connection is not None else ():
            try:
                found.append(read_certificate(data))
            except ValueError:
                continue
        return tuple(found) or ((self.peer,) if self.peer is not None else ())

    @property
    def peer_presented(self) -> bool:
        """The peer showed a certificate."""
        return self.peer is not None

    @property
    def peer_subject(self) -> str:
        """RFC 2253: `CN=web,O=Shop`."""
        return self.peer.subject if self.peer is not None else ""

    @property
    def peer_issuer(self) -> str:
        """RFC 2253."""
        return self.peer.issuer if self.peer is not None else ""

    @property
    def peer_serial(self) -> str:
        """Lower-case hexadecimal."""
        return self.peer.serial if self.peer is not None else ""

    @property
    def peer_fingerprint_256(self) -> str:
        """Lower-case hexadecimal."""
        return self.peer.fingerprint_256 if self.peer is not None else ""

    @property
    def peer_fingerprint_1(self) -> str:
        """Lower-case hexadecimal."""
        return self.peer.fingerprint_1 if self.peer is not None else ""

    @property
    def peer_uri_san(self) -> tuple[str, ...]:
        """SPIFFE ids stand here."""
        return self.peer.uri_san if self.peer is not None else ()

    @property
    def peer_dns_san(self) -> tuple[str, ...]:
        """DNS names."""
        return self.peer.dns_san if self.peer is not None else ()

    @property
    def peer_ip_san(self) -> tuple[str, ...]:
        """IP addresses, in their canonical text."""
        return self.peer.ip_san if self.peer is not None else ()

    @property
    def peer_email_san(self) -> tuple[str, ...]:
        """Mail addresses."""
        return self.peer.email_san if self.peer is not None else ()

    @property
    def peer_certificate(self) -> str:
        """PEM with percent-encoding."""
        return self.peer.quoted_pem if self.peer is not None else ""

    @property
    def peer_not_before(self) -> float | None:
        """Seconds since the epoch."""
        return float(self.peer.not_before) if self.peer is not None else None

    @property
    def peer_not_after(self) -> float | None:
        """Seconds since the epoch."""
        return float(self.peer.not_after) if self.peer is not None else None

    @property
    def local_subject(self) -> str:
        """RFC 2253."""
        return self.local.subject if self.local is not None else ""

    @property
    def local_uri_san(self) -> tuple[str, ...]:
        """URI names of our certificate."""
        return self.local.uri_san if self.local is not None else ()

    @property
    def local_dns_san(self) -> tuple[str, ...]:
        """DNS names of our certificate."""
        return self.local.dns_san if self.local is not None else ()

    @property
    def local_ip_san(self) -> tuple[str, ...]:
        """IP addresses of our certificate."""
        return self.local.ip_san if self.local is not None else ()

    @property
    def local_email_san(self) -> tuple[str, ...]:
        """Mail addresses of our certificate."""
        return self.local.email_san if self.local is not None else ()

    def __repr__(self) -> str:
        return f"<TlsInfo {self.version} {self.cipher} peer={self.peer}>"
