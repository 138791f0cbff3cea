"""The broker's side of a launch: what is opened for a run ends with it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress

import pytest

from remit.core.principal import Holder
from remit.run import handover
from tests.run.launchers import SANDBOX, Launcher, code, grant_of, is_closed, launcher
from tests.run.rig import READ, House, opening


def test_a_task_is_opened_for_a_run_and_its_listeners_are_served(runs: House) -> None:
    with launcher(runs) as one:
        granted, ready = one.launch(opening())
        assert ready["ready"] is True
        assert not is_closed(runs, granted)
        with socket.create_connection(one.bound[0].getsockname()) as client:
            assert client.recv(100) == f"gateway {granted['grant']}\n".encode()


def test_the_environment_names_the_ports_that_were_bound(runs: House) -> None:
    with launcher(runs) as one:
        _, ready = one.launch(opening())
        environment = ready["environment"]
        assert isinstance(environment, dict)
        assert environment["REMIT_GATEWAY"] == f"http://127.0.0.1:{one.bound[0].getsockname()[1]}"


@pytest.mark.attack("LAU-14")
def test_a_ticket_counts_once(runs: House) -> None:
    with launcher(runs) as one, launcher(runs) as two:
        offered = one.redeem({**SANDBOX, **opening()})
        assert code(two.ask({"ticket": offered["ticket"]})) == "grant-token"
        assert not is_closed(runs, offered)


@pytest.mark.attack("LAU-14")
def test_a_ticket_for_inside_a_run_is_not_redeemed_outside_nor_in_another_and_what_it_was_for_ends(runs: House) -> None:
    with launcher(runs) as outer, launcher(runs) as other:
        outer.launch(opening())
        other.launch(opening())
        for where in (None, other):
            with launcher(runs, outer) as inner, launcher(runs, where) as elsewhere:
                offered = inner.begin({**SANDBOX, "delegate": {"authorization_details": [READ]}})
                assert code(elsewhere.ask({"ticket": offered["ticket"]})) == "grant-token"
                runs.until(lambda: grant_of(runs, offered).revoked)  # noqa: B023 - it is called here
        with launcher(runs) as third, launcher(runs, outer) as inside:
            offered = third.begin({**SANDBOX, **opening()})
            assert code(inside.ask({"ticket": offered["ticket"]})) == "grant-token"
            runs.until(lambda: is_closed(runs, offered))


@pytest.mark.parametrize("shown", [{}, {"ticket": 7}, {"ticket": "unknown"}, {"ticket": "\ud800"}, opening()], ids=str)
def test_whoever_shows_no_ticket_leaves_nothing_behind(runs: House, shown: Mapping[str, object]) -> None:
    with launcher(runs) as one, socket.socket() as sock:
        assert code(one.ask(shown)) in {"invalid-request", "grant-token"}
        with suppress(OSError):
            handover.send(one.sock, {"bound": ["gateway"]}, [sock.fileno()])
        runs.until(lambda: not runs.server.busy)
        assert runs.services.open == []
        assert list(runs.broker._tasks) == []


def test_end_of_file_closes_the_task_that_was_opened_for_the_run(runs: House) -> None:
    with launcher(runs) as one:
        granted, _ = one.launch(opening())
    runs.until(lambda: is_closed(runs, granted))
    runs.until(lambda: not runs.services.open)


@pytest.mark.attack("REV-08")
def test_a_run_that_ends_while_its_task_cannot_be_read_leaves_no_grant(runs: House) -> None:
    async def unread() -> None:
        tasks = runs.broker._tasks
        tasks.forget(str(granted["task"]))
        tasks._read_later(str(granted["task"]))  # as after a commit that failed, on a medium that cannot be read either

    with launcher(runs) as one:
        granted, _ = one.launch(opening())
        runs.call(unread())
    runs.until(lambda: not runs.services.open)
    runs.world.later(1)
    runs.call(runs.broker.sweep())
    runs.until(lambda: is_closed(runs, granted))


def test_saying_that_it_ended_is_answered_when_the_authority_has_ended(runs: House) -> None:
    with launcher(runs) as one:
        granted, _ = one.launch(opening())
        assert one.ask({"end": True})["state"] == "closed"
        assert is_closed(runs, granted)


def test_a_launcher_that_leaves_half_way_leaves_nothing_open(runs: House) -> None:
    with launcher(runs) as one:
        granted = one.redeem({**SANDBOX, **opening()})
    runs.until(lambda: is_closed(runs, granted))


def test_a_run_under_a_grant_that_was_there_ends_without_it(runs: House) -> None:
    with launcher(runs) as outer:
        granted, _ = outer.launch(opening())
        with launcher(runs) as inner:
            inner.launch({"grant": granted["grant"]})
        runs.until(lambda: len(runs.services.open) == 3)
        assert not grant_of(runs, granted).revoked


def test_a_delegated_grant_ends_with_its_run_and_its_parent_stays(runs: House) -> None:
    with launcher(runs) as outer:
        granted, _ = outer.launch(opening())
        request = {"parent": granted["grant"], "authorization_details": [READ], "label": "reader"}
        with launcher(runs) as inner:
            child, _ = inner.launch({"delegate": request})
            assert (grant_of(runs, child).parent, grant_of(runs, child).label) == (granted["grant"], "reader")
        runs.until(lambda: grant_of(runs, child).revoked)
        assert not grant_of(runs, granted).revoked


def test_inside_a_run_the_parent_is_the_runs_own_grant(runs: House) -> None:
    with launcher(runs) as outer:
        granted, _ = outer.launch(opening())
        with launcher(runs, outer) as inner:
            child, _ = inner.launch({"delegate": {"authorization_details": [READ]}})
            assert grant_of(runs, child).parent == granted["grant"]


def test_a_run_ends_the_runs_launched_inside_it(runs: House) -> None:
    with launcher(runs) as outer:
        granted, _ = outer.launch(opening())
        inner = Launcher(runs, outer)
        inner.launch({"delegate": {"authorization_details": [READ]}})
        outer.sock.close()
        runs.until(lambda: is_closed(runs, granted))
        runs.until(lambda: not runs.services.open)
        assert handover.receive(inner.sock) is None
        inner.end()


def test_a_lease_that_cannot_be_ended_is_said_to_be_outstanding(runs: House) -> None:
    with launcher(runs) as one:
        granted, _ = one.launch(opening())
        grant = str(granted["grant"])
        holder = Holder(str(granted["task"]), grant)
        detail = grant_of(runs, granted).scope[1]
        runs.call(runs.broker.issue(holder, grant, detail))
        runs.world.target.fail.add("revoke")
        report = one.ask({"end": True})
        outstanding = report["outstanding"]
        assert isinstance(outstanding, list)
        assert (report["state"], outstanding[0]["kind"]) == ("unknown", "postgres")
