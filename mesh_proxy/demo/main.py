"""`mesh-proxy demo`: start, send, judge, show, stay up until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import signal
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import uvloop

from mesh_proxy.demo.bootstrap import Ports, bootstrap_yaml
from mesh_proxy.demo.denials import try_denials
from mesh_proxy.demo.dubbo_traffic import send_calls
from mesh_proxy.demo.grpc_traffic import send_grpc
from mesh_proxy.demo.identities import Door, make_certificates
from mesh_proxy.demo.processes import AddressTaken, Processes, StartFailed, fetch, free_port, is_free, numbers
from mesh_proxy.demo.report import Report, hints
from mesh_proxy.demo.scenario import DUBBO_RULES, FLAKY_EVERY, GRPC_RULES, WEIGHTED, plan
from mesh_proxy.demo.shop_bootstrap import shop_bootstrap_yaml
from mesh_proxy.demo.traffic import send
from mesh_proxy.demo.upgrade import upgrade_under_load

DIRECT_REQUESTS: Final = 300
"""sent to v1 without the sidecar, for scale"""
WARM_UP_REQUESTS: Final = 20
"""per connection, before the direct ones, so that both measurements meet warm processes"""
SHOP_SIDECAR: Final = "sidecar of the services"
ATTEMPTS: Final = 3
"""to find ports that nobody takes before we do"""
SEED: Final = 1
"""of the order of the requests"""


class _Parser(argparse.ArgumentParser):
    """Exit code 1 for a wrong command line, like mesh-proxy itself."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(1, f"{self.prog}: {message}\n")


def _count(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low} to {high}")
        return int(text)

    return parse


def parser() -> argparse.ArgumentParser:
    """The command line of the demo."""
    found = _Parser(prog="mesh-proxy demo", description="Two versions of a small service behind a sidecar, under traffic.")
    found.add_argument("--once", action="store_true", help="end after the table; exit code 0 if all is as expected, else 1")
    found.add_argument("--requests", type=_count(10, 1_000_000), default=2000, metavar="N", help="how many to send [2000]")
    found.add_argument("--connections", type=_count(1, 256), default=4, metavar="N", help="keep-alive connections [4]")
    found.add_argument("--concurrency", type=_count(1, 64), default=1, metavar="N", help="workers of the sidecar [1]")
    found.add_argument("--listen-port", type=_count(1, 65535), metavar="PORT", help="of the sidecar [10000, or a free one]")
    found.add_argument(
        "--admin-port", type=_count(1, 65535), metavar="PORT", help="of its admin interface [15000, or a free one]"
    )
    found.add_argument("--dubbo-port", type=_count(1, 65535), metavar="PORT", help="of the Dubbo listener [10880, or a free one]")
    found.add_argument("--json", action="store_true", help="the result as JSON on standard output, all else on standard error")
    return found


def main(argv: Sequence[str]) -> int:
    """Run the demo; the exit code."""
    options = parser().parse_args(list(argv))
    try:
        return uvloop.run(_until_told_to_stop(options))
    except StartFailed as error:
        print(f"mesh-proxy demo: {error}", file=sys.stderr)
        return 1


async def _until_told_to_stop(options: argparse.Namespace) -> int:
    """The demo as a task that SIGINT and SIGTERM cancel, so that everything is stopped in order. Stopping is not interrupted."""
    task = asyncio.ensure_future(_demo(options))
    stopped: list[int] = []

    def stop(number: int) -> None:
        if not stopped:
            stopped.append(number)
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, int(number))
    try:
        return await task
    except asyncio.CancelledError:
        # Ctrl-C is how a demo that stays up ends; with --once it means that there is no result.
        return 128 + stopped[0] if options.once else 0


async def _demo(options: argparse.Namespace) -> int:
    out = sys.stderr if options.json else sys.stdout

    def say(text: str) -> None:
        print(text, file=out, flush=True)

    with tempfile.TemporaryDirectory(prefix="mesh-proxy-demo-") as name:
        folder = Path(name)
        async with Processes(folder) as processes:
            say("Starting shop v1, shop v2, a flaky service, and the shop as Dubbo and as gRPC, v1 and v2 each …")
            certs = folder / "certs"
            making = asyncio.ensure_future(asyncio.to_thread(make_certificates, certs))
            try:
                v1, v2, flaky, dubbo_v1, dubbo_v2, grpc_v1, grpc_v2 = await asyncio.gather(
                    processes.service("v1"),
                    processes.service("v2"),
                    processes.service("flaky", "--fail-every", str(FLAKY_EVERY)),
                    processes.provider("v1"),
                    processes.provider("v2"),
                    processes.grpc_service("v1"),
                    processes.grpc_service("v2"),
                )
            finally:
                await making  # before the folder can go
            services = Ports(v1=v1, v2=v2, flaky=flaky, dubbo_v1=dubbo_v1, dubbo_v2=dubbo_v2, grpc_v1=grpc_v1, grpc_v2=grpc_v2)
            ports, sidecar = await _sidecars(options, processes, folder, services, say)
            say(
                f"It listens on 127.0.0.1:{ports.listen} (HTTP, gRPC) and {ports.dubbo} (Dubbo); "
                f"admin interface: http://127.0.0.1:{ports.admin}/"
            )
            say(f"Sending {options.requests} requests, Dubbo calls and gRPC calls each over {options.connections} connections …")
            report = await _traffic(options, ports)
            say("Calling the services as somebody who may not …")
            report.denials = await try_denials(ports, certs, options.connections)
            say("Upgrading the caller's sidecar (SIGHUP) while requests go on …")
            begin = functools.partial(sidecar.send_signal, signal.SIGHUP)
            report.upgrade = await upgrade_under_load(ports.listen, ports.admin, options.connections, begin)
            report.check()
            if options.json:
                print(json.dumps(report.as_json(), indent=1), flush=True)
            say(f"\n{report.text()}\n")
            if options.once:
                return 1 if report.problems else 0
            say(hints(ports, folder))
            raise StartFailed(await processes.first_end())


