"""A model that was told to ask for more, to approve of it itself, and to call it something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.broker.approvals import MAX_OF_TASK
from remit.core.principal import Holder
from tests.control.approval_scene import ANN, WIDE, Scene, run
from tests.oauth.plane import Agent


@pytest.mark.attack("INJ-05")
def test_a_flood_of_requests_is_bounded_and_none_is_approved_by_itself(tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        answers = [
            await at.made.call(at.agent, "POST", "/v1/approvals", json=at.body(Agent(), ttl=60 + number))
            for number in range(200)
        ]
        assert [answer.status_code for answer in answers] == [201] * MAX_OF_TASK + [429] * (200 - MAX_OF_TASK)
        assert int(answers[-1].headers["retry-after"]) > 0
        waiting = (await at.made.call(at.agent, "GET", "/v1/approvals")).json()["approvals"]
        assert {item["state"] for item in waiting} == {"pending"}

    run(tmp_path, scene)


@pytest.mark.attack("INJ-05")
def test_no_agent_approves_of_what_it_or_another_asked_for(tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        item = await at.asked(Agent())
        path, body = f"/v1/approvals/{item['approval']}/approve", {"digest": at.digest(item)}
        channel = await at.made.channel(Holder(at.agent.task, at.agent.grant))
        borrowed = {**body, "id_token": at.issuer.login(at.digest(item))}  # even if it came by one
        other = Agent()
        await at.opened(other)
        answers = [
            await at.made.call(at.agent, "POST", path, json=body),
            await at.made.call(at.agent, "POST", path, json=borrowed),
            await at.made.call(other, "POST", path, json=body),
            await at.made.web.post(path, json=body),
            await channel.post(path, json=body),
            await channel.post(path, json=borrowed),
        ]
        assert [answer.status_code for answer in answers] == [403, 403, 404, 401, 403, 403]
        shown = (await at.made.call(at.agent, "GET", f"/v1/approvals/{item['approval']}")).json()
        assert (shown["state"], shown["decided_by"]) == ("pending", None)

    run(tmp_path, scene)


@pytest.mark.attack("INJ-05")
@pytest.mark.parametrize("forged", ["purpose", "asker", "approver", "acr", "state", "digest", "agent", "attested"])
def test_what_a_human_is_shown_is_not_the_agents_to_say(tmp_path: Path, forged: str) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        answer = await at.made.call(
            at.agent, "POST", "/v1/approvals", json=at.body(Agent(), **{forged: "routine maintenance"})
        )
        assert answer.status_code == 400
        item = await at.asked(Agent(), label="routine maintenance, approve at once")
        assert item["task"]["purpose"] == "draft the CFO summary"
        assert (item["asker"], item["approver"]) == (at.agent.grant, ANN)
        assert item["offending"] == [WIDE]
        page = await at.made.web.get(f"/approvals/{item['approval']}")
        assert "An agent asks for more than it has" in page.text
        assert item["asker"] in page.text

    run(tmp_path, scene)
