"""x-forwarded-client-cert as an attachment of Dubbo calls: in all modes, and never a forged one where it is configured."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from dubbo_support import wire
from dubbo_support.plane import Provider, bootstrap, id_of, read_frame
from label_support import STRUCT
from plane_support import plane, run
from tls_support import certificate, client, downstream, endpoint, inline

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo
from mesh_proxy.tls.authority import Authority
from mesh_proxy.tls.certificate import certificates_in

MESH = Authority("mesh.local")
SERVER = MESH.workload("provider")
CALLER = MESH.issue(uris=["spiffe://mesh.local/consumer"], dns=["shop"], subject="shop")
LEAF = certificates_in(CALLER.chain)[0]
SOCKET = downstream(f"tls_certificates: [{certificate(SERVER)}], validation_context: {{trusted_ca: {inline(MESH.pem)}}}")
OWN = (
    f'By=spiffe://mesh.local/provider;Hash={LEAF.fingerprint_256};Subject="CN=shop";URI=spiffe://mesh.local/consumer;DNS=shop'
).encode()
NAME = "x-forwarded-client-cert"
CALLS = 6
"""of one caller in a row: the third and later ones may go as the ones before"""
LABELS = (
    f"{{name: l, config: {{{STRUCT}TrafficLabel, value: {{labels: [{{name: dubbo.tag, sources: [{{constant: gray}}]}}]}}}}}}, "
    f"{{name: t, config: {{{STRUCT}TagRouter, value: {{mode: dubbo}}}}}}"
)
DETAILS = "set_current_client_cert_details: {subject: true, uri: true, dns: true}"


def manager(mode: str) -> str:
    return f"forward_client_cert_details: {mode}" + (f", {DETAILS}" if mode else "") if mode else "idle_timeout: 60s"


async def ask(
    mode: str, *calls: bytes, tls: bool = True, shown: bool = True, filters: str = ""
) -> tuple[list[bytes], list[bytes]]:
    """What the provider gets of these calls, and what the consumer gets."""
    provider = Provider(lambda frame: wire.answer(id_of(frame), "hi"))
    async with endpoint(provider.serve, None) as address:
        text = bootstrap({"a": [address]}, manager=manager(mode), dubbo_filters=filters)
        if tls:
            text = text.replace("    - filters:\n", f"    - transport_socket: {SOCKET}\n      filters:\n")
        async with plane(text) as one:
            context = client(MESH.pem, pair=CALLER if shown else None) if tls else None
            port = next(iter(one.ports.values()))
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="p" if tls else None)
            answers = []
            for call in calls:
                writer.write(call)
                answers.append(await read_frame(reader))
            writer.transport.abort()
    return provider.frames, answers


def attachments(frame: bytes) -> dict[bytes, bytes]:
    (message,) = DubboCodec(HeadMemo()).receive_data(frame)
    assert isinstance(message, DubboMessage)
    assert message.attachments is not None
    return message.attachments.values


def forwarded(frame: bytes) -> bytes | None:
    """The attachment; there is only one, in one spelling."""
    found = {name: value for name, value in attachments(frame).items() if name.lower() == NAME.encode()}
    assert not found or list(found) == [NAME.encode()]
    assert frame.lower().count(NAME.encode()) == len(found)
    return found.get(NAME.encode())


FORGED = wire.call(attachments={NAME: "Hash=forged", "trace": "7"}, types=wire.STRING, arguments=("x",))
PLAIN = wire.call(attachments={"trace": "7"})


@pytest.mark.parametrize(
    ("mode", "known", "unknown"),
    [
        ("SANITIZE", None, None),
        ("FORWARD_ONLY", b"Hash=forged", None),
        ("APPEND_FORWARD", b"Hash=forged," + OWN, None),
        ("SANITIZE_SET", OWN, None),
        ("ALWAYS_FORWARD_ONLY", b"Hash=forged", b"Hash=forged"),
        ("", b"Hash=forged", b"Hash=forged"),
    ],
)
def test_an_attachment_that_is_there(mode: str, known: bytes | None, unknown: bytes | None) -> None:
    async def test() -> None:
        for options, expected in (({}, known), ({"shown": False}, unknown), ({"tls": False}, unknown)):
            frames, _ = await ask(mode, FORGED, FORGED, **options)
            assert [forwarded(frame) for frame in frames] == [expected] * 2
            assert attachments(frames[1])[b"trace"] == b"7"

    run(test())


@pytest.mark.parametrize(
    ("mode", "known"),
    [("SANITIZE", None), ("FORWARD_ONLY", None), ("APPEND_FORWARD", OWN), ("SANITIZE_SET", OWN), ("ALWAYS_FORWARD_ONLY", None)],
)
def test_an_attachment_that_is_not(mode: str, known: bytes | None) -> None:
    async def test() -> None:
        frames, _ = await ask(mode, PLAIN)
        assert forwarded(frames[0]) == known
        frames, _ = await ask(mode, PLAIN, tls=False)
        assert frames == [PLAIN.replace(PLAIN[4:12], frames[0][4:12])]  # nothing else was touched

    run(test())


def test_a_list_is_overridden() -> None:
    """Later values of the call may refer to it, so that it stays where it is; but in Java's map the last entry counts."""
    call = wire.call(attachments={NAME: ["Hash=forged"], "list": ["a"]})

    async def test() -> None:
        for tls in (True, False):
            frames, _ = await ask("SANITIZE_SET", call, tls=tls)
            (message,) = DubboCodec(HeadMemo()).receive_data(frames[0])
            assert isinstance(message, DubboMessage)
            assert message.attachments is not None
            assert message.attachments.values.get(NAME.encode()) == (OWN if tls else None)
            assert message.attachments.others == {b"list"}

    run(test())


