from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from remit.errors import AttenuationError, GrantEndedError, NotFoundError, ScopeError, UnavailableError
from remit.sdk import Bounds, Client, Grant, Place, Task, current, detail, task, verbs
from remit.sdk.grant import current_grant
from tests.sdk.plane import Served

RESEARCH = detail("search", paths=["/v1/search"])


def opened(client: Client, depth: int = 0, fan_out: int = 0) -> Task:
    return client.task("draft the summary", grants=["search", "warehouse"], bounds=Bounds("15m", depth, fan_out))


def test_a_task_is_open_within_its_block_and_closed_after_it(plane: Served, client: Client) -> None:
    with opened(client) as task:
        assert not plane.broker._tasks.task_of(task.id).head.closed
    assert plane.broker._tasks.task_of(task.id).head.closed
    assert task.report is not None
    assert task.report.state == "closed"


def test_a_resource_by_name_is_granted_as_wide_as_its_bound(client: Client) -> None:
    with opened(client) as task:
        assert [item["resource"] for item in task.details] == ["search", "warehouse"]
        assert task.details[0]["paths"] == ["/v1/**"]


def test_a_child_is_as_narrow_as_its_overrides_say(plane: Served, client: Client) -> None:
    with opened(client, depth=1, fan_out=1) as task, task.delegate("research", grants=[RESEARCH]) as child:
        granted = plane.broker._tasks.check(child.id).grant
        assert granted.scope[0].texts("paths") == ("/v1/search",)
        assert granted.label == "research"
        assert granted.parent == task.id


def test_a_child_ends_with_its_block_and_its_parent_lives_on(plane: Served, client: Client) -> None:
    with opened(client, depth=1, fan_out=1) as task:
        with task.delegate(grants=["search"]) as child:
            pass
        assert plane.broker._tasks.task_of(child.id).grant(child.id).revoked
        assert not plane.broker._tasks.check(task.id).grant.revoked


def test_an_override_that_widens_is_refused_by_the_broker_with_the_detail_named(client: Client) -> None:
    with opened(client, depth=1, fan_out=1) as task, pytest.raises(AttenuationError) as refusal:
        task.delegate(grants=[detail("search", paths=["/admin"])])
    assert refusal.value.offending[0]["paths"] == ["/admin"]


def test_a_name_the_parent_does_not_hold_is_refused_before_anything_is_sent(client: Client) -> None:
    with opened(client, depth=1, fan_out=1) as task, pytest.raises(ScopeError, match="no detail for `mail`"):
        task.delegate(grants=["mail"])


def test_a_lease_yields_its_credential_and_is_gone_after_the_block(plane: Served, client: Client) -> None:
    with opened(client) as task:
        with task.lease("warehouse", tables=["sales.revenue"]) as credential:
            assert credential.user in plane.world.target.accounts
            assert credential["password"] == "p4ss"
        assert plane.world.target.accounts == {}


def test_asking_again_with_the_same_key_revokes_the_earlier_lease(plane: Served, client: Client) -> None:
    with opened(client) as task:
        first = task.lease("warehouse", key="once").credential.user
        task.lease("warehouse", key="once")
        assert first not in plane.world.target.accounts
        assert len(plane.world.target.accounts) == 1


def test_a_lease_can_be_renewed_within_its_detail(plane: Served, client: Client) -> None:
    with opened(client) as task:
        lease = task.lease("warehouse")
        plane.world.later(60)
        before = lease.expires_at
        assert lease.renew("10m") == lease.expires_at
        assert abs(lease.expires_at - before - timedelta(seconds=60)) < timedelta(seconds=1)


def test_a_task_can_be_renewed_and_is_used_after_its_first_end(plane: Served, client: Client) -> None:
    with opened(client) as task:
        plane.world.later(600)
        ends = task.renew("1h")
        assert abs(ends - plane.world.now - timedelta(hours=1)) < timedelta(seconds=1)
        plane.world.later(1_200)
        assert task.lease("warehouse").expires_at > plane.world.now


def test_no_agent_renews_the_task_that_it_is_in(plane: Served, client: Client) -> None:
    with opened(client) as task, Client(plane.channel(task.id)) as inside, pytest.raises(NotFoundError):
        inside.run(verbs.renew_task(task.task_id, "1h"))


def test_revoking_by_hand_says_what_became_of_it(client: Client) -> None:
    with opened(client) as task:
        task.lease("warehouse")
        assert task.revoke() == verbs.Report("closed", 1, [], 1)


def test_a_block_whose_grant_was_revoked_meanwhile_ends_quietly(plane: Served, client: Client) -> None:
    with opened(client, depth=1, fan_out=1) as task, task.delegate(grants=["search"]) as child:
        client.run(verbs.end(child.id))
    assert plane.broker._tasks.task_of(child.id).head.closed


def test_an_error_in_the_block_is_not_hidden_by_one_at_its_end(client: Client) -> None:
    task = opened(client)
    task._client = Client(Place(Path("/nowhere")))
    with pytest.raises(ZeroDivisionError) as kept, task:
        raise ZeroDivisionError
    assert kept.value.__notes__ == ["and ending what was granted failed: no broker answers"]


def test_an_error_at_the_end_of_a_quiet_block_is_raised(client: Client) -> None:
    task = opened(client)
    task._client = Client(Place(Path("/nowhere")))
    with pytest.raises(UnavailableError), task:
        pass


def test_no_broker_is_one_clear_error() -> None:
    with Client(Place(Path("/nowhere"))) as alone, pytest.raises(UnavailableError, match="no broker answers") as error:
        alone.run(verbs.tasks())
    assert error.value.help is not None
    assert "remit up" in error.value.help


# -- the current grant ----------------------------------------------------------------------------------------------


