"""Which wheel the tests run against, interpreted or compiled, what of it can be replaced, and whether the processes that tests
start are of the same one."""

from __future__ import annotations

import ast
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent

_found = find_spec("mesh_codecs.events")
COMPILED = _found is not None and str(_found.origin).endswith(".so")
"""Whether `mesh_codecs.events`, and with it all of `compiled.toml`, is machine code here."""


def compiled(target: object) -> bool:
    """Whether a module, or the module of a class or a function, is machine code."""
    module = target if isinstance(target, ModuleType) else sys.modules.get(str(getattr(target, "__module__", "")))
    return str(getattr(module, "__file__", "")).endswith(".so") and str(getattr(module, "__name__", "")).startswith("mesh_")


def bound(target: object, name: str) -> bool:
    """Whether machine code knows this attribute of a module or a class since it was built, and would not see another one: its own
    functions, methods and classes, and `Final` values. It asks for what it imports from elsewhere each time."""
    if not compiled(target):
        return False
    if not isinstance(target, ModuleType) or compiled(getattr(target, name, None)):
        return True
    source = Path(str(target.__file__)).with_name(target.__name__.rpartition(".")[2] + ".py")
    for statement in ast.parse(source.read_text()).body:
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == name:
            return ast.unparse(statement.annotation).startswith("Final")
        if isinstance(statement, ast.ImportFrom) and name in [alias.asname or alias.name for alias in statement.names]:
            return bound(sys.modules[str(statement.module)], name)
    return False


def of_this_build(*pids: int) -> None:
    """A proxy that a test against the compiled wheel started runs the compiled wheel too: with another directory or environment
    it might find the sources instead, and the test would show nothing. One of these processes is the proxy."""
    assert not COMPILED or any(map(_has_machine_code, pids)), f"interpreted: {pids}"


def _has_machine_code(pid: int) -> bool:
    """Whether it has loaded mypyc's shared object."""
    return "__mypyc." in Path(f"/proc/{pid}/maps").read_text()
