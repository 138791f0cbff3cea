"""Runs whose broker or edge has gone: their launchers hand them over anew, or they end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from remit.errors import ExpiredError, UnavailableError
from remit.ports.broker import Notice
from remit.ports.runs import TICKET_LIFE
from remit.run import handover
from remit.run.handover import Message
from tests.broker.world import OPERATOR
from tests.run.launchers import SANDBOX, Launcher, code, connect, grant_of, is_closed, launcher
from tests.run.rig import READ, House, opening

LIFE = TICKET_LIFE.total_seconds()


async def restart(house: House) -> None:
    await house.restart()


async def next_edge(house: House) -> None:
    await house.next_edge()


GOING = pytest.mark.parametrize("going", [restart, next_edge], ids=["broker", "edge"])
Going = Callable[[House], Coroutine[Any, Any, None]]


def permitted(house: House, granted: Message) -> bool:
    try:
        house.call(house.broker.grant(str(granted["grant"])))
    except UnavailableError:
        return False
    return True


def late(house: House) -> None:
    """Let the time pass in which a run is waited for."""
    house.world.later(LIFE)
    house.call(house.runs.sweep())


def nearly_late(house: House) -> None:
    """Let nearly as much time pass."""
    house.world.later(LIFE - 1)
    house.call(house.runs.sweep())


@GOING
def test_a_run_is_served_again_as_it_was_under_the_same_grant_at_the_same_places(runs: House, going: Going) -> None:
    with launcher(runs) as one:
        granted, ready = one.launch(opening())
        late(runs)  # it is served, so that time is no matter
        runs.call(going(runs))
        nearly_late(runs)
        assert handover.receive(one.sock) is None  # the connection ends, and no word of an end
        assert not permitted(runs, granted)
        again = one.again(ready, runs.handover)
        assert again["environment"] == ready["environment"]
        assert permitted(runs, granted)
        with connect(one.bound[0]) as client:
            assert client.recv(100) == f"gateway {granted['grant']}\n".encode()
        late(runs)
        assert one.ask({"end": True})["state"] == "closed"
        assert is_closed(runs, granted)


@GOING
def test_a_run_that_was_renewed_is_served_again_after_the_end_that_it_began_with(runs: House, going: Going) -> None:
    with launcher(runs) as one:
        granted, ready = one.launch(opening())
        task = str(granted["task"])
        for _ in range(3):
            runs.world.later(500)
            runs.call(runs.renew(OPERATOR, task, timedelta(minutes=10)))
        runs.call(runs.broker.sweep())
        runs.call(going(runs))
        nearly_late(runs)
        again = one.again(ready, runs.handover)
        assert again["environment"] == ready["environment"]
        assert permitted(runs, granted)
        runs.call(runs.renew(OPERATOR, task, timedelta(minutes=10)))
        runs.world.later(600)
        runs.call(runs.broker.sweep())
        with pytest.raises(ExpiredError):
            permitted(runs, granted)


@GOING
def test_who_connects_meanwhile_is_served_afterwards(runs: House, going: Going) -> None:
    with launcher(runs) as one:
        granted, ready = one.launch(opening())
        runs.call(going(runs))
        with connect(one.bound[0]) as client:
            one.again(ready, runs.handover)
            assert client.recv(100) == f"gateway {granted['grant']}\n".encode()


@GOING
def test_a_run_that_is_not_handed_over_anew_ends_in_time(runs: House, going: Going) -> None:
    with launcher(runs) as one:
        granted, ready = one.launch(opening())
        runs.call(going(runs))
        nearly_late(runs)
        assert not is_closed(runs, granted)
        runs.world.later(1)
        assert code(one.again(ready, runs.handover)) == "grant-token"
        runs.call(runs.runs.sweep())
        runs.until(lambda: is_closed(runs, granted))


@GOING
def test_a_delegated_run_ends_in_time_and_its_task_stays(runs: House, going: Going) -> None:
    grant = runs.call(runs.world.opened(runs.broker))
    with launcher(runs) as one:
        child, _ = one.launch({"delegate": {"parent": grant.id, "authorization_details": [{**READ, "uses": 1}]}})
        runs.call(going(runs))
        assert not permitted(runs, child)
        late(runs)
        runs.until(lambda: grant_of(runs, child).revoked)
        assert not runs.broker._tasks.check(grant.id).grant.revoked


@GOING
def test_a_grant_that_was_there_waits_for_nobody_and_its_run_goes_on(runs: House, going: Going) -> None:
    grant = runs.call(runs.world.opened(runs.broker))
    with launcher(runs) as one:
        granted, ready = one.launch({"grant": grant.id})
        runs.call(going(runs))
        assert permitted(runs, granted)
        assert one.again(ready, runs.handover)["ready"] is True
        runs.call(going(runs))
        late(runs)
        runs.until(lambda: not runs.runs.count)
        assert permitted(runs, granted)


@GOING
def test_each_hand_over_has_a_ticket_of_its_own_that_counts_once(runs: House, going: Going) -> None:
    with launcher(runs) as one:
        granted, first = one.launch(opening())
        runs.call(going(runs))
        second = one.again(first, runs.handover)
        assert second["ticket"] != first["ticket"]
        for _ in range(2):
            runs.call(going(runs))
            with launcher(runs) as thief:
                assert code(thief.ask({"ticket": first["ticket"]})) == "grant-token"
            second = one.again(second, runs.handover)
            assert second["ready"] is True
        assert not is_closed(runs, granted)


@pytest.mark.attack("LAU-14")
def test_a_ticket_counts_only_while_nobody_serves_its_run(runs: House) -> None:
    with launcher(runs) as one, launcher(runs) as thief:
        granted, ready = one.launch(opening())
        assert code(thief.ask({"ticket": ready["ticket"]})) == "grant-token"
        assert permitted(runs, granted)
        runs.call(next_edge(runs))
        assert one.again(ready, runs.handover)["ready"] is True


def _moved(one: Launcher) -> None:
    one.bound[0].close()
    one.bound[0] = socket.create_server(("127.0.0.1", 0))


def _fewer(one: Launcher) -> None:
    one.names.pop()
    one.bound.pop().close()


def _renamed(one: Launcher) -> None:
    one.names[0] = "channel"


@GOING
@pytest.mark.parametrize("spoil", [_moved, _fewer, _renamed])
def test_other_sockets_than_before_end_the_run(runs: House, going: Going, spoil: Callable[[Launcher], None]) -> None:
    with launcher(runs) as one:
        granted, ready = one.launch(opening(READ))
        runs.call(going(runs))
        spoil(one)
        assert code(one.again(ready, runs.handover)) == "invalid-request"
        runs.until(lambda: is_closed(runs, granted))
        assert runs.services.open == []


@GOING
def test_a_run_inside_a_run_is_handed_over_anew_inside_it(runs: House, going: Going) -> None:
    with launcher(runs) as outer:
        granted, first = outer.launch(opening())
        with launcher(runs, outer) as inner:
            child, second = inner.launch({"delegate": {"authorization_details": [READ]}})
            for _ in range(2):
                runs.call(going(runs))
                assert handover.receive(inner.sock) is None
                first = outer.again(first, runs.handover)
                second = inner.again(second, outer.path("launch"))
                with connect(inner.bound[0]) as client:
                    assert client.recv(100) == f"gateway {child['grant']}\n".encode()
        runs.until(lambda: grant_of(runs, child).revoked)
        assert not is_closed(runs, granted)


@pytest.mark.attack("LAU-14")
@GOING
def test_a_run_inside_a_run_is_not_handed_over_anew_outside_of_it(runs: House, going: Going) -> None:
    with launcher(runs) as outer:
        outer.launch(opening())
        with launcher(runs, outer) as inner:
            child, ready = inner.launch({"delegate": {"authorization_details": [READ]}})
            runs.call(going(runs))
            assert code(inner.again(ready, runs.handover)) == "grant-token"
            runs.until(lambda: grant_of(runs, child).revoked)


@GOING
def test_an_outer_run_that_does_not_come_back_takes_the_inner_one_with_it(runs: House, going: Going) -> None:
    grant = runs.call(runs.world.opened(runs.broker, READ, depth=3, fan_out=9))
    with launcher(runs) as outer:
        outer.launch({"grant": grant.id})
        with launcher(runs, outer) as inner:
            child, _ = inner.launch({"delegate": {"authorization_details": [READ]}})
            runs.call(going(runs))
            late(runs)
            runs.until(lambda: grant_of(runs, child).revoked)


def test_what_was_only_offered_when_the_broker_ended_is_over(runs: House) -> None:
    with launcher(runs) as one, launcher(runs) as two:
        offered, redeemed = one.begin({**SANDBOX, **opening()}), two.redeem({**SANDBOX, **opening()})
        runs.call(runs.restart())
        assert is_closed(runs, offered)
        assert is_closed(runs, redeemed)


def test_what_was_not_made_for_a_run_outlives_a_restart(runs: House) -> None:
    grant = runs.call(runs.world.opened(runs.broker))
    runs.call(runs.restart())
    late(runs)
    assert not runs.broker._tasks.check(grant.id).grant.revoked


def test_a_run_that_ended_before_does_not_come_back(runs: House) -> None:
    grant = runs.call(runs.world.opened(runs.broker))
    with launcher(runs) as one:
        _, ready = one.launch({"grant": grant.id})
        one.ask({"end": True})
        runs.call(runs.restart())
        assert not runs.runs.count
        assert code(one.again(ready, runs.handover)) == "grant-token"


def test_closing_an_edge_leaves_its_runs_to_the_next_one(runs: House) -> None:
    with launcher(runs) as one:
        granted, _ = one.launch(opening())
        runs.call(runs.server.close())
        assert not is_closed(runs, granted)
        assert not runs.server.busy


def test_end_of_file_at_an_edge_that_lives_ends_a_run_that_was_handed_over_anew(runs: House) -> None:
    with launcher(runs) as one:
        granted, ready = one.launch(opening())
        runs.call(next_edge(runs))
        one.again(ready, runs.handover)
        one.sock.close()
        runs.until(lambda: is_closed(runs, granted))


def test_a_run_that_could_not_be_recorded_is_not_begun(runs: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*_: object) -> None:
        raise UnavailableError

    with launcher(runs) as one:
        granted = one.redeem({**SANDBOX, **opening()})
        monkeypatch.setattr(runs.broker.runs, "keep", failing)
        names = one.bind(granted)
        assert code(one.ask({"bound": names}, [sock.fileno() for sock in one.bound])) == "unavailable"
        runs.until(lambda: is_closed(runs, granted))


@GOING
def test_runs_of_agents_are_handed_over_anew_without_their_sockets_being_shut(runs: House, going: Going) -> None:
    """What launchers inside runs pass is accepted on in a thread, which must let go of it and not end it."""
    with launcher(runs) as outer:
        granted, first = outer.launch(opening())
        with launcher(runs, outer) as inner:
            _, second = inner.launch({"grant": granted["grant"]})
            runs.call(going(runs))
            outer.again(first, runs.handover)
            assert inner.again(second, outer.path("launch"))["ready"] is True
            with connect(inner.bound[0]) as client:
                assert client.recv(100).startswith(b"gateway")


def test_a_run_whose_grant_has_ended_hears_so_when_its_edge_leaves(runs: House) -> None:
    with launcher(runs) as ended, launcher(runs) as waits:
        granted, _ = ended.launch(opening())
        waits.launch(opening())
        runs.call(noticed(runs, str(granted["grant"])))
        runs.call(runs.stop())
        heard = handover.receive(ended.sock)
        assert heard is not None
        assert heard[0]["state"] == "closed"
        assert handover.receive(waits.sock) is None


def test_a_run_that_was_ended_hears_so_when_its_edge_leaves_though_its_grant_goes_on(runs: House) -> None:
    grant = runs.call(runs.world.opened(runs.broker))
    with launcher(runs) as one:
        one.launch({"grant": grant.id})
        runs.call(told(runs, Notice(runs=True)))
        runs.call(runs.stop())
        heard = handover.receive(one.sock)
        assert heard is not None
        assert heard[0]["state"] == "closed"
    assert not runs.broker._tasks.check(grant.id).grant.revoked


async def noticed(house: House, grant: str) -> None:
    await told(house, Notice(grants=frozenset({grant})))


async def told(house: House, notice: Notice) -> None:
    house.server.noticed(notice)
