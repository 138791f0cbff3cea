"""Kinds of other packages: the one in ``examples``, built and installed as a distribution of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from remit.compose import doctor, kinds, wiring
from remit.config import settings
from remit.core import scope
from remit.core.request import Bounds, GrantRequest
from remit.core.secret import Secret
from remit.errors import InvalidRequestError
from remit.ports import Resource

ROOT = Path(__file__).parents[2]
TOY = ROOT / "examples" / "toy_kind"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the toy kind's distribution in it."""
    folder = tmp_path_factory.mktemp("packages")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--target", folder, TOY], check=True, env=os.environ)
    return folder


@pytest.fixture(autouse=True)
def _types_as_before() -> Iterator[None]:
    """Forget what a test registers: other tests of this process read all types that there are."""
    before = dict(scope._TYPES)
    yield
    scope._TYPES.clear()
    scope._TYPES.update(before)


def configured(tmp_path: Path, **named: str) -> settings.Settings:
    return settings.read(settings.places({"REMIT_STATE_DIR": str(tmp_path / "state")}), {"kinds": named})


def test_a_kind_of_another_package_passes_the_contracts(installed: Path) -> None:
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(TOY), str(TOY / "tests")]
    done = subprocess.run(
        [sys.executable, *tests], env={**os.environ, "PYTHONPATH": str(installed)}, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode()


def test_a_kind_of_another_package_serves_a_lease(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    (tmp_path / "cabinet").mkdir()

    async def main() -> None:
        app = wiring.build(configured(tmp_path, toy="1.0"))
        await app.broker.start()
        bound = scope.parse([{"type": "toy", "resource": "desk", "actions": ["look"], "drawers": ["/top"]}])
        await app.broker.put_resource(
            app.operator, Resource("desk", "toy", f"toy://{tmp_path}/cabinet", bound, None, {})
        )
        request = GrantRequest(bound, Bounds(timedelta(minutes=5)), purpose="look into the desk")
        grant = await app.broker.open(app.operator, request)
        issued = await app.broker.issue(app.operator, grant.id, bound[0])
        key = issued.credential["key"]
        assert isinstance(key, Secret)
        file = tmp_path / "cabinet" / key.reveal().partition(":")[0]
        assert file.read_text()
        assert (await app.broker.revoke(app.operator, grant.id)).revoked == 1
        assert not file.read_text()
        await app.broker.stop()

    asyncio.run(main())


def test_a_kind_that_is_installed_is_not_used_unless_it_is_named(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    assert kinds.installed() == {"toy": "1.0"}
    assert kinds.known(configured(tmp_path)).keys() == kinds.BUILT_IN.keys()


@pytest.mark.parametrize("named", [{"toy": "2.0"}, {"other": "1.0"}, {"http": "1.0"}])
def test_a_kind_that_is_named_and_not_there_stops_the_start(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: dict[str, str]
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    with pytest.raises(InvalidRequestError, match="no package that is installed") as caught:
        kinds.known(configured(tmp_path, **named))
    assert caught.value.help is not None
    assert "`toy` 1.0" in caught.value.help


def test_the_doctor_lists_kinds(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(installed))
    [unused] = doctor.kinds(configured(tmp_path))
    assert unused.text == f"{', '.join(kinds.BUILT_IN)}; installed, not configured: toy 1.0"
    [used] = doctor.kinds(configured(tmp_path, toy="1.0"))
    assert used.text == f"{', '.join(kinds.BUILT_IN)}, toy"
    [wrong] = doctor.kinds(configured(tmp_path, toy="2.0"))
    assert wrong.level == "wrong"
