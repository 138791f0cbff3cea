"""``/v1/approvals`` on real sockets: an agent asks, a human decides by proof that no agent has, it goes on."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from remit import jose
from remit.core.policy import Decision, Question
from remit.core.principal import Human
from remit.core.scope import Access
from remit.core.task import Subject
from remit.errors import GrantTokenError, WrongKeyError
from remit.web import listen
from remit.web.routes import Identity
from tests.broker.asking import kept
from tests.broker.world import SEARCH, TABLE, World, holder
from tests.oauth.desk import ALICE, BOB, App, browser, press, scene
from tests.oauth.plane import EXCHANGE, GRANT, Agent, Answer, Form, Plane, later, play
from tests.uses import permitted_use

ANN = "https://idp.test#ann"
NARROW = {**SEARCH, "paths": ["/v1/search"]}
WIDE = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any", "uses": 3}
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"


@dataclass
class Issuer:
    """Believes the tokens it gave, each for the nonce it was asked for with."""

    world: World
    given: dict[str, Human] = field(default_factory=dict)
    confidential: bool = True

    async def id_token(self, token: str, *, nonce: str | None = None) -> Human:
        found = self.given.get(token)
        if found is None or (nonce is not None and found.nonce != nonce):
            raise GrantTokenError("the ID token is not one of a configured issuer, or for something else")
        return found

    async def id_jag(self, token: str, client: str) -> Human:
        raise AssertionError((token, client))

    def login(self, nonce: str | None, sub: str = ANN, acr: str = "urn:mfa") -> str:
        """Return an ID token of a login made now."""
        name, now = f"token-{len(self.given)}", self.world.now
        subject = Subject(sub, acr, now, sid="s-1")
        until, own = now + timedelta(minutes=5), self.confidential
        self.given[name] = Human(subject, f"digest-{name}", now, until, "remit", nonce, confidential=own)
        return name


def everybody(question: Question) -> Decision:
    """Allow whatever resources allow, to any human."""
    del question
    return Decision(allowed=True, reasons=("anybody may",), version="test-1")


@dataclass
class Scene:
    """A plane where Ann has opened a task for an agent outside of runs."""

    made: Plane
    issuer: Issuer
    agent: Agent = field(default_factory=Agent)

    async def opened(self, agent: Agent | None = None, /, **more: str) -> Answer:
        """Open a task for Ann, bound to an agent's key."""
        agent = agent or self.agent
        form = {
            "grant_type": EXCHANGE,
            "subject_token": self.issuer.login(None),
            "subject_token_type": ID_TOKEN,
            "purpose": "draft the CFO summary",
            "ttl": "900",
            "depth": "1",
            "fan_out": "2",
            "authorization_details": json.dumps([NARROW]),
            **self.made.confirmation(agent, None),
            **more,
        }
        answer = await self.made.web.post("/oauth/token", data=form)
        assert answer.status_code == 200, answer.text
        return self.made.taken(answer.json(), agent)

    def body(self, child: Agent | None = None, /, **more: object) -> Answer:
        """Return what the agent asks for: a child that exceeds it, bound to ``child``'s key."""
        body: Answer = {"parent": self.agent.grant, "authorization_details": [WIDE], "ttl": 300, "label": "wide"}
        if child is not None:
            endpoint = f"{self.made.base}/v1/approvals"
            now, fresh = self.made.world.now, self.made.verifier.nonce()
            proof = child.proof("POST", endpoint, now, fresh, self.agent.token)
            body |= {"req_cnf": {"jwk": child.jwk}, "req_cnf_proof": proof}
        return {**body, **more}

    async def asked(self, child: Agent, **more: object) -> Answer:
        """Ask; return the approval."""
        answer = await self.made.call(self.agent, "POST", "/v1/approvals", json=self.body(child, **more))
        assert answer.status_code == 201, answer.text
        found: Answer = answer.json()
        return found

    def digest(self, item: Answer) -> str:
        """Return what only who decides is told."""
        return self.made.broker._approvals.get(item["approval"]).digest

    async def decide(self, item: Answer, verb: str = "approve", **more: object) -> httpx.Response:
        """Let Ann decide by a login for this request, over TCP and without any token of remit."""
        digest = self.digest(item)
        body = {"digest": digest, "id_token": self.issuer.login(digest), **more}
        return await self.made.web.post(f"/v1/approvals/{item['approval']}/{verb}", json=body)

    def exact(self, child: Agent, item: Answer, **more: str) -> Form:
        """Return the form by which the agent makes what was approved."""
        form = self.made.delegation(self.agent, child, approval=item["approval"], ttl="300", label="wide", **more)
        return {"authorization_details": json.dumps([WIDE])} | {
            name: value for name, value in form.items() if name != "authorization_details"
        }


