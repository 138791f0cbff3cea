from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from remit.errors import ConflictError, DeniedError, InvalidRequestError, RemitError, UnavailableError
from remit.run import leased
from remit.run.leased import HeldLease, Renewals, RunChannel
from remit.run.named import read
from remit.run.renewal import Lasting

DETAIL = {"type": "postgres", "resource": "warehouse", "tables": ["a"], "ttl": 60}
REQUEST = {"open": {"authorization_details": [{"type": "http", "resource": "search"}, DETAIL]}}
ENDS = datetime(2030, 1, 1, tzinfo=UTC)
GIVEN = {"task": "task_1", "grant": "grt_1", "expires_at": ENDS.isoformat()}
NAMED = [read("DATABASE_URL", "lease:warehouse")]


class ScriptedChannel(RunChannel):
    """Answers as it is told, and remembers what it was asked."""

    def __init__(self, *answers: Mapping[str, object] | RemitError) -> None:
        self.answers, self.asked = list(answers), list[tuple[str, Mapping[str, object]]]()
        self.empty = threading.Event()

    def post(self, path: str, request: Mapping[str, object]) -> Mapping[str, object]:
        self.asked.append((path, request))
        answer = self.answers.pop(0)
        if not self.answers:
            self.empty.set()
        if isinstance(answer, RemitError):
            raise answer
        return answer


def lease(ends: datetime, **more: object) -> dict[str, object]:
    return {"lease": "lse_1", "expires_at": ends.isoformat(), "credential": {"dsn": "postgresql://u:p@h/d"}, **more}


def renewal(ends: datetime, *, last: bool = False) -> dict[str, object]:
    return {"lease": "lse_1", "expires_at": ends.isoformat(), "ends_with_grant": last}


def test_a_lease_is_issued_for_the_runs_own_grant_and_its_dsn_is_the_variable() -> None:
    channel = ScriptedChannel(lease(ENDS))
    assert leased.issued(channel, NAMED, REQUEST, GIVEN) == ({"DATABASE_URL": "postgresql://u:p@h/d"}, ())
    assert channel.asked == [("/v1/tasks/task_1/leases", {"grant": "grt_1", "detail": DETAIL})]


def test_one_that_ends_before_the_run_is_renewed_at_once_to_see_that_it_can_be() -> None:
    longer = ENDS - timedelta(minutes=1)
    channel = ScriptedChannel(lease(ENDS - timedelta(minutes=5)), renewal(longer))
    _, held = leased.issued(channel, NAMED, REQUEST, GIVEN)
    assert channel.asked[1] == ("/v1/leases/lse_1/renew", {"ttl": 60})
    assert held == (HeldLease("DATABASE_URL", "lse_1", 60, longer),)
    assert held[0].due(ENDS) == longer - timedelta(seconds=30)


def test_one_that_ends_before_the_run_and_cannot_be_renewed_is_refused() -> None:
    refusal = ConflictError("this kind of credential cannot be renewed")
    channel = ScriptedChannel(lease(ENDS - timedelta(minutes=5)), refusal)
    with pytest.raises(InvalidRequestError, match=r"`DATABASE_URL` cannot be set: .* cannot be renewed"):
        leased.issued(channel, NAMED, REQUEST, GIVEN)


@pytest.mark.parametrize("details", [[], [DETAIL, {**DETAIL, "tables": ["b"]}], None, ["warehouse"]])
def test_which_lease_is_meant_must_be_clear(details: Any) -> None:
    with pytest.raises(InvalidRequestError, match="details for `warehouse`"):
        leased.issued(ScriptedChannel(), NAMED, {"open": {"authorization_details": details}}, GIVEN)


def test_a_credential_without_a_dsn_is_refused() -> None:
    channel = ScriptedChannel({**lease(ENDS), "credential": {"token": "x"}})
    with pytest.raises(InvalidRequestError, match="has no DSN"):
        leased.issued(channel, NAMED, REQUEST, GIVEN)


