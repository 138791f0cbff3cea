"""Check that each module of core/ and the broker is covered to 100 % from its own test file alone.

Run by ``make cover``. ``GAPS`` names what is not there yet; it may only shrink: an entry that is no longer true fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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


def measured(group: list[Path], tests: list[str], scratch: Path) -> dict[str, list[int]]:
    """Run the tests that a group of modules shares; return lines, or sources of branches, that they do not reach."""
    data, report = scratch / group[0].stem, scratch / f"{group[0].stem}.json"
    python = [sys.executable, "-m", "coverage"]
    include = ",".join(map(str, group))
    run = [*python, "run", f"--data-file={data}", f"--include={include}", "-m", "pytest", "-q", *tests]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        sys.stdout.write(done.stdout)
        raise SystemExit(f"{group[0].stem}: its own tests fail")
    subprocess.run([*python, "json", "-q", f"--data-file={data}", "-o", report], cwd=ROOT, check=True)
    files = json.loads(report.read_text())["files"]
    return {
        (ROOT / name).name: sorted({*file["missing_lines"], *(source for source, _ in file["missing_branches"])})
        for name, file in files.items()
    }


def verdicts(group: list[Path], tests: list[str], scratch: Path) -> Iterator[tuple[str, str | None]]:
    """Yield each module with what is wrong with its coverage, if anything."""
    found = measured(group, tests, scratch) if tests else {}
    for module in group:
        name, lines = module.relative_to(SOURCE).as_posix(), found.get(module.name)
        if lines == []:
            yield name, f"{name}: is covered now; take it out of GAPS" if name in GAPS else None
        elif name in GAPS:
            yield name, None
        else:
            yield name, f"{name}: has no test file" if lines is None else f"{name}: not reached: {lines}"


def main() -> int:
    """Print what is not covered; 1 if anything."""
    groups: dict[tuple[str, ...], list[Path]] = {}
    for module in modules():
        groups.setdefault(tuple(own_tests(module)), []).append(module)
    wrong = []
    with tempfile.TemporaryDirectory() as scratch:
        for tests, group in groups.items():
            for name, said in verdicts(group, list(tests), Path(scratch)):
                print(said or f"{name}: 100 %", flush=True)  # noqa: T201 - a command's output
                wrong += [said] if said else []
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
