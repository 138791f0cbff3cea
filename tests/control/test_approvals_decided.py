"""Who decides on an approval over ``/v1/approvals``, and who never does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remit import jose
from tests.broker.asking import kept
from tests.broker.world import holder
from tests.control.approval_scene import Scene, problem, run
from tests.oauth.consent_driver import ALICE, BOB, App, browser, press, scene
from tests.oauth.plane import Agent, Plane, play


def test_no_channel_of_a_run_decides_whatever_it_brings(tmp_path: Path) -> None:
    """Its socket stands for the run: an ID token that came its way, even one made for this request, changes nothing."""

    async def scene(at: Scene) -> None:
        await at.opened()
        item = await at.asked(Agent())
        channel = await at.made.channel(holder(at.made.broker, at.made.broker._tasks.check(at.agent.grant).grant))
        for verb in ("approve", "deny"):
            for more in ({}, {"id_token": at.issuer.login(at.digest(item))}):
                body = {"digest": at.digest(item), **more}
                answer = await channel.post(f"/v1/approvals/{item['approval']}/{verb}", json=body)
                assert problem(answer) == (403, "denied")
        by_token = await at.made.call(
            at.agent,
            "POST",
            f"/v1/approvals/{item['approval']}/approve",
            json={"digest": at.digest(item), "id_token": at.issuer.login(at.digest(item))},
        )
        assert problem(by_token) == (403, "denied")
        assert at.made.broker._approvals.get(item["approval"]).by is None

    run(tmp_path, scene)


def test_the_owner_of_the_state_does_not_decide_for_a_human_of_an_issuer(tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        item = await at.asked(Agent())
        path = f"/v1/approvals/{item['approval']}/approve"
        assert problem(await at.made.control.post(path, json={"digest": at.digest(item)})) == (404, "not-found")
        brought = {"digest": at.digest(item), "id_token": at.issuer.login(at.digest(item))}
        assert (await at.made.control.post(path, json=brought)).status_code == 200

    run(tmp_path, scene)


@pytest.mark.parametrize("asks", ["code", "device"])
def test_what_is_asked_in_a_browser_or_from_a_device_is_foreign_here(tmp_path: Path, asks: str) -> None:
    """RFC 8628 §5.4: whoever finds an id in a list sees no user code, and not whose device it is."""

    async def played(app: App) -> None:
        if asks == "code":
            visitor = browser(app.made)
            await press(visitor, await visitor.get("/oauth/authorize", params=app.browser_request()))
        else:
            assert (
                await app.made.web.post("/oauth/device_authorization", data=app.polled_request())
            ).status_code == 200
        (item,) = kept(app.made.broker)
        assert (await app.made.control.get("/v1/approvals")).json() == {"approvals": []}
        told = {"digest": item.digest, "id_token": "of-alice"}
        said = set()
        for name in (item.id, "apr_999"):
            path = f"/v1/approvals/{name}"
            answers = [await app.made.control.get(path)]
            for verb in ("approve", "deny"):
                answers += [await app.made.control.post(f"{path}/{verb}", json={"digest": item.digest})]
                answers += [await by.post(f"{path}/{verb}", json=told) for by in (app.made.control, app.made.web)]
            said |= {(*problem(answer), answer.json()["detail"]) for answer in answers}
            assert (await browser(app.made).get(f"/approvals/{name}")).status_code == 404
        assert said == {(404, "not-found", "there is no such object, or you may not know of it")}
        assert kept(app.made.broker) == [item]

    scene(tmp_path, played)


def test_what_is_asked_from_afar_is_listed_and_decided_on_by_the_human_it_names(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        assert (await app.afar(login_hint="alice")).status_code == 200
        (item,) = (await app.made.control.get("/v1/approvals")).json()["approvals"]
        assert (item["verb"], item["approver"], item["state"]) == ("task.open", ALICE, "pending")
        path, told = f"/v1/approvals/{item['approval']}/approve", {"digest": item["digest"], "id_token": "of-alice"}
        assert problem(await app.made.control.post(path, json={"digest": item["digest"]})) == (404, "not-found")
        app.issuer.sub = BOB
        assert problem(await app.made.web.post(path, json=told)) == (404, "not-found")
        app.issuer.sub = ALICE
        assert (await app.made.web.post(path, json=told)).json()["state"] == "approved"

    scene(tmp_path, played)


REFUSED: dict[str, tuple[dict[str, str], tuple[int, str]]] = {
    "another human": ({"sub": "https://idp.test#bob"}, (404, "not-found")),
    "too weak": ({"acr": "pwd"}, (403, "step-up")),
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_login_that_is_not_enough_decides_nothing(tmp_path: Path, how: str) -> None:
    more, expected = REFUSED[how]

    async def scene(at: Scene) -> None:
        await at.opened()
        item = await at.asked(Agent())
        token = at.issuer.login(at.digest(item), **more)
        assert problem(await at.decide(item, id_token=token)) == expected
        assert problem(await at.decide(item, id_token="forged")) == (400, "grant-token")
        assert problem(await at.decide(item, id_token=at.issuer.login("else"))) == (400, "grant-token")
        assert problem(await at.decide(item, digest="else"))[0] in {400, 409}
        bare = await at.made.web.post(f"/v1/approvals/{item['approval']}/approve", json={"digest": at.digest(item)})
        assert problem(bare) == (401, "unauthenticated")
        assert at.made.broker._approvals.get(item["approval"]).by is None

    run(tmp_path, scene)


@pytest.mark.attack("OAU-08")
@pytest.mark.parametrize("verb", ["approve", "deny"])
@pytest.mark.parametrize("way", ["web", "control"])
def test_a_login_of_a_public_client_decides_nothing(tmp_path: Path, verb: str, way: str) -> None:
    """Whoever runs on the human's machine can begin one, for this request, and be sent its answer."""

    async def scene(at: Scene) -> None:
        at.issuer.confidential = False
        await at.opened()
        item = await at.asked(Agent())
        body = {"digest": at.digest(item), "id_token": at.issuer.login(at.digest(item))}
        answer = await getattr(at.made, way).post(f"/v1/approvals/{item['approval']}/{verb}", json=body)
        assert problem(answer) == (403, "denied")
        assert "client_secret_file" in answer.json()["help"]
        assert at.made.broker._approvals.get(item["approval"]).by is None
        assert (await at.made.world.events())[-1].code == "denied"

    run(tmp_path, scene)


