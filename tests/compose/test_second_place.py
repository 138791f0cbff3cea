"""The second place for checkpoints, with real files and brokers put together as they are served."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from msgspec import structs

from remit.compose import authority as authority_of
from remit.compose import wiring
from remit.compose.wiring import Application
from remit.config import settings
from remit.config.sections import AuditSection
from remit.core.scope import Access
from remit.core.task import Closure
from remit.errors import IntegrityError, RemitError, UnavailableError
from tests.compose.test_serving import configured as configured_with_listeners
from tests.compose.test_serving import opened as opened_over_http
from tests.compose.test_serving import serving
from tests.compose.test_wiring import opened, with_application
from tests.support.one_process import Edges
from tests.uses import permitted_use

GET = Access("search", "GET", "/x")


@pytest.fixture
def second(tmp_path: Path) -> Path:
    (tmp_path / "second").mkdir(mode=0o700)
    return tmp_path / "second"


def on(state: Path, second: Path) -> settings.Settings:
    return structs.replace(
        settings.read(settings.places({"REMIT_STATE_DIR": str(state)}), {}), audit=AuditSection(second)
    )


@pytest.mark.attack("AUD-05")
@pytest.mark.parametrize("end", ["revoke", "close"])
def test_what_was_closed_is_not_revived_by_a_crash_and_an_older_copy(tmp_path: Path, second: Path, end: str) -> None:
    state, kept = tmp_path / "state", {}

    async def crashing(app: Application) -> None:
        kept["grant"] = await opened(app)
        await app.broker.checkpoints.look()
        shutil.copytree(state, tmp_path / "backup")
        task = app.broker._tasks.task_of(kept["grant"]).id
        report = await (
            app.broker.revoke(app.operator, kept["grant"]) if end == "revoke" else app.broker.close(app.operator, task)
        )
        assert report.state is Closure.CLOSED

    async def restored(app: Application) -> None:
        with pytest.raises(RemitError):
            app.broker._tasks.check(kept["grant"])
        with pytest.raises(IntegrityError):
            await permitted_use(app.broker, kept["grant"], GET, "r")
        assert app.broker._tasks.rolled_back

    with_application(on(state, second), crashing)
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "backup", state)
    with_application(on(state, second), restored)


@pytest.mark.attack("AUD-06")
@pytest.mark.parametrize("busy", [False, True])
def test_of_two_brokers_on_copies_of_one_state_the_one_that_started_first_ends_everything(
    tmp_path: Path,
    second: Path,
    busy: bool,  # noqa: FBT001 - a test's parameter
) -> None:
    kept = {}

    async def first(app: Application) -> None:
        kept["grant"] = await opened(app)

    async def both() -> None:
        houses = [wiring.build(on(tmp_path / name, second)) for name in ("state", "copy")]
        other, one = houses
        await other.broker.start()
        await permitted_use(other.broker, kept["grant"], GET, "r")
        shutil.rmtree(tmp_path / "copy")
        shutil.copytree(tmp_path / "state", tmp_path / "copy")
        await one.broker.start()
        if busy:  # the copy's log goes another way; without, the one is a prefix of the other
            await permitted_use(other.broker, kept["grant"], GET, "r")
        with pytest.raises(IntegrityError, match="another broker works on a copy"):
            await other.broker.checkpoints.look()
        with pytest.raises(IntegrityError):
            await permitted_use(other.broker, kept["grant"], GET, "r")
        assert all(task.head.closed for task in list(other.broker._tasks))
        assert not one.broker._tasks.rolled_back
        await one.broker.checkpoints.look()
        await permitted_use(one.broker, kept["grant"], GET, "r")
        assert (await one.broker.revoke(one.operator, kept["grant"])).state is Closure.CLOSED
        for app in houses:
            await app.broker.stop()

    with_application(on(tmp_path / "state", second), first)
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    asyncio.run(both())


def garbage(path: Path) -> None:
    path.write_bytes(b"\0\xff" * 100)


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def gigabyte(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def nothing_there(path: Path) -> None:
    path.parent.rename(path.parent.with_name("away"))


@pytest.mark.attack("AUD-07")
@pytest.mark.parametrize("put", [os.mkfifo, Path.mkdir, zeros, gigabyte, garbage, nothing_there])
def test_whatever_lies_in_the_second_place_neither_stops_a_broker_nor_a_revoke(
    tmp_path: Path, second: Path, put: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority_of, "WITNESS", 3_600.0)  # a round under way would write over what is laid there

    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        made = await opened_over_http(client)
        laid(put, second / "checkpoint")
        with pytest.raises(UnavailableError):
            await edges.application.broker.checkpoints.look()
        report = await closing(client, made["task"])
        assert (report["state"], report["revoked"]) == ("partial", 1)
        assert report["outstanding"] == [{"lease": None, "kind": "checkpoint", "expires_at": None}]
        about = (await client.get("/v1/audit")).json()
        assert about["second_place"]
        assert about["rolled_back"] is False
        assert edges.application.broker._tasks.task(made["task"]).head.closed

    async def again(edges: Edges, client: httpx.AsyncClient) -> None:
        assert edges.application.broker.checkpoints.trouble is not None
        assert (await client.get("/v1/tasks")).status_code == 200

    made = structs.replace(configured_with_listeners(tmp_path), audit=AuditSection(second))
    serving(made, body)
    serving(made, again)


def laid(put: Callable[[Path], None], path: Path) -> None:
    """Put something in the place of the checkpoint, while a broker keeps writing one there."""
    while True:
        path.unlink(missing_ok=True)
        with suppress(FileExistsError):
            return put(path)


async def closing(client: httpx.AsyncClient, task: str) -> dict[str, object]:
    found: dict[str, object] = (await client.post(f"/v1/tasks/{task}/close", timeout=5)).json()
    return found


def test_a_place_that_comes_back_confirms_again(tmp_path: Path, second: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority_of, "WITNESS", 3_600.0)

    async def body(edges: Edges, client: httpx.AsyncClient) -> None:
        made = await opened_over_http(client)
        laid(os.mkfifo, second / "checkpoint")
        assert (await closing(client, made["task"]))["state"] == "partial"
        (second / "checkpoint").unlink()
        assert (await closing(client, made["task"]))["state"] == "closed"
        await edges.application.broker.checkpoints.look()
        assert (await client.get("/v1/audit")).json()["second_place"] is None

    serving(structs.replace(configured_with_listeners(tmp_path), audit=AuditSection(second)), body)


def test_a_rollback_is_told_on_the_audit_endpoint(tmp_path: Path, second: Path) -> None:
    made = structs.replace(configured_with_listeners(tmp_path), audit=AuditSection(second))

    async def first(_: Edges, client: httpx.AsyncClient) -> None:
        await opened_over_http(client)

    async def rolled(_: Edges, client: httpx.AsyncClient) -> None:
        about = (await client.get("/v1/audit")).json()
        assert about["rolled_back"] is True
        assert "rolled back" in about["second_place"]

    serving(made, first)
    shutil.copytree(made.places.state, tmp_path / "backup")
    serving(made, first)
    shutil.rmtree(made.places.state)
    shutil.copytree(tmp_path / "backup", made.places.state)
    serving(made, rolled)