def test_a_lease_is_renewed_until_it_ends_with_its_grant() -> None:
    now, said = datetime.now(UTC), list[str]()
    channel = ScriptedChannel(renewal(now), renewal(now, last=True))
    Renewals(channel, (HeldLease("DATABASE_URL", "lse_1", 60, now),), lambda line, _: said.append(line))
    assert channel.empty.wait(30)
    assert ([path for path, _ in channel.asked], said) == (["/v1/leases/lse_1/renew"] * 2, [])


def lasting(step: int = 60) -> Lasting:
    return Lasting(7 * 86_400, lambda: None, step)


@pytest.mark.parametrize("ttl", [60, None])
def test_of_a_run_for_days_each_lease_is_held_also_one_that_ends_with_the_grant(ttl: int | None) -> None:
    wanted = {name: value for name, value in {**DETAIL, "ttl": ttl}.items() if value is not None}
    request = {"open": {"authorization_details": [wanted]}}
    channel = ScriptedChannel(lease(ENDS), renewal(ENDS, last=True))
    _, held = leased.issued(channel, NAMED, request, GIVEN, lasting(900))
    assert channel.asked[1] == ("/v1/leases/lse_1/renew", {"ttl": ttl or 900})
    assert held == (HeldLease("DATABASE_URL", "lse_1", ttl or 900, ENDS, last=True),)
    assert held[0].due(ENDS) is None
    assert held[0].due(ENDS + timedelta(hours=4)) == leased.AT_ONCE


def test_of_a_run_for_days_none_is_issued_that_cannot_be_renewed() -> None:
    channel = ScriptedChannel(lease(ENDS), ConflictError("this kind of credential cannot be renewed"))
    with pytest.raises(InvalidRequestError, match=r"`DATABASE_URL` cannot be set: .* cannot be renewed"):
        leased.issued(channel, NAMED, REQUEST, GIVEN, lasting())


def test_a_lease_that_ends_with_its_grant_is_renewed_when_that_is() -> None:
    ends, longer = (datetime.now(UTC) + timedelta(hours=hours) for hours in (4, 8))
    channel, said = ScriptedChannel(renewal(longer, last=True)), list[str]()
    held = (HeldLease("DATABASE_URL", "lse_1", 60, ends, last=True),)
    renewals = Renewals(channel, held, lambda line, _: said.append(line), lasting=True)
    renewals.longer(ends)
    assert channel.asked == []
    renewals.longer(longer)
    assert channel.empty.wait(30)
    channel.empty.clear()
    channel.answers.append(renewal(longer + timedelta(hours=1)))
    renewals.longer(longer + timedelta(hours=4))
    assert channel.empty.wait(30)
    renewals.end()
    assert (len(channel.asked), said) == (2, [])


def test_what_cannot_be_renewed_any_more_is_said() -> None:
    now, said, told = datetime.now(UTC), list[str](), threading.Event()

    def say(line: str, _: str) -> None:
        said.append(line)
        told.set()

    late = HeldLease("LATE", "lse_1", 60, now - timedelta(seconds=1))
    Renewals(ScriptedChannel(UnavailableError("nobody answers")), (late,), say)
    assert told.wait(30)
    told.clear()
    Renewals(ScriptedChannel(DeniedError("it was revoked")), (HeldLease("DB", "lse_1", 60, now),), say)
    assert told.wait(30)
    assert said == ["remit: LATE cannot be renewed: nobody answers", "remit: DB cannot be renewed: it was revoked"]


def test_after_the_end_nothing_is_renewed_nor_said() -> None:
    channel, said = ScriptedChannel(), list[str]()
    far = datetime.now(UTC) + timedelta(hours=1)
    renewals = Renewals(channel, (HeldLease("DB", "lse_1", 60, far),), lambda line, _: said.append(line))
    renewals.end()
    [thread] = [one for one in threading.enumerate() if one.name == "remit-renewals"] or [threading.current_thread()]
    if thread is not threading.current_thread():
        thread.join(30)
    assert (channel.asked, said) == ([], [])


def test_a_channel_that_is_not_there_is_told() -> None:
    with pytest.raises(UnavailableError, match="channel cannot be reached"):
        RunChannel(1 << 22, "/run/remit/channel.sock")