@pytest.mark.attack("OAU-08")
def test_who_asks_is_told_the_digest_nowhere_and_cannot_make_it(tmp_path: Path) -> None:
    """It is all that a login for this request has to carry, beside who logs in."""

    async def scene(at: Scene) -> None:
        await at.opened()
        item = await at.asked(Agent())
        path, digest = f"/v1/approvals/{item['approval']}", at.digest(item)
        channel = await at.made.channel(holder(at.made.broker, at.made.broker._tasks.check(at.agent.grant).grant))
        told = [json.dumps(item), at.agent.token]
        for answer in (
            await at.made.call(at.agent, "GET", path),
            await at.made.call(at.agent, "GET", "/v1/approvals"),
            await channel.get(path),
            await channel.get("/v1/approvals"),
            await channel.get("/v1/audit"),
            await channel.get(f"/v1/tasks/{at.agent.task}"),
            await channel.post("/v1/approvals", json=at.body(label="another")),
            await at.made.control.post("/v1/approvals", json=at.body(label="a third")),
            await at.made.web.get(f"/approvals/{item['approval']}"),
        ):
            told.append(answer.text)
            assert '"digest"' not in answer.text
        assert not [text for text in told if digest in text]
        kept = at.made.broker._approvals.get(item["approval"])
        assert digest != jose.digest(f"{kept.id}\n{kept.verb}\n{kept.request}")
        assert kept.salt not in "".join(told)
        assert (await at.made.control.get(path)).json()["digest"] == digest

    run(tmp_path, scene)


def test_a_forged_login_is_in_the_audit(tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        await at.decide(await at.asked(Agent()), id_token="forged")
        entry = (await at.made.world.events())[-1]
        assert (entry.resource, entry.decision, entry.code) == ("remit", "deny", "grant-token")

    run(tmp_path, scene)


def test_without_an_issuer_nobody_is_believed(tmp_path: Path) -> None:
    async def scene(made: Plane) -> None:
        agent = Agent()
        await made.opened(agent)
        body = {"digest": "d", "id_token": "forged"}
        answer = await made.web.post("/v1/approvals/apr_1/approve", json=body)
        assert (problem(answer), answer.json()["detail"]) == (
            (400, "invalid-request"),
            "no issuer of humans is configured here",
        )

    play(tmp_path, scene)


def test_what_was_denied_stays_denied(tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        child = Agent()
        item = await at.asked(child)
        assert (await at.decide(item, "deny")).json()["state"] == "denied"
        assert (await at.made.exchange(at.agent, at.exact(child, item))).json()["error"] == "access_denied"
        assert problem(await at.decide(item)) == (409, "conflict")

    run(tmp_path, scene)
