"""The adapters put together, on a real state directory."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec import structs

from remit.compose import wiring
from remit.compose.wiring import Application
from remit.config import settings
from remit.config.sections import AuditSection, IdentitySection
from remit.config.values import TrustDomainName
from remit.core import audit, scope
from remit.core.request import Bounds, GrantRequest
from remit.core.secret import Secret
from remit.errors import ExpiredError, IntegrityError, RemitError, UnavailableError
from remit.ports import Resource
from tests.uses import permitted_use

SEARCH = scope.parse([{"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/**"], "args": "any"}])


def configured(tmp_path: Path) -> settings.Settings:
    return settings.read(settings.places({"REMIT_STATE_DIR": str(tmp_path / "state")}), {})


def with_application(made: settings.Settings, body: Callable[[Application], Awaitable[None]]) -> None:
    async def main() -> None:
        app = wiring.build(made)
        await app.broker.start()
        try:
            await body(app)
        finally:
            await app.broker.stop()

    asyncio.run(main())


async def opened(app: Application) -> str:
    await app.broker.put_resource(
        app.operator,
        Resource("search", "http", "https://search.test", SEARCH, None, {}),
        Secret("rmt-canary-key-0123456789ab"),
    )
    return (await app.broker.open(app.operator, GrantRequest(SEARCH, Bounds(timedelta(minutes=5)), purpose="why"))).id


def test_a_restart_keeps_tasks_resources_and_keys(tmp_path: Path) -> None:
    made, kept = configured(tmp_path), {}

    async def first(app: Application) -> None:
        kept["grant"], kept["kid"] = await opened(app), app.tokens.signer.kid

    async def second(app: Application) -> None:
        assert app.broker._tasks.check(kept["grant"]).grant.id == kept["grant"]
        assert app.tokens.signer.kid == kept["kid"]
        await permitted_use(app.broker, kept["grant"], scope.Access("search", "GET", "/x"), "r")
        assert app.broker._registry._opened["search"].reveal() == "rmt-canary-key-0123456789ab"

    with_application(made, first)
    with_application(made, second)


def test_nothing_on_disk_shows_a_secret_and_no_file_is_open_to_others(tmp_path: Path) -> None:
    async def body(app: Application) -> None:
        await opened(app)

    old = os.umask(0)
    try:
        with_application(configured(tmp_path), body)
    finally:
        os.umask(old)
    for path in (tmp_path / "state").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
        if path.is_file():
            assert b"rmt-canary-key-0123456789ab" not in path.read_bytes()


def test_a_second_broker_on_the_same_state_gets_one_clear_error(tmp_path: Path) -> None:
    made = configured(tmp_path)

    async def body(_: Application) -> None:
        with pytest.raises(RemitError) as caught:
            wiring.build(made)
        assert isinstance(caught.value, UnavailableError)

    with_application(made, body)


def test_whoever_starts_with_a_wrong_configuration_is_not_kept_out_once_it_is_right(tmp_path: Path) -> None:
    made, human = configured(tmp_path), {"issuer": "https://login.test", "client_id": "web"}
    with pytest.raises(RemitError):
        wiring.build(settings.read(made.places, {"humans": [{**human, "client_secret_file": "/nowhere/secret"}]}))

    async def body(app: Application) -> None:
        await opened(app)

    with_application(made, body)


def test_a_restored_backup_resurrects_nothing(tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir(mode=0o700)
    made = structs.replace(configured(tmp_path), audit=AuditSection(second))
    kept = {}

    async def first(app: Application) -> None:
        kept["grant"] = await opened(app)

    async def later(app: Application) -> None:
        await app.broker.revoke(app.operator, kept["grant"])

    async def restored(app: Application) -> None:
        with pytest.raises(RemitError):
            app.broker._tasks.check(kept["grant"])
        with pytest.raises(IntegrityError):
            await opened(app)

    with_application(made, first)
    shutil.copytree(tmp_path / "state", tmp_path / "backup")
    with_application(made, later)
    shutil.rmtree(tmp_path / "state")
    shutil.copytree(tmp_path / "backup", tmp_path / "state")
    with_application(made, restored)


def test_another_trust_domain_changes_neither_the_logs_name_nor_what_verifies_it(tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir(mode=0o700)
    made = structs.replace(configured(tmp_path), audit=AuditSection(second))
    vkey = tmp_path / "state" / "audit.vkey"
    kept = {}

    async def first(app: Application) -> None:
        await opened(app)
        await app.broker.checkpoints.look()
        kept["vkey"], kept["checkpoint"] = vkey.read_text(), (second / "checkpoint").read_text()

    async def renamed(app: Application) -> None:
        assert app.authority.trust_domain == "agents.example.com"
        assert not app.broker._tasks.rolled_back
        await opened(app)
        await app.broker.checkpoints.look()
        assert vkey.read_text() == kept["vkey"]
        origin, public = audit.read_verifier_key(kept["vkey"])
        newest = await app.broker.checkpoint()
        notes = [audit.read_checkpoint(text, origin, [public]) for text in (kept["checkpoint"], newest.text)]
        entries = await app.broker.entries(0, newest.size)
        assert audit.verify(entries, notes).size == newest.size > notes[0].size

    with_application(made, first)
    with_application(structs.replace(made, identity=IdentitySection(TrustDomainName("agents.example.com"))), renamed)


def test_an_id_is_typed_random_and_safe_in_paths_and_role_names() -> None:
    ids = {wiring.new_id("lse") for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(i.startswith("lse_") and len(i) == 26 and i.isascii() for i in ids)


def test_the_clock_is_utc_and_does_not_go_back() -> None:
    clock = wiring.steady()
    readings = [clock() for _ in range(1_000)]
    assert readings == sorted(readings)
    assert abs(readings[-1] - datetime.now(UTC)) < timedelta(seconds=5)


@pytest.mark.attack("CLK-03")
def test_a_broker_whose_machine_comes_back_a_day_behind_ends_what_there_is_by_the_time_that_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, kept, up = configured(tmp_path), {}, [100.0]

    async def first(app: Application) -> None:
        kept["grant"] = await opened(app)

    async def second(app: Application) -> None:
        assert app.broker._tasks.check(kept["grant"]).grant.id == kept["grant"]
        up[0] += 301  # asleep for all of it
        with pytest.raises(ExpiredError):
            app.broker._tasks.check(kept["grant"])
        with pytest.raises(UnavailableError, match="clock"):
            await opened(app)

    with_application(made, first)
    monkeypatch.setattr(wiring, "steady", lambda: lambda: datetime.now(UTC) - timedelta(days=1))
    monkeypatch.setattr(wiring, "elapsed", lambda: up[0])
    with_application(made, second)


def test_the_time_that_passes_counts_the_sleep_of_the_machine() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= wiring.elapsed() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_the_owner_is_a_uid_and_says_so() -> None:
    subject = wiring.local_subject()
    assert subject.sub.endswith(f"#{os.geteuid()}")
    assert subject.acr == "local-uid"


def test_a_lost_kek_is_not_replaced_by_a_new_one(tmp_path: Path) -> None:
    made = configured(tmp_path)

    async def body(app: Application) -> None:
        await opened(app)

    with_application(made, body)
    (tmp_path / "state/kek").unlink()
    with pytest.raises(RemitError):
        wiring.build(made)
    assert not (tmp_path / "state/kek").exists()
