"""`docs/configuration.md` lists exactly the fields that the translation reads.

Its two generated lists are rewritten by `MESH_PROXY_UPDATE_DOCS=1 pytest tests/proxy/config/test_reference.py`.
"""

import os
import re
from pathlib import Path

import pytest
from bootstraps import everything_on
from bootstraps.dubbo import GOOD as DUBBO
from bootstraps.dubbo import OURS as DUBBO_OURS
from bootstraps.dynamic import GOOD as DYNAMIC
from bootstraps.good import GOOD, ISTIO
from bootstraps.tls import GOOD as TLS
from envoy.config.bootstrap.v3 import bootstrap_pb2

from mesh_proxy.config import features
from mesh_proxy.config.ignored import IGNORED
from mesh_proxy.config.json_proto import Parser
from mesh_proxy.config.loader import LoadOptions, translate_bootstrap
from mesh_proxy.config.problems import Problems
from mesh_proxy.config.yaml_text import parse_yaml

PAGE = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"
PER_ROUTE = "envoy.config.route.v3.FilterConfig"
READ_WITHOUT_SAMPLE = {f"{PER_ROUTE}.{name}" for name in ("config", "disabled", "is_optional")}
"""only with a registered HTTP filter, see test_registry"""


def documented() -> set[str]:
    fields: set[str] = set()
    message = ""
    for line in PAGE.read_text().splitlines():
        if heading := re.fullmatch(r"### `(.+)`", line):
            message = heading[1]
        elif line.startswith("## "):
            message = ""
        elif message and (row := re.match(r"\| `(\w+)` \| .* \| .* \| .* \|$", line)):
            assert f"{message}.{row[1]}" not in fields, f"{message}.{row[1]} stands there twice"
            fields.add(f"{message}.{row[1]}")
    return fields


def test_every_field_that_is_read_is_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    everything_on(monkeypatch)
    reads: set[str] = set()
    for good in [*GOOD, *DUBBO, *DUBBO_OURS, *TLS, *DYNAMIC, *ISTIO]:
        problems = Problems()
        problems.reads = reads
        message = bootstrap_pb2.Bootstrap()
        Parser(problems).fill(message, parse_yaml(good.text, problems.warn), "")
        translate_bootstrap(message, LoadOptions(), problems)
    reads |= READ_WITHOUT_SAMPLE
    assert reads - documented() == set(), "add rows to docs/configuration.md"
    assert documented() - reads == set(), "nothing reads these (or bootstraps/good.py lacks a sample)"


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("NOT_YET", [f"* `{field}`" for field in features.NOT_YET]),
        ("IGNORED", ["| field | why it is safe |", "|---|---|", *(f"| `{field}` | {why} |" for field, why in IGNORED.items())]),
    ],
)
def test_the_generated_lists_are_current(name: str, lines: list[str]) -> None:
    page = PAGE.read_text()
    begin = f"<!-- generated: {name} -->\n"
    before, _, rest = page.partition(begin)
    old, end, after = rest.partition("<!-- end -->")
    new = "".join(f"{line}\n" for line in lines)
    if os.environ.get("MESH_PROXY_UPDATE_DOCS"):
        PAGE.write_text(before + begin + new + end + after)
    else:
        assert old == new, "run: MESH_PROXY_UPDATE_DOCS=1 .venv/bin/python -m pytest tests/proxy/config/test_reference.py"
