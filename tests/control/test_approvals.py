"""``/v1/approvals`` on real sockets: an agent asks, a human decides by proof that no agent has, it goes on."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from remit.core.scope import Access
from remit.web import listen
from tests.broker.world import TABLE, holder
from tests.control.approval_scene import ANN, NARROW, WIDE, Scene, problem, run
from tests.oauth.plane import EXCHANGE, GRANT, Agent, Form, Plane, later, play
from tests.uses import permitted_use

# -- the whole way --------------------------------------------------------------------------------------------------


def test_from_a_denial_to_the_grant_that_a_human_approved(tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        child = Agent()
        denied = await at.made.exchange(
            at.agent, {**at.made.delegation(at.agent, child), "authorization_details": json.dumps([WIDE])}
        )
        assert denied.status_code == 400
        assert denied.json()["offending"][0]["paths"] == ["/v1/**"]
        assert "POST /v1/approvals" in denied.json()["help"]
        item = await at.asked(child)
        assert (item["state"], item["approver"], item["acr"]) == ("pending", ANN, ["urn:mfa"])
        assert item["exceeds"] == ["authorization_details"]
        assert item["offending"] == [WIDE]
        assert item["request"]["jkt"]
        done = await at.decide(item)
        assert (done.status_code, done.json()["state"]) == (200, "approved")
        made = await at.made.exchange(at.agent, at.exact(child, item))
        assert made.status_code == 200, made.text
        assert made.json()["authorization_details"] == [WIDE]
        at.made.taken(made.json(), child)
        seen = await at.made.call(child, "GET", "/v1/self")
        assert seen.json()["grant"] == made.json()["grant"]
        again = await at.made.exchange(at.agent, at.exact(Agent(), item))
        assert again.status_code == 400
        shown = (await at.made.call(at.agent, "GET", f"/v1/approvals/{item['approval']}")).json()
        assert (shown["state"], shown["grant"]) == ("consumed", made.json()["grant"])
        assert shown["decided_by"] == {"sub": ANN, "acr": "urn:mfa"}

    run(tmp_path, scene)


def test_the_id_of_an_approval_is_enough_and_what_is_sent_along_has_to_be_what_was_approved(tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        child = Agent()
        item = await at.asked(child, depth=1, fan_out=1, unattested=False)
        await at.decide(item)

        def form(key: Agent, **more: str) -> Form:
            sent = at.made.delegation(at.agent, key, approval=item["approval"], **more)
            return {name: value for name, value in sent.items() if name in more or name != "authorization_details"}

        for other in ({"depth": "0"}, {"label": "else"}, {"authorization_details": json.dumps([NARROW])}):
            refused = await at.made.exchange(at.agent, form(child, **other))
            assert (refused.status_code, refused.json()["code"]) == (400, "approval"), refused.text
        assert (await at.made.exchange(at.agent, form(Agent()))).json()["code"] == "approval"  # another key
        made = await at.made.exchange(at.agent, form(child, ttl="300"))
        assert made.status_code == 200, made.text
        grant = at.made.broker._tasks.check(made.json()["grant"]).grant
        assert (grant.bounds.depth, grant.bounds.fan_out, grant.bounds.unattested, grant.label) == (1, 1, False, "wide")

    run(tmp_path, scene)


def test_every_hop_leaves_its_receipt_with_all_that_a_reader_needs(tmp_path: Path) -> None:
    """AIMS §11: agent, delegated subject, resource and action, decision, time and correlation, posture, remediation."""

    async def scene(at: Scene) -> None:
        await at.opened()
        child = Agent()
        item = await at.asked(child)
        await at.decide(item)
        made = (await at.made.exchange(at.agent, at.exact(child, item))).json()
        await permitted_use(at.made.broker, made["grant"], Access("search", "GET", path="/v1/all"), "req_7")
        await at.made.control.post(f"/v1/tasks/{made['task']}/grants/{made['grant']}/revoke", json={})
        opened, ask, approve, hop, ended = [
            e for e in await at.made.world.events() if e.event.partition(".")[0] in {"task", "grant", "approval"}
        ]
        assert [e.event for e in (opened, ask, approve, hop, ended)] == [
            "task.open",
            "approval.ask",
            "approval.approve",
            "grant.delegate",
            "grant.revoke",
        ]
        grant = at.made.broker._tasks.task_of(made["grant"]).grant(made["grant"])
        for event in (opened, hop):
            assert event.agent is not None
            assert event.agent.startswith("spiffe://remit.local/task/")
            assert (event.attested, event.subject, event.decision) == (False, ANN, "allow")
            assert event.policy == "test-1"
            assert event.posture == "none/holder/kek-file"
            assert event.cause == "anybody may"
            assert event.at == at.made.world.now
            assert event.detail_s256
            assert event.key == at.made.broker._tasks.task_of(made["grant"]).grant(event.grant or "").binding.jkt
            assert event.key
        assert (hop.lineage, hop.approval) == ((at.agent.grant, made["grant"]), item["approval"])
        assert (ask.approval, ask.action, ask.detail_s256) == (item["approval"], "grant.delegate", at.digest(item))
        assert (approve.subject, approve.approval, approve.detail_s256) == (ANN, item["approval"], at.digest(item))
        assert (ended.grant, ended.decision, ended.cause, ended.subject) == (grant.id, "done", "1 grants", ANN)
        [used] = [e for e in await at.made.world.events() if e.event == "resource.use"]
        assert (used.resource, used.action, used.decision, used.request) == ("search", "GET", "allow", "req_7")
        assert (used.agent, used.subject, used.at) == (grant.agent, ANN, at.made.world.now)

    run(tmp_path, scene)


# -- looking, waiting -----------------------------------------------------------------------------------------------


def test_each_sees_what_was_asked_below_it_and_foreign_is_as_unknown(tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        item = await at.asked(Agent())
        stranger = Agent()
        await at.opened(stranger)
        assert (await at.made.call(at.agent, "GET", "/v1/approvals")).json()["approvals"] == [item]
        assert (await at.made.control.get("/v1/approvals")).json()["approvals"] == [{**item, "digest": at.digest(item)}]
        assert (await at.made.call(stranger, "GET", "/v1/approvals")).json()["approvals"] == []
        foreign = await at.made.call(stranger, "GET", f"/v1/approvals/{item['approval']}")
        unknown = await at.made.call(stranger, "GET", "/v1/approvals/apr_999")
        assert (problem(foreign), foreign.json()["detail"]) == ((404, "not-found"), unknown.json()["detail"])

    run(tmp_path, scene)


async def somebody_waits(at: Scene) -> None:
    """Go on when a request waits for a decision."""
    while not at.made.broker._approvals._decided:  # noqa: ASYNC110 - nobody says when a request has begun to wait
        await asyncio.sleep(0)


@pytest.mark.attack("DOS-13")
def test_agents_that_wait_for_a_human_keep_nobody_out(tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        path = f"/v1/approvals/{(await at.asked(Agent()))['approval']}"
        host, _, port = at.made.base.removeprefix("http://").partition(":")
        crowd = []
        for _ in range(2 * listen.MAX_CONNECTIONS):
            reader, writer = await asyncio.open_connection(host, int(port))
            headers = {"host": f"{host}:{port}", **at.made.headers(at.agent, "GET", path)}
            head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            writer.write(f"GET {path}?wait=25 HTTP/1.1\r\n{head}\r\n".encode())
            crowd.append((reader, writer))
        listener = at.made.listeners[1]
        for reader, _ in crowd[: listen.MAX_CONNECTIONS]:  # who waited longest makes room
            with suppress(ConnectionError):
                assert await reader.read() == b""
        while len(listener.state.tasks) != listen.MAX_CONNECTIONS:  # noqa: ASYNC110 - nobody says when all wait
            await asyncio.sleep(0)
        async with httpx.AsyncClient(base_url=at.made.base, timeout=5) as somebody:
            for _ in range(3):
                assert (await somebody.get("/oauth/jwks", headers={"connection": "close"})).status_code == 200
        for _, writer in crowd:
            writer.transport.abort()

    run(tmp_path, scene)


def test_an_answer_waits_for_the_decision_and_no_longer_than_it_may(tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        item = await at.asked(Agent())
        path = f"/v1/approvals/{item['approval']}"
        headers = at.made.headers(at.agent, "GET", path)
        waiting = asyncio.create_task(at.made.web.get(f"{path}?wait=25", headers=headers))
        await somebody_waits(at)
        assert not waiting.done()
        await at.decide(item)
        assert (await waiting).json()["state"] == "approved"
        for wrong in ("26", "-1", "x", "1.5"):
            assert problem(await at.made.control.get(f"{path}?wait={wrong}")) == (400, "invalid-request")

    run(tmp_path, scene)


def test_whoever_ended_meanwhile_is_not_told(tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        item = await at.asked(Agent())
        path = f"/v1/approvals/{item['approval']}"
        headers = at.made.headers(at.agent, "GET", path)
        waiting = asyncio.create_task(at.made.web.get(f"{path}?wait=25", headers=headers))
        await somebody_waits(at)
        await at.made.control.post(f"/v1/tasks/{at.agent.task}/close", json={})
        await at.decide(item, "deny")
        assert problem(await waiting) == (403, "revoked")

    run(tmp_path, scene)


# -- in a run, at the control socket ----------------------------------------------------------------------------------


def test_a_run_asks_over_its_channel_and_goes_on_without_tokens(tmp_path: Path) -> None:
    async def scene(made: Plane) -> None:
        root = await made.opened(authorization_details=json.dumps([NARROW]), depth="1", fan_out="1")
        channel = await made.channel(holder(made.broker, made.broker._tasks.check(root["grant"]).grant))
        body = {"parent": root["grant"], "authorization_details": [WIDE], "exercise": False}
        item = (await channel.post("/v1/approvals", json=body)).json()
        assert (item["asker"], item["lineage"][0]["grant"]) == (root["grant"], root["grant"])
        path, digest = f"/v1/approvals/{item['approval']}", made.broker._approvals.get(item["approval"]).digest
        assert problem(await channel.post(f"{path}/approve", json={"digest": digest})) == (403, "denied")
        assert (await made.control.post(f"{path}/approve", json={"digest": digest})).status_code == 200
        form = {
            "grant_type": EXCHANGE,
            "subject_token": root["grant"],
            "subject_token_type": GRANT,
            "authorization_details": json.dumps([WIDE]),
            "exercise": "false",
            "approval": item["approval"],
        }
        wider = {**form, "exercise": "true"}
        assert (await channel.post("/oauth/token", data=wider)).json()["error"] == "access_denied"
        granted = await channel.post("/oauth/token", data=form)
        assert granted.status_code == 200, granted.text
        shown = (await channel.get(f"/v1/tasks/{root['task']}")).json()["grants"]
        child = next(grant for grant in shown if grant["grant"] == granted.json()["grant"])
        assert (child["approval"], child["approved"], child["unusable"]) == (item["approval"], [0], "binding")
        assert "access_token" not in granted.json()

    play(tmp_path, scene)


def test_what_is_shown_of_the_lineage_stops_where_the_caller_may_look(tmp_path: Path) -> None:
    async def scene(made: Plane) -> None:
        parent, child = Agent(), Agent()
        await made.opened(parent, authorization_details=json.dumps([TABLE, NARROW]))
        await made.delegated(parent, child, authorization_details=json.dumps([NARROW]), depth="1", fan_out="1")
        body = {"parent": child.grant, "authorization_details": [WIDE]}
        item = (await made.call(child, "POST", "/v1/approvals", json=body)).json()
        assert [node["grant"] for node in item["lineage"]] == [child.grant]
        above = (await made.call(parent, "GET", f"/v1/approvals/{item['approval']}")).json()
        assert [node["grant"] for node in above["lineage"]] == [parent.grant, child.grant]

    play(tmp_path, scene)


def test_it_lapses_and_is_forgotten(tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        child = Agent()
        item = await at.asked(child)
        later(at.made, 601)
        assert (await at.made.control.get(f"/v1/approvals/{item['approval']}")).json()["state"] == "lapsed"
        assert problem(await at.decide(item)) == (403, "lapsed")
        later(at.made, 600)
        assert (await at.made.control.get("/v1/approvals")).json() == {"approvals": []}

    run(tmp_path, scene)