async def _sidecars(
    options: argparse.Namespace, processes: Processes, folder: Path, services: Ports, say: Callable[[str], None]
) -> tuple[Ports, Process]:
    """Start that of the caller and that of the services, at the same time; all ports, and the caller's. Raises StartFailed."""
    web, shop = folder / "bootstrap.yaml", folder / "shop.yaml"
    command = f"mesh-proxy -c {web} --concurrency {options.concurrency}"
    say(f"Starting the caller's sidecar, and that of the services: {command}")
    for attempt in range(ATTEMPTS):
        ports = _ports(options, services, usual=attempt == 0)
        certs = str(folder / "certs")
        web.write_text(bootstrap_yaml(ports, certs=certs, access_log=str(folder / "access.log"), command=command))
        shop.write_text(shop_bootstrap_yaml(ports, certs=certs, command=f"mesh-proxy -c {shop}"))
        started = await asyncio.gather(
            processes.sidecar(web, ports.admin, options.concurrency),
            processes.sidecar(shop, ports.shop_admin, options.concurrency, SHOP_SIDECAR),
            return_exceptions=True,
        )
        failed = [one for one in started if isinstance(one, BaseException)]
        if not failed:
            assert isinstance(started[0], Process)
            return ports, started[0]
        told = isinstance(started[0], AddressTaken) and any(_told(options))
        if told or attempt == ATTEMPTS - 1 or not all(isinstance(one, AddressTaken) for one in failed):
            break
        # Taken between our look and its bind, by a demo that started at the same moment.
        for name in ("sidecar", SHOP_SIDECAR):
            await processes.stop(name)
    raise failed[0]


def _told(options: argparse.Namespace) -> tuple[int | None, int | None, int | None]:
    """The ports that the command line names."""
    return options.listen_port, options.admin_port, options.dubbo_port


def _ports(options: argparse.Namespace, services: Ports, usual: bool) -> Ports:
    """Of the sidecars: as told, else the usual ones if all are free, else any. Raises StartFailed.

    Never one of the usual and one other: two sidecars could then share a listening port (SO_REUSEPORT) without either noticing.
    """
    told = _told(options)
    for port in told:
        if port and not is_free(port):
            raise StartFailed(f"cannot bind 127.0.0.1:{port}: somebody listens there already, or it is not for us")
    if usual and not any(told):
        wanted = (services.listen, services.admin, services.dubbo, services.shop, services.shop_admin)
        if all(is_free(port) for port in wanted):
            return services
    taken = {port for port in told if port}
    listen, admin, dubbo, shop, shop_admin = (port or _another(taken) for port in (*told, None, None))
    return replace(services, listen=listen, admin=admin, dubbo=dubbo, shop=shop, shop_admin=shop_admin)


def _another(taken: set[int]) -> int:
    """A free port that is none of these, and from now on one of them."""
    while (port := free_port()) in taken:
        pass
    taken.add(port)
    return port


async def _traffic(options: argparse.Namespace, ports: Ports) -> Report:
    connections = options.connections
    service, sidecar = Door(ports.v1), Door(ports.listen)
    await send([WEIGHTED] * (WARM_UP_REQUESTS * connections), service, connections)
    straight = await send([WEIGHTED] * DIRECT_REQUESTS, service, connections)
    began = time.monotonic()
    results = await send(plan(options.requests, SEED), sidecar, connections, _progress(options.requests))
    calls = await send_calls(plan(options.requests, SEED, DUBBO_RULES), Door(ports.dubbo), connections)
    grpc = await send_grpc(plan(options.requests, SEED, GRPC_RULES), sidecar, connections)
    seconds = time.monotonic() - began
    stats = numbers(await asyncio.to_thread(fetch, ports.admin, "/stats"))
    memory = await asyncio.to_thread(fetch, ports.admin, "/memory?by_process")
    report = Report(
        results=results,
        direct=straight[WEIGHTED.name].latencies,
        seconds=seconds,
        retries=stats.get("cluster.flaky.upstream_rq_retry", 0),
        counted=stats.get("http.demo.downstream_rq_http1_total", 0),
        memory=_memory(memory),
        dubbo=calls,
        grpc=grpc,
        grpc_counted=stats.get("http.demo.downstream_rq_http2_total", 0),
        dubbo_counted=stats.get("dubbo.demo.request", 0),
        dubbo_connections=sum(stats.get(f"cluster.dubbo-{name}.upstream_cx_total", 0) for name in ("v1", "v2")),
    )
    return report


def _progress(total: int) -> Callable[[int], None]:
    """Counts in place on a terminal, and says nothing to a file."""
    if not sys.stderr.isatty():
        return lambda done: None
    step = max(1, total // 100)

    def progress(done: int) -> None:
        if done % step == 0 or done >= total:
            print(f"\r  {done} of {total}", end="\r" if done >= total else "", file=sys.stderr, flush=True)

    return progress


def _memory(text: str) -> dict[str, int]:
    """Role -> PSS in bytes, of the page /memory?by_process."""
    try:
        return {str(process["name"]): int(process["pss"]) for process in json.loads(text)["processes"]}
    except (ValueError, KeyError):  # the kernel does not say, or the page did not come
        return {}
