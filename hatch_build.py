"""The compiled wheel: with HATCH_BUILD_HOOK_ENABLE_CUSTOM=true mypyc makes C of the modules of `compiled.toml`.

Everything happens in a clean copy of the four packages under `build/`, never in place: an extension module beside a source file
would be imported instead of it. The wheel holds both, so that tracebacks can show the source. Without the variable, and for
editable installs, it is pure Python as ever.

MESH_PROXY_BUILD_JOBS      how many C compilers run at once [the processors there are]
MESH_PROXY_BUILD_LEVEL     of optimisation: 0 is built in half the time and runs slower [2]
MESH_PROXY_BUILD_SYMBOLS=1 keep the names of the C functions, for profilers
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
PACKAGES = ("mesh_proxy", "codecs/mesh_codecs", "filters/mesh_filters", "hotrestart/mesh_hotrestart")

MYPY_INI = """\
[mypy]
check_untyped_defs = True
ignore_missing_imports = True
"""


def listed(path: Path) -> list[str]:
    """The files of `compiled.toml`, as paths in the wheel."""
    folders: dict[str, str] = tomllib.loads(path.read_text())["compiled"]
    return [f"{folder}/{name}.py" for folder, names in folders.items() for name in names.split()]


def clean_copy(root: Path, to: Path) -> None:
    """The source files of the packages, side by side as in the wheel, and nothing else."""
    shutil.rmtree(to, ignore_errors=True)
    for package in PACKAGES:
        source = root / package
        for path in sorted([*source.rglob("*.py"), *source.rglob("py.typed")]):
            target = to / source.name / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    (to / "mypy.ini").write_text(MYPY_INI)


def what_is_missing() -> str | None:
    """What a compiler of C extensions for this Python needs and this machine has not."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        return f"no C compiler: there is no `{compiler}` on the PATH (the variable CC names another)"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.exists() else f"the headers of this Python are not installed: there is no {header}"


def compile_modules(files: list[str], out: Path) -> None:
    """Run in a clean copy, in a process of its own: make the extension modules of these files."""
    from mypyc.build import mypycify
    from setuptools import setup
    from setuptools.command.build_ext import build_ext

    jobs = int(os.environ.get("MESH_PROXY_BUILD_JOBS", "0")) or len(os.sched_getaffinity(0))
    symbols = bool(os.environ.get("MESH_PROXY_BUILD_SYMBOLS"))
    began = time.monotonic()
    extensions = mypycify(
        ["--config-file", "mypy.ini", *files],
        opt_level=os.environ.get("MESH_PROXY_BUILD_LEVEL", "2"),
        debug_level="0",
        multi_file=True,
        target_dir="c",
    )
    print(f"{len(files)} modules are C after {time.monotonic() - began:.0f} s", flush=True)
    for extension in extensions:
        # One shared object holds all modules and exports one function: calls within it need no table of symbols.
        extension.extra_compile_args.append("-fvisibility=hidden")
        if not symbols:
            extension.extra_link_args.append("-Wl,--strip-all")

    class BuildInParallel(build_ext):
        """setuptools builds extensions at once, but not the sources of one: nearly all of ours belong to one."""

        def build_extensions(self) -> None:
            turns = threading.Semaphore(jobs)
            compile_some = self.compiler.compile

            def compile_one(source: str, options: dict[str, Any]) -> list[str]:
                with turns:
                    start = time.monotonic()
                    objects: list[str] = compile_some([source], **options)
                    if time.monotonic() - start > 15:
                        print(f"{source}: {time.monotonic() - start:.0f} s", flush=True)
                    return objects

            def compile_all(sources: list[str], **options: Any) -> list[str]:
                with ThreadPoolExecutor(jobs) as pool:
                    return [name for names in pool.map(lambda source: compile_one(source, options), sources) for name in names]

            self.compiler.compile = compile_all
            super().build_extensions()

    setup(
        name="compiled",
        ext_modules=extensions,
        cmdclass={"build_ext": BuildInParallel},
        script_args=["--quiet", "build_ext", f"--parallel={jobs}", f"--build-lib={out}", "--build-temp=o"],
    )
    print(f"and compiled after {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    compile_modules(listed(Path(sys.argv[1])), Path(sys.argv[2]))
else:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

    class CompiledWheel(BuildHookInterface[Any]):
        """Adds the extension modules to the wheel."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Called before the wheel is put together."""
            if version == "editable":
                return
            if missing := what_is_missing():
                sys.exit(f"The compiled wheel cannot be built: {missing}")
            root = Path(self.root)
            work = root / "build" / f"compiled-{sys.version_info.major}.{sys.version_info.minor}"
            source, out = work / "source", work / "lib"
            shutil.rmtree(out, ignore_errors=True)
            clean_copy(root, source)
            subprocess.run([sys.executable, __file__, root / "compiled.toml", out], cwd=source, check=True)
            for path in out.rglob("*.so"):
                build_data["force_include"][str(path)] = str(path.relative_to(out))
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
