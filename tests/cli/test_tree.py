from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from remit.cli.entry import run
from remit.cli.task import drawn

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = (NOW + timedelta(minutes=5)).isoformat()


def grant(name: str, parent: str | None, **more: object) -> dict[str, Any]:
    detail = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"]}
    plain = {"grant": name, "parent": parent, "label": "", "used": [0], "revoked": False, "expires_at": LATER}
    return {**plain, "authorization_details": [detail], **more}


def task(*grants: dict[str, Any], **more: object) -> dict[str, Any]:
    plain = {"task": "task_1", "purpose": "draft", "subject": {"sub": "unix://host#1000"}, "closed": False}
    return {**plain, "expires_at": LATER, "root": grants[0]["grant"], "grants": list(grants), "leases": [], **more}


def shown(*tasks: dict[str, Any], width: int = 100) -> str:
    console = Console(width=width, color_system=None, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        console.print(drawn(tasks, NOW))
    return captured.get()


def test_the_human_is_at_the_root() -> None:
    assert shown(task(grant("grt_1", None))).splitlines()[0] == "human unix://host#1000"


def test_a_workload_at_the_root_is_called_one() -> None:
    subject = {"sub": "spiffe://prod.test/ns/agents/planner", "acr": "workload"}
    line = shown(task(grant("grt_1", None), subject=subject)).splitlines()[0]
    assert line == "workload spiffe://prod.test/ns/agents/planner"


def test_children_hang_below_their_parents() -> None:
    text = shown(task(grant("grt_1", None), grant("grt_2", "grt_1", label="research"), grant("grt_3", "grt_2")))
    depths = [line.index("grt_") for line in text.splitlines() if "grt_" in line]
    assert depths == sorted(depths)
    assert "research  grt_2" in text


def test_ids_are_whole_at_80_columns() -> None:
    ids = [f"grt_{number:022}" for number in range(12)]
    nodes = [
        grant(
            name, parent, label="a label of several words", attested=True, agent="spiffe://prod.test/ns/agents/planner"
        )
        for name, parent in zip(ids, [None, *ids], strict=False)
    ]
    words = shown(task(*nodes), width=80).split()
    assert [word for word in words if word.startswith("grt_")] == ids


def test_revoked_and_expired_are_told_apart() -> None:
    text = shown(task(grant("grt_1", None, revoked=True), grant("grt_2", "grt_1", expires_at=NOW.isoformat())))
    assert "grt_1  revoked" in text
    assert "grt_2  expired" in text


def test_a_closed_task_has_no_live_grant() -> None:
    assert "live" not in shown(task(grant("grt_1", None), closed=True))


def test_a_lease_shows_its_state_and_what_is_wrong_with_it() -> None:
    lease = {"lease": "lse_1", "grant": "grt_1", "kind": "postgres", "resource": "warehouse", "expires_at": LATER}
    active = {**lease, "state": "active", "stuck": False, "residue": False}
    stuck = {**lease, "lease": "lse_2", "state": "revoking", "stuck": True, "residue": False}
    text = shown(task(grant("grt_1", None), leases=[active, stuck]))
    assert "lease postgres / warehouse  lse_1  active  5m 00s left" in text
    assert "lse_2  revoking, stuck" in text


def test_uses_are_counted_where_they_are_limited() -> None:
    detail = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "uses": 5}
    assert "(3 used)" in shown(task(grant("grt_1", None, authorization_details=[detail], used=[3])))


def test_several_humans_each_have_their_tree() -> None:
    other = task(grant("grt_2", None), task="task_2", subject={"sub": "https://idp.example#ada"})
    lines = shown(task(grant("grt_1", None)), other)
    assert "human unix://host#1000" in lines
    assert "human https://idp.example#ada" in lines


def test_what_an_agent_is_called_is_text_and_no_markup() -> None:
    text = shown(task(grant("grt_1", None, label="[red]\x1b[2Jx"), purpose="[bold]p"))
    assert "[red]\\x1b[2Jx" in text
    assert "[bold]p" in text


@pytest.mark.parametrize(
    ("isolation", "mark"),
    [("none", "no isolation"), ("host-net", "host-net"), ("unsandboxed", "unsandboxed"), ("namespace", "")],
)
def test_what_surroundings_do_not_promise_is_marked(isolation: str, mark: str) -> None:
    text = shown(task(grant("grt_1", None, posture={"isolation": isolation})))
    [line] = [line for line in text.splitlines() if "grt_1" in line]
    assert line.endswith(f"  {mark}" if mark else "left")


def test_a_grant_that_is_not_to_be_used_itself_is_marked_as_advisory() -> None:
    text = shown(task(grant("grt_1", None, exercise=False, posture={"isolation": "namespace"})))
    assert "not to be used itself (advisory)" in text


def test_where_no_child_can_be_the_holder_itself_that_is_said_to_bind() -> None:
    text = shown(task(grant("grt_1", None, exercise=False, unusable="binding", posture={"isolation": "namespace"})))
    assert "not to be used itself (binding)" in text


def test_who_was_attested_and_what_a_human_approved_is_marked() -> None:
    agent = "spiffe://prod.test/ci/build"
    child = grant("grt_2", "grt_1", attested=True, agent=agent, approval="apr_1", approved=[0])
    text = shown(task(grant("grt_1", None), child))
    [line] = [line for line in text.splitlines() if "grt_2" in line]
    assert f"attested {agent}" in line
    assert "approved apr_1" in text
    assert text.count("(not of its parent: approved)") == 1


def test_no_task_is_said() -> None:
    assert shown().strip() == "no task is open"


def test_a_deep_tree_is_drawn_without_recursion_of_ours() -> None:
    grants = [grant("grt_0", None), *(grant(f"grt_{n}", f"grt_{n - 1}") for n in range(1, 65))]
    assert len(list(drawn([task(*grants)], NOW).children)) == 1


@pytest.mark.usefixtures("plane")
def test_watching_draws_until_it_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["open", "draft", "-r", "search"])
    rounds = []

    def pause() -> None:
        rounds.append(1)
        if len(rounds) > 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("remit.cli.task.pause", pause)
    assert run(["tree", "--watch"]) == 130
    assert "draft" in capsys.readouterr().out
    assert len(rounds) == 3
