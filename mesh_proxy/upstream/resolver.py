"""Looking up names: a stub resolver on the event loop, with time to live, and without threads.

It does what c-ares does for Envoy: the hosts file first, then the servers and the search list of resolv.conf, over UDP, and
over TCP when an answer was cut. A server that fails or stays silent is followed by the next one. A socket is made for every
question, with the kernel's random port, connected to the server, so that nobody else can answer; the message's id is random,
and an answer must repeat the question.

What a look-up yields is one of three: addresses; no addresses, because the name or its addresses do not exist; a failure. Only
so many look-ups run at once, the others wait in line. One that takes longer than its deadline has failed.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from mesh_proxy.tasks import create_task
from mesh_proxy.upstream import dns_message
from mesh_proxy.upstream.dns_config import ResolvConf, SystemFiles, candidates
from mesh_proxy.upstream.dns_message import TYPE_A, TYPE_AAAA, Response

_log = logging.getLogger("dns")

MOST_LOOKUPS = 64
"""at once; each has one or two sockets open"""
LOOKUP_DEADLINE_S = 20.0
"""c-ares as Envoy sets it up gives up after 4 tries of 5 s"""
DNS_PORT = 53
_LOOPBACK = {TYPE_A: "127.0.0.1", TYPE_AAAA: "::1"}


class Answer(NamedTuple):
    """What a name stands for."""

    addresses: list[str]
    """none: there is no such name, or no address of that family"""
    ttl_s: float | None = None
    """how long that is true; None: not known"""


Done = Callable[[Answer | None], None]
"""takes the answer; None is a failure"""


class Query:
    """One look-up that was asked for."""

    __slots__ = ("done", "family", "finished", "name", "task")

    def __init__(self, name: str, family: str, done: Done) -> None:
        self.name = name
        self.family = family
        self.done = done
        self.finished = False
        self.task: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        """The answer is not wanted any more."""
        self.finished = True
        if self.task is not None:
            self.task.cancel()

    def finish(self, answer: Answer | None) -> None:
        """Report once."""
        if not self.finished:
            self.finished = True
            self.done(answer)


class Resolver(Protocol):
    """What a DNS cluster needs."""

    def resolve(self, name: str, family: str, done: Done) -> Query:
        """Look a name up by `dns_lookup_family`; `done` is called on the loop, never from within this call."""

    def close(self) -> None:
        """No further answers."""


class LookupFailed(Exception):
    """No server gave a usable answer."""


class StubResolver:
    """The resolver of a worker."""

    __slots__ = ("_active", "_deadline_s", "_files", "_loop", "_most", "_port", "_waiting")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        files: SystemFiles | None = None,
        port: int = DNS_PORT,
        most: int = MOST_LOOKUPS,
        deadline_s: float = LOOKUP_DEADLINE_S,
    ) -> None:
        self._loop = loop
        self._files = files or SystemFiles()
        self._port = port
        self._most = most
        self._deadline_s = deadline_s
        self._active: set[Query] = set()
        self._waiting: deque[Query] = deque()
        """look-ups in line; their deadline does not run yet"""

    def resolve(self, name: str, family: str, done: Done) -> Query:
        """See `Resolver.resolve`."""
        query = Query(name, family, done)
        self._waiting.append(query)
        self._loop.call_soon(self._feed)  # a task needs a running loop
        return query

    def _feed(self) -> None:
        while self._waiting and len(self._active) < self._most:
            query = self._waiting.popleft()
            if not query.finished:
                self._active.add(query)
                query.task = create_task(self._run(query), name=f"dns {query.name}")
                query.task.add_done_callback(functools.partial(self._ended, query))

    def _ended(self, query: Query, _: asyncio.Task[None]) -> None:
        self._active.discard(query)
        self._feed()

    def close(self) -> None:
        """See `Resolver.close`."""
        self._waiting.clear()
        for query in tuple(self._active):
            query.cancel()

    async def _run(self, query: Query) -> None:
        try:
            async with asyncio.timeout(self._deadline_s):
                answer: Answer | None = await self.look_up(query.name, query.family)
        except (LookupFailed, TimeoutError) as error:
            _log.debug("look-up of %s: %s", query.name, error or "deadline")
            answer = None
        query.finish(answer)

    async def look_up(self, name: str, family: str) -> Answer:
        """Addresses by `dns_lookup_family`. Raises LookupFailed."""
        if family in ("V4_ONLY", "V6_ONLY"):
            return await self._one_family(name, TYPE_A if family == "V4_ONLY" else TYPE_AAAA)
        if family == "ALL":
            both = await asyncio.gather(self._one_family(name, TYPE_AAAA), self._one_family(name, TYPE_A), return_exceptions=True)
            return _merge(both)
        first, second = (TYPE_A, TYPE_AAAA) if family == "V4_PREFERRED" else (TYPE_AAAA, TYPE_A)
        try:
            answer = await self._one_family(name, first)
            if answer.addresses:
                return answer
        except LookupFailed:  # some servers fail for a family instead of saying that there is nothing
            pass
        return await self._one_family(name, second)

    async def _one_family(self, name: str, record_type: int) -> Answer:
        local = self._local(name.lower().removesuffix("."), record_type)
        if local is not None:
            return Answer(local)
        conf = self._files.conf()
        failure: LookupFailed | None = None
        for candidate in candidates(name, conf):
            try:
                response = await self._ask_servers(candidate, record_type, conf)
            except LookupFailed as error:
                failure = error
                continue
            if response.addresses:
                return Answer(list(response.addresses), float(response.ttl_s))
        if failure is not None:  # the name may well exist
            raise failure
        return Answer([])

    def _local(self, name: str, record_type: int) -> list[str] | None:
        """From the hosts file; localhost is always known (RFC 6761, 6.3). None: ask the servers."""
        addresses = self._files.hosts().get(name)
        version = 4 if record_type == TYPE_A else 6
        if addresses is not None:
            return [address for address in addresses if ipaddress.ip_address(address).version == version]
        if name == "localhost" or name.endswith(".localhost"):
            return [_LOOPBACK[record_type]]
        return None

    async def _ask_servers(self, name: str, record_type: int, conf: ResolvConf) -> Response:
        servers = conf.servers
        if conf.rotate and len(servers) > 1:
            start = secrets.randbelow(len(servers))
            servers = servers[start:] + servers[:start]
        failure = LookupFailed(f"{name}: no server")
        for _ in range(conf.attempts):
            for server in servers:
                try:
                    async with asyncio.timeout(conf.timeout_s):
                        return await self._ask(server, name, record_type)
                except OSError as error:  # a time-out is one too
                    failure = LookupFailed(f"{name}: server {server}: {error or 'no answer in time'}")
                except (dns_message.BadMessage, LookupFailed) as error:
                    failure = LookupFailed(f"{name}: server {server}: {error}")
                except dns_message.BadName as error:
                    raise LookupFailed(str(error)) from error
        raise failure

    async def _ask(self, server: str, name: str, record_type: int) -> Response:
        """One server's word: an answer, also that there is nothing. Raises LookupFailed for any other."""
        response = await self._exchange(server, name, record_type, edns=True)
        if response.code in (dns_message.FORMERR, dns_message.NOTIMP):  # it knows no EDNS
            response = await self._exchange(server, name, record_type, edns=False)
        if response.code not in (dns_message.NOERROR, dns_message.NXDOMAIN):
            raise LookupFailed(f"response code {response.code}")
        return response

    async def _exchange(self, server: str, name: str, record_type: int, *, edns: bool) -> Response:
        message_id = secrets.randbits(16)
        question = _Question(message_id, name.lower(), record_type)
        message = dns_message.encode_query(message_id, name, record_type, edns=edns)
        transport, protocol = await self._loop.create_datagram_endpoint(
            lambda: _Datagrams(self._loop, question), remote_addr=(server, self._port)
        )
        try:
            transport.sendto(message)
            response = await protocol.response
        finally:
            transport.close()
        if response.truncated:
            response = await self._over_tcp(server, message, question)
        return response

    async def _over_tcp(self, server: str, message: bytes, question: _Question) -> Response:
        reader, writer = await asyncio.open_connection(server, self._port)
        try:
            writer.write(len(message).to_bytes(2, "big") + message)
            size = int.from_bytes(await reader.readexactly(2), "big")
            response = dns_message.decode_response(await reader.readexactly(size))
        except asyncio.IncompleteReadError as error:
            raise LookupFailed("connection closed") from error
        finally:
            writer.close()
        if not question.is_answered_by(response):
            raise LookupFailed("an answer to another question")
        return response


