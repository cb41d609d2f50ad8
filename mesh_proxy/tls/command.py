"""`mesh-proxy certs`: a throw-away mesh authority and workload certificates, for demos and tests."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def parser(prog: str) -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog=f"{prog} certs",
        description="Make an authority and a certificate for each workload: root.pem, NAME.pem and NAME.key in a directory. "
        "The authority's own key is not kept. For demos and tests, not for a mesh that anybody relies on.",
    )
    found.add_argument("workload", nargs="+", metavar="NAME", help="a workload; NAME=PATH gives its SPIFFE id that path")
    found.add_argument("-d", "--directory", type=Path, default=Path("certs"), help="where to put the files [certs]")
    found.add_argument("--trust-domain", default="mesh.local", metavar="NAME", help="[mesh.local]")
    found.add_argument("--dns", action="append", default=[], metavar="NAME", help="a DNS name for all; may be repeated")
    found.add_argument("--days", type=float, default=30.0, metavar="N", help="how long the certificates are valid [30]")
    found.add_argument("--key", choices=("ec", "rsa"), default="ec", help="kind of the workloads' keys [ec]")
    found.add_argument(
        "--crl-url",
        default="",
        metavar="URL",
        help="where the certificates say that the revocation list is; it is written as root.crl, to be served there, and as "
        "root.crl.pem, for `crl` in a configuration. It is empty, as the key that could revoke is not kept",
    )
    return found


def certs(arguments: Sequence[str], prog: str) -> int:
    """Run it; the exit code."""
    options = parser(prog).parse_args(arguments)
    workloads: dict[str, str] = {}
    for entry in options.workload:
        name, _, path = entry.partition("=")
        if not name or "/" in name or name == "root":
            print(f"{prog} certs: {name!r} is no name of a file of its own", file=sys.stderr)
            return 1
        workloads[name] = path or name
    try:
        identities = make(
            options.directory,
            options.trust_domain,
            workloads,
            dns=options.dns,
            days=options.days,
            key=options.key,
            crl_url=options.crl_url,
        )
    except OSError as error:
        print(f"{prog} certs: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    for name, identity in identities.items():
        print(f"{options.directory / name}.pem  {identity}")
    return 0


def make(
    directory: Path,
    trust_domain: str,
    workloads: Mapping[str, str],
    *,
    dns: Sequence[str] = (),
    days: float = 30.0,
    key: str = "ec",
    crl_url: str = "",
) -> dict[str, str]:
    """Write the files of an authority and its workloads (name -> path of the SPIFFE id); name -> SPIFFE id. Raises OSError."""
    from mesh_proxy.tls.authority import Authority, new_key  # brings `cryptography`

    authority = Authority(trust_domain, days=days)
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / "root.pem", authority.pem, 0o644)
    identities = {}
    for name, path in workloads.items():
        identities[name] = identity = f"spiffe://{trust_domain}/{path}"
        pair = authority.issue(
            uris=[identity], dns=dns, valid_for=datetime.timedelta(days=days), key=new_key(key), crl_url=crl_url
        )
        _write(directory / f"{name}.pem", pair.chain, 0o644)
        _write(directory / f"{name}.key", pair.key, 0o600)
    if crl_url:
        _write(directory / "root.crl", authority.revocation_list(days=days, der=True), 0o644)
        _write(directory / "root.crl.pem", authority.revocation_list(days=days), 0o644)
    return identities


def _write(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all, and never readable by more than it is meant for."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.replace(draft, path)
