from __future__ import annotations

import os
from pathlib import Path

from mesh_proxy.upstream.dns_config import ResolvConf, SystemFiles, candidates, parse_hosts, parse_resolv_conf


def test_resolv_conf() -> None:
    conf = parse_resolv_conf(
        """
# a comment
nameserver 10.96.0.10 ; another
nameserver fe80::1%eth0
nameserver not-an-address
nameserver 10.0.0.1
nameserver 10.0.0.2
domain gone.test
search ns.svc.cluster.local svc.cluster.local. cluster.local
options ndots:5 timeout:2 attempts:3 rotate edns0 ndots:x
unknown words
"""
    )
    assert conf == ResolvConf(
        servers=("10.96.0.10", "fe80::1%eth0", "10.0.0.1"),
        search=("ns.svc.cluster.local", "svc.cluster.local", "cluster.local"),
        ndots=5,
        timeout_s=2.0,
        attempts=3,
        rotate=True,
    )


def test_resolv_conf_defaults_and_limits() -> None:
    assert parse_resolv_conf("") == ResolvConf()
    conf = parse_resolv_conf("options ndots:99 timeout:0 attempts:0\noptions timeout:99 attempts:99\ndomain a.test\nnameserver\n")
    assert (conf.ndots, conf.timeout_s, conf.attempts, conf.search) == (15, 30.0, 5, ("a.test",))
    conf = parse_resolv_conf("options timeout:0 attempts:0")
    assert (conf.timeout_s, conf.attempts) == (1.0, 1)


def test_hosts() -> None:
    hosts = parse_hosts(
        "127.0.0.1 localhost\n::1 localhost ip6-loopback # x\n10.0.0.1 a.test A b.\nbad c.test\n10.0.0.2\n127.0.0.1 localhost"
    )
    assert hosts == {
        "localhost": ("127.0.0.1", "::1"),
        "ip6-loopback": ("::1",),
        "a.test": ("10.0.0.1",),
        "a": ("10.0.0.1",),
        "b": ("10.0.0.1",),
    }


def test_candidates() -> None:
    conf = ResolvConf(search=("x.test", "test"), ndots=2)
    assert candidates("a.b", conf) == ["a.b.x.test", "a.b.test", "a.b"]
    assert candidates("a.b.c", conf) == ["a.b.c", "a.b.c.x.test", "a.b.c.test"]
    assert candidates("a.", conf) == ["a"]
    assert candidates("a", ResolvConf()) == ["a"]


def test_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    resolv, hosts = tmp_path / "resolv.conf", tmp_path / "hosts"
    files = SystemFiles(str(resolv), str(hosts))
    assert files.conf() == ResolvConf()
    assert files.hosts() == {}
    resolv.write_text("nameserver 10.0.0.1\n")
    hosts.write_text("10.0.0.9 a\n")
    assert files.conf().servers == ("10.0.0.1",)
    before = files.hosts()
    assert before == {"a": ("10.0.0.9",)}
    assert files.hosts() is before
    hosts.write_text("10.0.0.8 a\n10.0.0.7 b\n")
    assert files.hosts()["b"] == ("10.0.0.7",)
    os.unlink(resolv)
    assert files.conf() == ResolvConf()