def _merge(both: Iterable[Answer | BaseException]) -> Answer:
    both = tuple(both)
    answers = [one for one in both if isinstance(one, Answer)]
    addresses = [address for answer in answers for address in answer.addresses]
    if not addresses:
        for one in both:
            if isinstance(one, BaseException):
                raise one
    ttls = [answer.ttl_s for answer in answers if answer.ttl_s is not None and answer.addresses]
    return Answer(addresses, min(ttls) if ttls else None)


class _Question(NamedTuple):
    message_id: int
    name: str
    record_type: int

    def is_answered_by(self, response: Response) -> bool:
        return (response.message_id, response.name, response.record_type) == self


class _Datagrams(asyncio.DatagramProtocol):
    """Waits for the one datagram that answers the question."""

    def __init__(self, loop: asyncio.AbstractEventLoop, question: _Question) -> None:
        self.response: asyncio.Future[Response] = loop.create_future()
        self._question = question

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        """Take the answer; pass over what is not one, for anybody may send it with a forged address."""
        try:
            response = dns_message.decode_response(data)
        except dns_message.BadMessage:
            return
        if self._question.is_answered_by(response) and not self.response.done():
            self.response.set_result(response)

    def error_received(self, exc: Exception) -> None:
        """The server's host says that nobody listens there."""
        if not self.response.done():
            self.response.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed, by us after all."""
        if not self.response.done():
            self.response.cancel()
