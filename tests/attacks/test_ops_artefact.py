"""OPS: the built artefact is the tree, and importing it does nothing."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
PROBE = """
import sys
seen = []
def watch(event, args):
    if event.startswith(("socket.", "subprocess.", "os.exec", "os.posix_spawn", "os.system", "os.fork")):
        seen.append(event)
    elif event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        seen.append(f"open {args[0]}")
sys.addaudithook(watch)
sys.dont_write_bytecode = True
import remit, remit.errors, remit.cli, remit.sdk, remit.core.task, remit.broker, remit.gateway.server, remit.compose.app
print(seen)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = f"import hatchling.build; print(hatchling.build.build_wheel({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", build], cwd=ROOT, capture_output=True, text=True, check=True)
    return zipfile.ZipFile(folder / done.stdout.split()[-1])


def _tracked() -> dict[str, bytes]:
    command = ["git", "ls-files", "-z", "src/remit"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return {path.relative_to(SOURCE).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.attack("OPS-02")
def test_the_wheel_is_the_tracked_tree_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    built = {name: wheel.read(name) for name in wheel.namelist() if ".dist-info/" not in name}
    tracked = _tracked()
    assert sorted(built.keys() - tracked.keys()) == []
    assert sorted(tracked.keys() - built.keys()) == []
    assert [name for name in built if built[name] != tracked[name]] == []


@pytest.mark.attack("OPS-02")
def test_the_wheel_starts_nothing_by_itself_and_has_one_command(wheel: zipfile.ZipFile) -> None:
    assert [name for name in wheel.namelist() if name.endswith(".pth")] == []
    [entry_points] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert wheel.read(entry_points).decode().split() == ["[console_scripts]", "remit", "=", "remit.cli:main"]


@pytest.mark.attack("OPS-02")
def test_every_file_of_the_wheel_has_its_hash_on_record(wheel: zipfile.ZipFile) -> None:
    [record] = [name for name in wheel.namelist() if name.endswith("/RECORD")]
    rows = [row.split(",") for row in wheel.read(record).decode().splitlines()]
    noted = {name: digest for name, digest, _ in rows if name != record}
    digests = {name: hashlib.sha256(wheel.read(name)).digest() for name in wheel.namelist() if name != record}
    made = {name: "sha256=" + base64.urlsafe_b64encode(d).rstrip(b"=").decode() for name, d in digests.items()}
    assert made == noted


@pytest.mark.attack("OPS-02")
def test_importing_opens_no_socket_starts_no_program_and_writes_no_file(tmp_path: Path) -> None:
    env = {"PATH": os.defpath, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.attack("OPS-02")
@pytest.mark.parametrize("lock", ["requirements.lock", "benchmarks/requirements.lock"])
def test_every_dependency_is_pinned_with_hashes(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    pins = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert pins
    assert [pin.split()[0] for pin in pins if not re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+ .*--hash=sha256:", pin)] == []
