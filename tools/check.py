"""Everything a change must pass: style, types, import directions, spelling, tests.

    python tools/check.py             all of it
    python tools/check.py mypy ruff   only these

Every check runs even after one has failed; the exit code is 1 if any did.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sys.executable).parent

CHECKS = {
    "ruff": ("ruff", "check", "."),
    "format": ("ruff", "format", "--check", "."),
    "mypy": ("mypy",),
    "imports": ("lint-imports", "--no-cache"),
    "spelling": ("codespell",),
    # Two processes: the tests are many and small, and torch's own threads gain little on them.
    "tests": ("pytest", "-q", "-n", "2", "--dist", "worksteal"),
}


def run(name: str) -> bool:
    """Run one check in the repository's root, its output passing through; tell whether it passed."""
    program, *arguments = CHECKS[name]
    print(f"== {name}: {program} {' '.join(arguments)}", flush=True)
    # The environment's own scripts, whether or not it is activated.
    environment = os.environ | {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ.get('PATH', '')}", "OMP_NUM_THREADS": "1"}
    if program == "pytest":
        command = [sys.executable, "-m", "pytest", *arguments]
    else:
        command = [str(SCRIPTS / program), *arguments]
    start = time.perf_counter()
    passed = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False).returncode == 0
    print(f"== {name}: {'passed' if passed else 'FAILED'} in {time.perf_counter() - start:.0f} s", flush=True)
    return passed


def main(names: list[str]) -> int:
    """Run the named checks, or all of them."""
    unknown = sorted(set(names) - CHECKS.keys())
    if unknown:
        print(f"no check is called {', '.join(unknown)}; there are {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    failed = [name for name in names or CHECKS if not run(name)]
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
