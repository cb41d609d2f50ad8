"""The Grafana dashboard asks for metrics that there are."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e_support import Sidecar
from e2e_support.config import one_listener

pytestmark = pytest.mark.slow
DASHBOARD = Path(__file__).parents[2] / "docker" / "monitoring" / "dashboard.json"


def test_every_metric_is_there(start: Callable[..., Sidecar]) -> None:
    sidecar = start(one_listener("up.a"))
    connection = http.client.HTTPConnection("127.0.0.1", sidecar.port("in"), timeout=30)
    connection.request("GET", "/")
    assert connection.getresponse().read() is not None
    connection.close()
    scrape = sidecar.admin("/stats/prometheus").body.decode()
    names = set(re.findall(r"^(\w+)", scrape, re.MULTILINE))
    labels = set(re.findall(r"[{,](\w+)=", scrape))
    dashboard = json.loads(DASHBOARD.read_text())
    questions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    questions += [one["query"] for one in dashboard["templating"]["list"]]
    assert len(questions) > 10
    for question in questions:
        for metric in re.findall(r"envoy_\w+", question):
            assert metric in names | labels, f"{metric} in {question}"
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
