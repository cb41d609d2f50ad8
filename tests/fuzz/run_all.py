"""Every fuzz target for so many seconds: `python tests/fuzz/run_all.py [SECONDS [DIRECTORY]]`.

With atheris if it is installed (it has wheels for some versions of Python only), and then the inputs that it found once more
without it; else by mutations. The inputs stay in the directory and are the beginning of the next run.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = {
    "fuzz_dubbo.py": ("frame", "skip", "read", "fastjson2", "java"),
    "fuzz_http2.py": ("server", "client", "hpack"),
}
MAX_INPUT = 4096
"""bytes: longer inputs are slow and say no more"""


def main(arguments: list[str]) -> int:
    """Stops at the first target that fails."""
    seconds = arguments[0] if arguments else "60"
    directory = Path(arguments[1] if len(arguments) > 1 else ".fuzz")
    atheris = importlib.util.find_spec("atheris") is not None
    print("with atheris" if atheris else "without atheris: by mutations", flush=True)
    for program, targets in PROGRAMS.items():
        for target in targets:
            corpus = directory / target
            corpus.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, str(HERE / program), target]
            if atheris:
                limits = [f"-max_total_time={seconds}", f"-max_len={MAX_INPUT}"]
                options = [*limits, f"-artifact_prefix={directory}/", "-print_final_stats=1"]
                ran = subprocess.run([*command, *options, str(corpus)], capture_output=True, text=True, errors="replace")
                counted = [line for line in ran.stderr.splitlines() if "number_of_executed_units" in line]
                print(f"{target}: {' '.join(counted)}, {len(list(corpus.iterdir()))} inputs kept", flush=True)
                if ran.returncode:
                    print(ran.stdout[-3000:] + ran.stderr[-3000:])
                    return 1
                again = subprocess.run([*command, "--replay", str(corpus)])
            else:
                again = subprocess.run([*command, "--seconds", seconds])
            if again.returncode:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