def run(directory: Path, scene: object) -> None:
    """Play a scene on a plane with an issuer of humans; Ann decides with ``urn:mfa`` alone."""
    world = World(now=datetime(2026, 11, 25, 12, tzinfo=UTC), decide=everybody, step_up={ANN: ("urn:mfa",)})
    issuer = Issuer(world)

    async def main(made: Plane) -> None:
        await scene(Scene(made, issuer))  # type: ignore[operator]

    play(directory, main, world, Identity(humans=issuer))


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Return status and code of a refusal."""
    return answer.status_code, str(answer.json().get("code") or answer.json().get("error"))


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


# -- who decides ----------------------------------------------------------------------------------------------------


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
            await press(visitor, await visitor.get("/oauth/authorize", params=app.asked()))
        else:
            assert (await app.made.web.post("/oauth/device_authorization", data=app.wanted())).status_code == 200
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


# -- what is asked for ----------------------------------------------------------------------------------------------

BAD: dict[str, dict[str, object]] = {
    "no details": {"authorization_details": None},
    "an unknown member": {"purpose": "x"},
    "a ttl that is text": {"ttl": "300"},
    "a depth that is true": {"depth": True},
    "a fan-out that is text": {"fan_out": "2"},
    "exercise that is text": {"exercise": "false"},
    "unattested that is text": {"unattested": "false"},
    "delegates that are text": {"delegates": "spiffe://prod.test/*"},
    "delegates that are numbers": {"delegates": [1]},
    "a pattern that is none": {"delegates": ["spiffe://*"]},
    "a label with a line break": {"label": "a\nb"},
    "half a confirmation": {"req_cnf": {"jwk": {}}},
    "another confirmation": {"req_cnf": {"x5t#S256": "x"}, "req_cnf_proof": "x"},
    "no parent": {"parent": None},
    "an actor where none is believed": {"actor_token": "x"},
}


@pytest.mark.parametrize("how", BAD)
def test_what_cannot_be_meant_is_a_bad_request_and_asks_nobody(tmp_path: Path, how: str) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        body = {name: value for name, value in at.body(None, **BAD[how]).items() if value is not None}
        answer = await at.made.call(at.agent, "POST", "/v1/approvals", json=body)
        assert answer.status_code == 400, answer.text
        assert (await at.made.control.get("/v1/approvals")).json() == {"approvals": []}

    run(tmp_path, scene)


def test_the_key_of_the_child_is_proven_for_this_url_and_by_itself(tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        child = Agent()
        swapped = at.body(child, req_cnf={"jwk": Agent().jwk})
        elsewhere = {**at.body(), **_loaded(at.made.confirmation(child, at.agent.token))}
        twice = at.body(child)
        assert problem(await at.made.call(at.agent, "POST", "/v1/approvals", json=swapped))[1] == WrongKeyError.code
        assert (await at.made.call(at.agent, "POST", "/v1/approvals", json=elsewhere)).status_code == 401
        assert (await at.made.call(at.agent, "POST", "/v1/approvals", json=twice)).status_code == 201
        assert problem(await at.made.call(at.agent, "POST", "/v1/approvals", json=twice))[1] == "replay"

    run(tmp_path, scene)


def _loaded(form: Form) -> Answer:
    return {**form, "req_cnf": json.loads(form["req_cnf"])}


def test_what_the_grant_covers_needs_nobody_and_what_policy_refuses_asks_nobody(tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        covered = at.body(authorization_details=[NARROW])
        answer = await at.made.call(at.agent, "POST", "/v1/approvals", json=covered)
        assert (answer.status_code, answer.json()["detail"]) == (400, "this needs no approval")
        beyond_bound = at.body(authorization_details=[{**WIDE, "paths": ["/admin"]}])
        refused = await at.made.call(at.agent, "POST", "/v1/approvals", json=beyond_bound)
        assert problem(refused) == (403, "policy")
        late = await at.made.call(at.agent, "POST", "/v1/approvals", json=at.body(ttl=901))
        assert problem(late)[1] == "attenuation"
        foreign = await at.made.call(at.agent, "POST", "/v1/approvals", json=at.body(parent="grt_999"))
        assert problem(foreign) == (404, "not-found")
        assert (await at.made.control.get("/v1/approvals")).json() == {"approvals": []}

    run(tmp_path, scene)


@pytest.mark.parametrize(
    ("opening", "more", "exceeds"),
    [
        ({"depth": "0"}, {"authorization_details": [NARROW]}, ["depth"]),
        ({"fan_out": "1"}, {"authorization_details": [NARROW], "fan_out": 2}, ["fan_out"]),
        ({}, {"authorization_details": [NARROW], "depth": 1}, ["depth"]),
        (
            {"delegates": '["spiffe://a.test/*"]'},
            {"authorization_details": [NARROW], "delegates": ["spiffe://b.test/*"]},
            ["delegates"],
        ),
        ({"unattested": "false"}, {"authorization_details": [NARROW]}, ["unattested"]),
        ({}, {"authorization_details": [NARROW, WIDE], "depth": 2}, ["authorization_details", "depth"]),
    ],
    ids=["no hop", "fan-out", "deeper", "delegates", "unattested", "two at once"],
)
def test_each_dimension_of_delegability_can_be_approved(
    tmp_path: Path, opening: Form, more: dict[str, object], exceeds: list[str]
) -> None:
    async def scene(at: Scene) -> None:
        await at.opened(None, **opening)
        refused = await at.made.exchange(at.agent, form(at, more))
        assert refused.status_code == 400, refused.text
        child = Agent()
        item = await at.asked(child, **more)
        assert item["exceeds"] == exceeds
        await at.decide(item)
        made = await at.made.exchange(at.agent, {**form(at, more, child), "approval": item["approval"]})
        assert made.status_code == 200, made.text
        grant = at.made.broker._tasks.check(made.json()["grant"]).grant
        assert grant.approval == item["approval"]
        assert (grant.bounds.depth, grant.bounds.fan_out) == (more.get("depth", 0), more.get("fan_out", 0))

    run(tmp_path, scene)


def form(at: Scene, more: dict[str, object], child: Agent | None = None) -> Form:
    """Return the form for what the body of an approval says."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in more.items()}
    return {**at.made.delegation(at.agent, child or Agent()), "ttl": "300", "label": "wide", **texts}


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