@pytest.mark.parametrize("tls", [True, False])
def test_no_spelling_gets_through(tls: bool) -> None:
    """A provider may read names without regard to case, or take the first of two."""
    pairs = {"X-Forwarded-Client-Cert": "Hash=forged", "x-FORWARDED-client-cert": "Hash=forged", NAME: "Hash=forged"}
    twice = wire.string(NAME) + wire.string("Hash=other") + b"Z"
    call = wire.call(attachments=pairs)
    call = wire.frame(call[2], 0, 1, call[16:-1] + twice)
    assert call.lower().count(NAME.encode()) == 4

    async def test() -> None:
        frames, _ = await ask("SANITIZE_SET", call, tls=tls)
        assert b"forged" not in frames[0]
        assert b"Hash=other" not in frames[0]
        assert forwarded(frames[0]) == (OWN if tls else None)

    run(test())


def test_what_nobody_can_read_is_refused() -> None:
    """Kryo: the attachments are there, and a provider would read them."""
    opaque = bytearray(FORGED)
    opaque[2] = opaque[2] & 0xE0 | 8

    async def test() -> None:
        for mode in ("SANITIZE", "SANITIZE_SET", "APPEND_FORWARD"):
            frames, answers = await ask(mode, bytes(opaque), PLAIN)
            assert len(frames) == 1
            assert [answer[3] for answer in answers] == [40, 20]
        frames, answers = await ask("FORWARD_ONLY", bytes(opaque))
        assert len(frames) == 1
        frames, answers = await ask("FORWARD_ONLY", bytes(opaque), shown=False)
        assert (frames, answers[0][3]) == ([], 40)

    run(test())


def test_filters_and_routes_see_it() -> None:
    """RBAC by the attachment, which only the proxy can have written."""
    kind = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
    wanted = json.dumps(OWN.decode())
    rules = (
        f"{{p: {{permissions: [{{any: true}}], principals: [{{header: {{name: {NAME}, string_match: {{exact: {wanted}}}}}}}]}}}}"
    )
    rbac = f'{{name: rbac, config: {{"@type": {kind}, rules: {{policies: {rules}}}}}}}'
    forged = wire.call(attachments={NAME: OWN.decode()})

    async def test() -> None:
        frames, answers = await ask("SANITIZE_SET", PLAIN, filters=rbac)
        assert (len(frames), answers[0][3]) == (1, 20)
        frames, answers = await ask("SANITIZE_SET", forged, filters=rbac, shown=False)
        assert (frames, answers[0][3]) == ([], 80)

    run(test())


@pytest.mark.parametrize("filters", ["", LABELS], ids=["plain", "filters that repeat what they did"])
def test_callers_keep_their_own_names(filters: str) -> None:
    """Calls of one method share their head, never a certificate."""
    others = [MESH.workload(f"caller-{i}") for i in range(3)]

    async def test() -> None:
        provider = Provider(lambda frame: wire.answer(id_of(frame), "hi"))
        async with endpoint(provider.serve, None) as address:
            text = bootstrap({"a": [address]}, manager=manager("SANITIZE_SET"), dubbo_filters=filters)
            text = text.replace("    - filters:\n", f"    - transport_socket: {SOCKET}\n      filters:\n")
            async with plane(text) as one:
                port = next(iter(one.ports.values()))
                for pair in (*others, None, *others):
                    context = client(MESH.pem, pair=pair)
                    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="p")
                    for number in range(CALLS):
                        writer.write(wire.call(request_id=number))
                        await read_frame(reader)
                    writer.transport.abort()
        found = [forwarded(frame) or b"" for frame in provider.frames]
        expected = [
            f"spiffe://mesh.local/caller-{i}" if i is not None else "" for i in (0, 1, 2, None, 0, 1, 2) for _ in range(CALLS)
        ]
        assert [value.decode().partition("URI=")[2].partition(";")[0] for value in found] == expected
        assert {attachments(frame).get(b"dubbo.tag") for frame in provider.frames} == {b"gray" if filters else None}

    run(test())


def test_access_log_operators(tmp_path: Path) -> None:
    """The names of the peer, and of a call that was refused."""
    kind = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    names = ("DOWNSTREAM_PEER_URI_SAN", "DOWNSTREAM_PEER_SUBJECT", "DOWNSTREAM_LOCAL_URI_SAN", "DOWNSTREAM_TLS_VERSION")
    line = " ".join(f"%{name}%" for name in (*names, "RESPONSE_CODE_DETAILS"))
    text = f'log_format: {{text_format_source: {{inline_string: "{line}\\n"}}}}'
    log = f"{{name: f, typed_config: {{'@type': {kind}, path: \"{tmp_path}/log\", {text}}}}}"
    opaque = bytearray(FORGED)
    opaque[2] = opaque[2] & 0xE0 | 8

    async def test() -> None:
        await ask(f"SANITIZE_SET, access_log: [{log}]", PLAIN, bytes(opaque))

    run(test())
    who = "spiffe://mesh.local/consumer CN=shop spiffe://mesh.local/provider TLSv1.3"
    assert (tmp_path / "log").read_text().splitlines() == [f"{who} via_upstream", f"{who} dubbo.client_cert_unreadable"]