def test_the_innermost_entered_grant_is_current(client: Client) -> None:
    with opened(client, depth=1, fan_out=1) as task:
        with task.delegate(grants=["search"]) as child:
            assert current() is child
        assert current() is task
    assert current_grant.get() is None


def test_without_a_run_or_a_task_nothing_is_current(monkeypatch: pytest.MonkeyPatch, plane: Served) -> None:
    monkeypatch.setenv("REMIT_SOCKET", str(plane.control))
    with pytest.raises(NotFoundError, match="in no run"):
        current()


def test_in_a_run_its_own_grant_is_current(monkeypatch: pytest.MonkeyPatch, plane: Served, client: Client) -> None:
    with opened(client) as task:
        entered(monkeypatch, plane, task)
        current_grant.set(None)
        assert current().id == task.id
        assert current().details == task.details


def entered(monkeypatch: pytest.MonkeyPatch, plane: Served, grant: Grant, ports: dict[str, int] | None = None) -> Place:
    place = plane.channel(grant.id, ports)
    monkeypatch.setenv("REMIT_SOCKET", str(place.socket))
    monkeypatch.setenv("REMIT_GRANT", grant.id)
    return place


# -- in a run -------------------------------------------------------------------------------------------------------


def test_a_task_in_a_run_is_a_child_of_the_runs_grant(
    monkeypatch: pytest.MonkeyPatch, plane: Served, client: Client
) -> None:
    with opened(client, depth=1, fan_out=1) as root:
        entered(monkeypatch, plane, root)
        with task("read one page", grants=[RESEARCH]) as inner:
            assert inner.task_id == root.task_id
            assert plane.broker._tasks.check(inner.id).grant.label == "read one page"
        assert plane.broker._tasks.task_of(inner.id).grant(inner.id).revoked
        assert not plane.broker._tasks.task_of(root.id).head.closed


def test_in_a_run_no_token_is_asked_for(monkeypatch: pytest.MonkeyPatch, plane: Served, client: Client) -> None:
    with opened(client, depth=1, fan_out=1) as root:
        entered(monkeypatch, plane, root)
        with task("read", grants=["search"]) as inner:
            assert inner.opened.token is None
            assert plane.broker._tasks.check(inner.id).grant.binding.jkt is None


def test_in_a_run_the_grant_is_named_and_nothing_secret_is_sent(
    monkeypatch: pytest.MonkeyPatch, plane: Served, client: Client
) -> None:
    seen: list[httpx.Request] = []
    with opened(client, depth=1, fan_out=1) as root:
        entered(monkeypatch, plane, root)
        with task("read", grants=["search"]) as inner, _noting(seen) as http:
            http.get(inner.url("search") + "/v1/search", auth=inner.auth)
    assert seen[0].headers["remit-grant"] == inner.id
    assert "authorization" not in seen[0].headers
    assert "dpop" not in seen[0].headers


def _noting(seen: list[httpx.Request]) -> httpx.Client:
    def note(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    return httpx.Client(transport=httpx.MockTransport(note))


def test_a_run_cannot_reach_above_its_own_grant(plane: Served, client: Client) -> None:
    with opened(client, depth=1, fan_out=1) as root, root.delegate(grants=["search"]) as child:
        with Client(plane.channel(child.id)) as inside, pytest.raises(NotFoundError):
            inside.run(verbs.revoke(root.task_id, root.id))
        assert not plane.broker._tasks.check(root.id).grant.revoked


# -- outside a run --------------------------------------------------------------------------------------------------


def test_outside_a_run_every_grant_is_bound_to_a_key_of_its_own(plane: Served, client: Client) -> None:
    with opened(client, depth=1, fan_out=1) as root, root.delegate(grants=["search"]) as child:
        jkts = {plane.broker._tasks.check(grant.id).grant.binding.jkt for grant in (root, child)}
        assert None not in jkts
        assert len(jkts) == 2


def test_a_bound_token_is_accepted_with_its_proof(plane: Served, client: Client) -> None:
    with opened(client, depth=1, fan_out=1) as root, root.delegate(grants=["search"]) as child:
        for grant in (root, child):
            assert httpx.get(f"{plane.base}/v1/self", auth=grant.auth).json()["grant"] == grant.id


def test_after_revocation_the_token_is_worth_nothing(plane: Served, client: Client) -> None:
    with opened(client) as root:
        root.revoke()
        answer = httpx.get(f"{plane.base}/v1/self", auth=root.auth)
    assert (answer.status_code, answer.json()["code"]) == (401, "revoked")


def test_ending_twice_is_no_error(client: Client) -> None:
    root = opened(client)
    assert root.close().state == "closed"
    with root:
        pass
    assert root.report is not None
    assert root.report.revoked == 0


def test_an_ended_grant_has_no_children(client: Client) -> None:
    root = opened(client, depth=1, fan_out=1)
    root.revoke()
    with pytest.raises(GrantEndedError):
        root.delegate(grants=["search"])


def test_a_task_that_is_refused_leaves_no_connection_open(plane: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMIT_SOCKET", str(plane.control))
    with pytest.raises(NotFoundError, match="no resource `nowhere`"):
        task("draft", grants=["nowhere"])


def test_a_task_of_its_own_takes_its_connection_along(plane: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMIT_SOCKET", str(plane.control))
    with task("draft", grants=["search"]) as opened_here:
        connection = opened_here._client._http
    assert connection.is_closed


def test_a_token_is_renewed_at_the_broker_before_it_ends(plane: Served, client: Client) -> None:
    with opened(client) as task:
        before, task.signer._ends = task.signer._token, 0.0
        assert httpx.get(f"{plane.base}/v1/self", auth=task.auth).json()["grant"] == task.id
        assert task.signer._token != before
