"""The application log."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh_proxy import logs
from mesh_proxy.worker.options import WorkerOptions


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in logs.COMPONENTS:
        logging.getLogger(name).setLevel(logging.NOTSET)


def record(message: str = "hello", level: int = logging.INFO, name: str = "main") -> logging.LogRecord:
    return logging.LogRecord(name, level, "/src/file.py", 7, message, (), None, "function")


def test_the_default_format_is_envoys() -> None:
    line = logs.SpdlogFormatter(logs.DEFAULT_FORMAT).format(record())
    assert re.fullmatch(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\]\[\d+\]\[info\]\[main\] hello", line)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("%v", "a\nb"),
        ("%_", "a\\nb"),
        ('{"m":"%j"}', '{"m":"a\\nb"}'),
        ("[%l][%L] %n %g:%# %s %! %@", "[warning][W] main /src/file.py:7 file.py function file.py:7"),
        ("100%% %^%v%$", "100% a\nb"),
        ("%q", "%q"),
        ("%-5l|", "warning|"),
    ],
)
def test_patterns(pattern: str, expected: str) -> None:
    assert logs.SpdlogFormatter(pattern).format(record("a\nb", logging.WARNING)) == expected


def test_escaping() -> None:
    assert logs.SpdlogFormatter("%v", escape=True).format(record("a\nb")) == "a\\nb"


def test_levels_by_component(tmp_path: Path) -> None:
    path = tmp_path / "log"
    options = WorkerOptions(log_level="warning", component_log_levels=(("upstream", "trace"),), log_path=str(path))
    logs.configure_logging(options)
    logging.getLogger("upstream").log(logs.TRACE, "one")
    logging.getLogger("http").info("two")
    logging.getLogger("some.library").info("three")
    logs.set_levels({"http": "debug", "misc": "info"})
    logging.getLogger("http").info("four")
    logging.getLogger("some.library").info("five")
    logs.set_levels({"http": "off"})
    logging.getLogger("http").critical("six")
    assert [line.rpartition("] ")[2] for line in path.read_text().splitlines()] == ["one", "four", "five"]
    assert "[trace][upstream]" in path.read_text()
    assert logs.current_levels()["http"] == "off"
    assert logs.current_levels()["upstream"] == "trace"


def test_reopening_after_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    logs.configure_logging(WorkerOptions(log_path=str(path)))
    logging.getLogger("main").info("before")
    path.rename(tmp_path / "old")
    logging.getLogger("main").info("still old")
    logs.reopen_log()
    logging.getLogger("main").info("after")
    assert "still old" in (tmp_path / "old").read_text()
    assert "after" in path.read_text()
    assert "before" not in path.read_text()


def test_exceptions_are_one_entry(tmp_path: Path) -> None:
    path = tmp_path / "log"
    logs.configure_logging(WorkerOptions(log_path=str(path), log_format_escaped=True))
    try:
        raise ValueError("wrong")
    except ValueError:
        logging.getLogger("main").exception("failed")
    (line,) = path.read_text().splitlines()
    assert "failed\\nTraceback" in line
    assert line.endswith("ValueError: wrong")


def test_names_are_checked() -> None:
    assert logs.canonical_level("warn") == "warning"
    with pytest.raises(ValueError, match="unknown log level"):
        logs.canonical_level("loud")
