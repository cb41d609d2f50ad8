"""Imports run one way: mesh_proxy -> mesh_filters, mesh_hotrestart, mesh_codecs; mesh_filters -> mesh_codecs."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "mesh_codecs": ROOT / "codecs" / "mesh_codecs",
    "mesh_hotrestart": ROOT / "hotrestart" / "mesh_hotrestart",
    "mesh_filters": ROOT / "filters" / "mesh_filters",
    "mesh_proxy": ROOT / "mesh_proxy",
}
ALLOWED = {
    "mesh_codecs": {"mesh_codecs"},
    "mesh_hotrestart": {"mesh_hotrestart"},
    "mesh_filters": {"mesh_filters", "mesh_codecs"},
    "mesh_proxy": set(PACKAGES),
}


def imported_packages(source: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names & set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    sources = sorted(PACKAGES[package].rglob("*.py"))
    assert sources
    wrong = {
        str(s.relative_to(ROOT)): found - ALLOWED[package] for s in sources if (found := imported_packages(s)) - ALLOWED[package]
    }
    assert not wrong


@pytest.mark.parametrize("folder", ["codecs", "filters", "hotrestart", "tests", "bench", "docker"])
def test_folders_that_are_no_packages(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists(), "it would shadow a package (codecs: the standard library's)"
