"""Check that each module of core/ and the broker is covered to 100 % from its own test file alone.

Run by ``make cover``. ``GAPS`` names what is not there yet; it may only shrink: an entry that is no longer true fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "remit"
GAPS: frozenset[str] = frozenset()


def modules() -> list[Path]:
    """Return the modules that must be covered, those with nothing to run left out."""
    found = [*(SOURCE / "core").glob("*.py"), *(SOURCE / "broker").glob("*.py")]
    return sorted(path for path in found if path.name != "__init__.py")


def own_tests(module: Path) -> list[str]:
    """Return the test files that are a module's own.

    In core/ those that mirror it: ``test_x.py`` and ``test_x_*.py``. The broker is one thing in several files: its own
    tests are all of tests/broker/.
    """
    folder = ROOT / "tests" / module.relative_to(SOURCE).parent
    pattern = "test_*.py" if folder.name == "broker" else f"test_{module.stem}*.py"
    return [str(path) for path in sorted(folder.glob(pattern))]


def missing(module: Path, tests: list[str], scratch: Path) -> list[int]:
    """Run a module's own tests, and return its lines (or sources of branches) that they do not reach."""
    data, report = scratch / module.stem, scratch / f"{module.stem}.json"
    python = [sys.executable, "-m", "coverage"]
    run = [*python, "run", f"--data-file={data}", f"--include={module}", "-m", "pytest", "-q", "--no-cov-on-fail"]
    run.remove("--no-cov-on-fail")
    done = subprocess.run([*run, *tests], cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        sys.stdout.write(done.stdout)
        raise SystemExit(f"{module.stem}: its own tests fail")
    subprocess.run([*python, "json", "-q", f"--data-file={data}", "-o", report], cwd=ROOT, check=True)
    file = next(iter(json.loads(report.read_text())["files"].values()))
    return sorted({*file["missing_lines"], *(source for source, _ in file["missing_branches"])})


def verdict(module: Path, scratch: Path) -> str | None:
    """Return what is wrong with a module's coverage, or nothing."""
    name = module.relative_to(SOURCE).as_posix()
    tests = own_tests(module)
    lines = missing(module, tests, scratch) if tests else None
    if lines == []:
        return f"{name}: is covered now; take it out of GAPS" if name in GAPS else None
    if name in GAPS:
        return None
    return f"{name}: has no test file" if lines is None else f"{name}: not reached: {lines}"


def main() -> int:
    """Print what is not covered; 1 if anything."""
    wrong = []
    with tempfile.TemporaryDirectory() as scratch:
        for module in modules():
            said = verdict(module, Path(scratch))
            print(said or f"{module.relative_to(SOURCE)}: 100 %", flush=True)  # noqa: T201 - a command's output
            wrong += [said] if said else []
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
