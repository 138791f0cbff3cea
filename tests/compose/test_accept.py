"""A clock that was wrong: the log is in the future, until the right one is accepted."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from remit.cli.entry import run
from remit.compose import doctor, wiring
from remit.compose.accept import accept
from remit.config.settings import load
from remit.core import audit
from remit.core.audit import Event
from remit.errors import ConflictError, NotFoundError, UnavailableError
from tests.broker.world import Target, World
from tests.compose.test_doctor import only
from tests.compose.test_stop import filled

AHEAD = timedelta(days=1_000)


@pytest.fixture
def poisoned(environ: dict[str, str], target: Target, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a task that was opened under a clock that was years ahead, and is right again."""
    assert target.accounts == {}
    with monkeypatch.context() as wrong:
        wrong.setattr(wiring, "steady", lambda: lambda: datetime.now(UTC) + AHEAD)
        return asyncio.run(filled(wiring.build(load(environ))))


async def logged(environ: dict[str, str]) -> list[Event]:
    app = wiring.build(load(environ))
    try:
        return [audit.read(entry) for entry in await app.broker.entries(0, 1_000)]
    finally:
        await app.broker.stop()


async def opens(environ: dict[str, str]) -> datetime:
    """Open a task as anybody may, and return when it was opened."""
    app = wiring.build(load(environ))
    try:
        await app.broker.start()
        grant = await World().opened(app.broker)
        return app.broker._tasks.task_of(grant.id).head.opened_at
    finally:
        await app.broker.stop()


@pytest.mark.attack("CLK-03")
def test_all_ends_and_the_next_broker_goes_by_the_clock(
    poisoned: str,
    environ: dict[str, str],
    target: Target,
) -> None:
    Path(f"{environ['REMIT_STATE_DIR']}2").mkdir(0o700)
    with (Path(environ["XDG_CONFIG_HOME"]) / "remit" / "config.toml").open("a") as config:
        config.write(f'[audit]\nwitness = "{environ["REMIT_STATE_DIR"]}2"\n')  # what it keeps stays good
    with pytest.raises(UnavailableError, match="the clock is behind"):
        asyncio.run(opens(environ))
    before = wiring.build(load(environ))
    keys = {key.kid for key in before.tokens.published()}
    asyncio.run(before.broker.stop())
    assert (found := only(doctor.clock(load(environ)))).level == "wrong"
    assert "remit clock accept" in found.help
    said: list[str] = []
    done = accept(environ, said.append)
    assert done is not None
    assert done.before - done.now > AHEAD - timedelta(hours=1)
    assert (said, target.accounts) == ([f"{poisoned}: closed"], {})
    events = asyncio.run(logged(environ))
    assert [(e.event, e.at, e.subject) for e in events[-1:]] == [("clock.accept", done.now, done_by(events))]
    assert done.before.isoformat() in str(events[-1].cause)
    after = wiring.build(load(environ))
    assert keys.isdisjoint(key.kid for key in after.tokens.published())
    asyncio.run(after.broker.stop())
    assert only(doctor.clock(load(environ))).level == "good"
    assert abs(asyncio.run(opens(environ)) - datetime.now(UTC)) < timedelta(minutes=1)


def done_by(events: list[Event]) -> str | None:
    """Return who owns the state, as the end of the keys says."""
    return next(event.subject for event in events if event.event == "key.revoke")


def test_nothing_is_changed_where_the_log_is_not_ahead(
    environ: dict[str, str],
    target: Target,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asyncio.run(filled(wiring.build(load(environ))))
    size = len(asyncio.run(logged(environ)))
    assert run(["clock", "accept", "--json"]) == 0
    assert capsys.readouterr().out == '{"accepted":false}\n'
    assert (len(asyncio.run(logged(environ))), len(target.accounts)) == (size, 1)


def test_while_a_target_has_not_ended_what_is_there_the_time_of_the_log_counts(
    poisoned: str,
    environ: dict[str, str],
    target: Target,
) -> None:
    target.fail = {"revoke"}
    with pytest.raises(ConflictError, match="outstanding"):
        accept(environ, lambda _: None)
    events = asyncio.run(logged(environ))
    assert "clock.accept" not in {event.event for event in events}
    assert poisoned in {event.task for event in events if event.event == "task.close"}
    target.fail.clear()
    assert accept(environ, lambda _: None) is not None
    assert target.accounts == {}
    assert accept(environ, lambda _: None) is None


def test_a_broker_that_serves_the_state_keeps_its_time(poisoned: str, environ: dict[str, str]) -> None:
    assert poisoned
    app = wiring.build(load(environ))
    with pytest.raises(UnavailableError, match="another broker serves this state"):
        accept(environ, lambda _: None)
    asyncio.run(app.broker.stop())
    assert "clock.accept" not in {event.event for event in asyncio.run(logged(environ))}


def test_where_there_is_no_state_there_is_no_clock_to_accept(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no state"):
        accept({**os.environ, "REMIT_STATE_DIR": str(tmp_path / "none")}, lambda _: None)
    assert not (tmp_path / "none").exists()


def test_the_command_says_both_times(
    poisoned: str,
    environ: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert environ
    assert run(["clock", "accept"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("the broker goes by the clock again: it is 20")
    assert f"{poisoned}: closed" in told.err
