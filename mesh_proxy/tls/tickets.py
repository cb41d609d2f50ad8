"""Session tickets for callers that come back with them (RFC 8446, 4.6.1).

To make a ticket OpenSSL writes the session down with the caller's certificate and reads it again: a sixth of what a mutual
handshake costs altogether. If the caller returns, it saves half of one. Callers in a mesh hold their connections, and many client
libraries resume nothing; for those it is lost. So tickets are given on trust at first, then to a few, and to all again when one
comes back.
"""

from __future__ import annotations

import ssl
from typing import Final

TRUST: Final = 64
"""tickets that are given before one has come back"""
WORTH: Final = 8
"""tickets that are given for one that comes back: a caller saves more by it than a ticket costs us, and a round trip's wait"""
EVERY: Final = 16
"""of callers that find no trust left, this one in so many gets a ticket all the same"""


class TicketContext(ssl.SSLContext):
    """The context of a listener, which decides for each connection. With another certificate or trust bundle there is another
    context, whose keys do not open the tickets of this one: trust begins anew."""

    gives_tickets = False
    """the configuration lets sessions be resumed"""
    _gives = True
    _trust = TRUST
    _passed_over = 0

    def before_handshake(self) -> None:
        """Of the next connection. OpenSSL takes the number of tickets when the connection's object is made."""
        if not self.gives_tickets:
            return
        given = self._trust > 0
        if not given:
            self._passed_over += 1
            if self._passed_over == EVERY:
                self._passed_over = 0
                given = True
        if given != self._gives:
            self._gives = given
            self.num_tickets = 1 if given else 0

    def after_handshake(self, resumed: bool) -> None:
        """One is done."""
        if resumed:
            self._trust = min(self._trust + WORTH, TRUST)
        elif self._trust > 0:
            self._trust -= 1
