"""Random route tables, random requests: both proxies must take the same route every time.

The tables are small and their words few, so that prefixes nest, conditions overlap and configured order decides. Each seed is one
connection manager with 30 virtual hosts and one case of 400 requests; the answer's body names the route.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from parity import Case, Client, Observation, Pair, Side, Suite, bootstrap, http, req

pytestmark = pytest.mark.envoy

SEEDS = range(4)
HOSTS = 30
REQUESTS = 400

Tree = dict[str, Any]


def string_match(rng: random.Random) -> Tree:
    kind = rng.choice(["exact", "prefix", "suffix", "contains", "regex"])
    if kind == "regex":
        return {"safe_regex": {"regex": rng.choice(["a.*", "[0-9]+", "(?i)ab", "a|b", ".*"])}}
    words = ["a", "ab", "B", "aB", "1", "a,b", "x=y"] + ([""] if kind == "exact" else [])
    match: Tree = {kind: rng.choice(words)}
    if rng.random() < 0.3:
        match["ignore_case"] = True
    return match


def header(rng: random.Random) -> Tree:
    match: Tree = {"name": rng.choice(["x-a", "x-b", "x-n", ":method", ":path", ":authority", "host", ":scheme"])}
    kind = rng.choice(["string", "range", "present"])
    if kind == "string":
        match["string_match"] = string_match(rng)
    elif kind == "range":
        start = rng.randrange(-3, 5)
        match["range_match"] = {"start": start, "end": start + rng.randrange(1, 6)}
    else:
        match["present_match"] = rng.random() < 0.6
    match["invert_match"] = rng.random() < 0.3
    match["treat_missing_header_as_empty"] = rng.random() < 0.3
    return match


def query_parameter(rng: random.Random) -> Tree:
    match: Tree = {"name": rng.choice(["a", "b", "q"])}
    if rng.random() < 0.4:
        return match | {"present_match": rng.random() < 0.7}
    return match | {"string_match": string_match(rng)}


def route(rng: random.Random, number: int) -> Tree:
    kind = rng.choice(["prefix", "prefix", "path", "path_separated_prefix", "safe_regex", "connect_matcher"])
    match: Tree
    if kind == "safe_regex":
        match = {kind: {"regex": rng.choice(["/a.*", "/[ab]+", "/a/[^/]+", "/.*", "(?i)/AB"])}}
    elif kind == "connect_matcher":
        match = {kind: {}}
    else:
        paths = ["/a", "/ab", "/a/b", "/b"] + (["/", "/A", "/a/", "/b/c"] if kind != "path_separated_prefix" else [])
        match = {kind: rng.choice(paths), "case_sensitive": rng.random() > 0.25}
    if rng.random() < 0.5:
        match["headers"] = [header(rng) for _ in range(rng.randrange(1, 3))]
    if rng.random() < 0.3:
        match["query_parameters"] = [query_parameter(rng)]
    return {"match": match, "direct_response": {"status": 200, "body": {"inline_string": f"r{number}"}}}


def table(seed: int) -> Tree:
    rng = random.Random(seed)
    hosts = [
        {"name": f"h{n}", "domains": [f"h{n}.test"], "routes": [route(rng, r) for r in range(rng.randrange(1, 24))]}
        for n in range(HOSTS)
    ]
    return {
        "virtual_hosts": hosts,
        "ignore_path_parameters_in_path_matching": seed % 2 == 1,
        "ignore_port_in_host_matching": True,
    }


def random_request(rng: random.Random) -> tuple[str, bytes]:
    authority = f"h{rng.randrange(HOSTS)}.test"
    if rng.random() < 0.1:
        authority = authority.upper()
    if rng.random() < 0.1:
        authority += ":80"
    target = rng.choice(
        ["/", "/a", "/ab", "/a/b", "/a/", "/A", "/AB", "/b", "/b/c", "/a/b/c", "/abc", "/a;x", "/a;x/b", "/a;x;z"]
    )
    if rng.random() < 0.4:
        target += "?" + rng.choice(["a=1", "a", "q=ab&a=a", "b=B&b=1", "a=&q", "q=a%62", "a=1&a=2", "&&a=ab", "=1", "a;/b?/c"])
    values = ["a", "ab", "aB", "1", "", "a,b", "-2", "4 ", "007", "3x", "99999999999999999999"]
    lines = [f"{rng.choice(['x-a', 'x-b', 'x-n'])}: {rng.choice(values)}" for _ in range(rng.randrange(0, 4))]
    method = rng.choice(["GET", "POST", "OPTIONS"])
    return method, req(method, target, *lines, host=authority)


def all_requests(seed: int) -> Any:
    def run(pair: Pair, side: Side, seen: Observation) -> None:
        rng = random.Random(1000 + seed)
        client = Client(side, f"seed{seed}")
        for number in range(REQUESTS):
            method, data = random_request(rng)
            client.send(data)
            answer = client.response(method)
            taken = answer.body.decode() if answer.status == 200 else str(answer.status)
            seen.notes[f"{number} {data.decode('latin-1')}"] = taken
            if dict(answer.headers).get("connection") == "close":
                client.close()
                client = Client(side, f"seed{seed}")
        client.close()

    return run


SUITE = Suite(
    bootstrap([http(f"seed{seed}", table(seed)) for seed in SEEDS], []),
    tuple(Case(f"seed_{seed}", run=all_requests(seed), listener=f"seed{seed}", log=REQUESTS) for seed in SEEDS),
)


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_random_routes(pair: Pair, case: Case) -> None:
    pair.check(case)
