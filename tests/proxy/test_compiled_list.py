"""compiled.toml: what it lists is there, and can be compiled."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"mesh_codecs": "codecs/", "mesh_filters": "filters/", "mesh_proxy": "", "mesh_hotrestart": "hotrestart/"}


def listed() -> list[str]:
    folders: dict[str, str] = tomllib.loads((ROOT / "compiled.toml").read_text())["compiled"]
    return [f"{folder}/{name}.py" for folder, names in folders.items() for name in names.split()]


def tree(module: str) -> ast.Module:
    return ast.parse((ROOT / (FOLDERS[module.partition("/")[0]] + module)).read_text())


def dotted(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")


def imported(parsed: ast.Module) -> dict[str, str]:
    """Name -> the module that it is imported from."""
    return {
        alias.asname or alias.name: node.module
        for node in ast.walk(parsed)
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }


def test_every_listed_module_is_there_once() -> None:
    modules = listed()
    assert len(modules) > 100
    assert [module for module in modules if not (ROOT / (FOLDERS[module.partition("/")[0]] + module)).is_file()] == []
    assert sorted(set(modules)) == sorted(modules)


@pytest.mark.parametrize("module", listed())
def test_the_classes_suit_a_compiler(module: str) -> None:
    """A compiled class cannot take over the `__slots__` of an interpreted one. And mypyc looks for the type of a dataclass field
    among the names of the module, where `object` is not: a field that can be anything is `Any`."""
    compiled = {dotted(name) for name in listed()}
    parsed = tree(module)
    origins = imported(parsed)
    for found in (node for node in ast.walk(parsed) if isinstance(node, ast.ClassDef)):
        for base in found.bases:
            name = ast.unparse(base).partition("[")[0]
            origin = origins.get(name, "")
            if origin.startswith("mesh_") and origin not in compiled:
                __import__(origin)
                slots = [getattr(one, "__slots__", ()) for one in getattr(sys.modules[origin], name).__mro__]
                assert not any(slots), f"{found.name}({name}): list {origin} in compiled.toml"
        if any("dataclass" in ast.unparse(decorator) for decorator in found.decorator_list):
            for field in (node for node in found.body if isinstance(node, ast.AnnAssign)):
                assert ast.unparse(field.annotation) != "object", f"{found.name}.{ast.unparse(field.target)}"


def open_to_subclasses(module: str) -> set[str]:
    """The classes of a module that say `@mypyc_attr(allow_interpreted_subclasses=True)`."""
    return {
        found.name
        for found in ast.walk(tree(module))
        if isinstance(found, ast.ClassDef)
        and any("allow_interpreted_subclasses=True" in ast.unparse(decorator) for decorator in found.decorator_list)
    }


def test_nothing_interpreted_derives_from_compiled_classes() -> None:
    """mypyc's classes refuse to be made as interpreted subclasses of them, but for those that allow it."""
    compiled = {dotted(name) for name in listed()}
    allowed = {(dotted(name), found) for name in listed() for found in open_to_subclasses(name)}
    assert ("mesh_codecs.headers", "Headers") in allowed
    wrong = []
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder / package).rglob("*.py"):
            module = dotted(str(path.relative_to(ROOT / folder)))
            if module in compiled:
                continue
            parsed = ast.parse(path.read_text())
            origins = imported(parsed)
            for found in (node for node in ast.walk(parsed) if isinstance(node, ast.ClassDef)):
                bases = [ast.unparse(base).partition("[")[0] for base in found.bases]
                wrong += [
                    f"{module}.{found.name}({base})"
                    for base in bases
                    if origins.get(base) in compiled and (origins[base], base) not in allowed
                ]
    assert wrong == []
