"""Who gets a session ticket from a listener, and that no session outlives what it was checked against."""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import Any

import pytest
from tls_support import client

from mesh_proxy.config.model.tls import CertificateConfig, CommonTlsConfig, DownstreamTlsConfig, SecretConfig, ValidationConfig
from mesh_proxy.tls.authority import Authority, Pair
from mesh_proxy.tls.context import server_context
from mesh_proxy.tls.secrets import CurrentMaterial, Material, SecretStore
from mesh_proxy.tls.tickets import EVERY, TRUST, WORTH
from mesh_proxy.tls.validation import PeerCheck, PeerRefused

MESH = Authority("mesh.local")
PARTNER = Authority("partner.local")
OWN = MESH.workload("web")
CALLER = MESH.workload("shop")
CONFIG = DownstreamTlsConfig(
    common=CommonTlsConfig(certificates=("own",), validation_secret="trust"), require_client_certificate=True
)


def own(pair: Pair) -> SecretConfig:
    return SecretConfig(name="own", certificate=CertificateConfig(chain=pair.chain, key=pair.key))


def trust(**fields: Any) -> SecretConfig:
    return SecretConfig(name="trust", validation=ValidationConfig(**fields))


BEFORE = (own(OWN), trust(trusted_ca=MESH.pem))


class Side:
    """A listener's TLS, without a listener."""

    def __init__(self, config: DownstreamTlsConfig = CONFIG, secrets: tuple[SecretConfig, ...] = BEFORE) -> None:
        self.store = SecretStore(secrets)
        self._material = CurrentMaterial(config, self.store, server_context, lambda: None)

    @property
    def material(self) -> Material:
        return self._material.get()


class Caller:
    """Connects to it, again and again."""

    def __init__(self, pair: Pair = CALLER) -> None:
        self.context = client(MESH.pem, PARTNER.pem, pair=pair)
        self.resumed = False

    def connect(self, side: Side, session: ssl.SSLSession | None = None) -> ssl.SSLSession | None:
        """What can be resumed, if there was a ticket. Raises ssl.SSLError or PeerRefused as the listener does."""
        material = side.material
        context: Any = material.context
        context.before_handshake()
        to_server, to_caller = ssl.MemoryBIO(), ssl.MemoryBIO()
        caller = self.context.wrap_bio(to_caller, to_server, session=session)
        server = context.wrap_bio(to_server, to_caller, server_side=True)
        for step in (caller, server, caller, server):
            try:
                step.do_handshake()
            except ssl.SSLWantReadError:
                continue
        with pytest.raises(ssl.SSLWantReadError):
            caller.read(1)
        context.after_handshake(bool(server.session_reused))
        self.resumed = bool(server.session_reused)
        assert caller.session_reused == server.session_reused
        assert material.check.check(server) is not None
        found = caller.session
        return found if found is not None and found.has_ticket else None


def test_a_caller_that_returns_is_resumed_each_time() -> None:
    side, caller = Side(), Caller()
    session = caller.connect(side)
    for _ in range(3):
        session = caller.connect(side, session)
        assert caller.resumed
    assert session is not None


def test_tickets_are_given_on_trust_and_then_to_a_few() -> None:
    side, caller = Side(), Caller()
    given = [caller.connect(side) is not None for _ in range(TRUST + 2 * EVERY)]
    assert all(given[:TRUST])
    assert [place for place, one in enumerate(given[TRUST:], 1) if one] == [EVERY, 2 * EVERY]


def test_a_ticket_that_comes_back_brings_trust() -> None:
    side, caller = Side(), Caller()
    first = caller.connect(side)
    for _ in range(TRUST):
        caller.connect(side)
    assert caller.connect(side) is None
    caller.connect(side, first)
    assert caller.resumed
    assert [caller.connect(side) is not None for _ in range(WORTH + 1)] == [True] * WORTH + [False]


def test_a_rotation_begins_with_trust() -> None:
    side, caller = Side(), Caller()
    for _ in range(TRUST):
        caller.connect(side)
    assert caller.connect(side) is None
    side.store.replace((own(MESH.workload("web")), BEFORE[1]))
    assert caller.connect(side) is not None


@pytest.mark.parametrize(
    ("config", "secret"),
    [
        (replace(CONFIG, tickets=False), BEFORE[1]),
        (CONFIG, trust(trust_domains=(("mesh.local", MESH.pem), ("partner.local", PARTNER.pem)))),
    ],
    ids=["switched off", "two trust domains"],
)
def test_no_tickets_at_all(config: DownstreamTlsConfig, secret: SecretConfig) -> None:
    side, caller = Side(config, (BEFORE[0], secret)), Caller()
    assert [caller.connect(side) for _ in range(TRUST + EVERY + 1)] == [None] * (TRUST + EVERY + 1)


def test_a_session_ends_with_the_certificate_that_it_began_with() -> None:
    side, caller = Side(), Caller()
    session = caller.connect(side)
    side.store.replace((own(MESH.workload("web")), BEFORE[1]))
    assert caller.connect(side, session) is not None
    assert not caller.resumed


@pytest.mark.parametrize(
    "after",
    [
        trust(trusted_ca=PARTNER.pem),
        trust(trusted_ca=MESH.pem, crl=MESH.revocation_list(CALLER)),
        trust(trust_domains=(("mesh.local", PARTNER.pem),)),
    ],
    ids=["another bundle", "revoked", "the trust domain has another bundle"],
)
def test_who_is_trusted_no_longer_has_no_use_of_a_session(after: SecretConfig) -> None:
    side, caller = Side(), Caller()
    session = caller.connect(side)
    side.store.replace((BEFORE[0], after))
    with pytest.raises(ssl.SSLCertVerificationError):
        caller.connect(side, session)
    assert not caller.resumed


def test_a_session_is_for_one_listener() -> None:
    """The same caller, the same certificate of the proxy, another trust bundle."""
    caller = Caller()
    session = caller.connect(Side())
    with pytest.raises(ssl.SSLCertVerificationError):
        caller.connect(Side(secrets=(BEFORE[0], trust(trusted_ca=PARTNER.pem))), session)


def test_the_check_runs_for_a_resumed_session_too() -> None:
    """A context whose sessions live on while names are matched anew: none is built so, and it would be safe."""
    side, caller = Side(), Caller()
    session = caller.connect(side)
    side.material.check = PeerCheck(ValidationConfig(trusted_ca=MESH.pem, trust_domains=(("other.local", MESH.pem),)))
    with pytest.raises(PeerRefused):
        caller.connect(side, session)
    assert caller.resumed
