"""Every object by every verb by every principal, drawn from the API's own description; and names with one spelling."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from remit import jose
from remit.core.policy import in_bounds
from remit.core.principal import Human
from remit.core.task import Subject
from remit.errors import GrantTokenError
from remit.web.routes import Identity
from tests.attacks.described import SPEC
from tests.broker.world import SEARCH, START, TABLE, World
from tests.oauth.plane import EXCHANGE, Agent, Plane, opening, plane, play

ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
HUMANS = ("alice", "bob", "carol")
TREE = {"planner": None, "researcher": "planner", "reader": "researcher", "writer": "planner"}
OBJECTS = ("task", "grant", "lease", "approval")


@dataclass
class Humans:
    """An issuer whose ID tokens are the names of humans, each good once."""

    world: World

    async def id_token(self, token: str, *, nonce: str | None = None) -> Human:
        subject = Subject(f"https://idp.test#{token}", "1", self.world.now)
        until = self.world.now + timedelta(hours=1)
        return Human(subject, jose.digest(token), self.world.now, until, "remit", nonce, confidential=True)

    async def id_jag(self, token: str, client: str) -> Human:
        raise GrantTokenError(f"{token} is no assertion for {client}")


@dataclass(frozen=True)
class Thing:
    """What belongs to one agent of one human: the ids that a call can name."""

    human: str
    agent: str
    task: str
    grant: str
    lease: str
    approval: str


@dataclass(frozen=True)
class Call:
    """One operation of the description that names objects, with a body that would be right for its owner."""

    method: str
    path: str
    label: str

    def body(self, thing: Thing) -> object:
        """Return the body."""
        if self.label == "issueLease":
            return {"grant": thing.grant, "detail": TABLE}
        if self.label == "ask":
            return {"parent": thing.grant, "authorization_details": [{**SEARCH, "uses": 100_000}]}
        if self.label in {"approve", "deny"}:
            return {"digest": "0" * 43}
        return {"ttl": 60} if self.label == "renewLease" else None

    def at(self, thing: Thing) -> str:
        """Return the path with the object's names in it."""
        return self.path.format(**{name: getattr(thing, name) for name in OBJECTS})


def calls() -> Iterator[Call]:
    """Yield every operation for agents that names an object, in its path or its body."""
    for path, item in SPEC["paths"].items():
        for method, operation in item.items():
            named = any(f"{{{name}}}" in path for name in OBJECTS) or operation["operationId"] == "ask"
            if named and operation["x-remit-who"] in {"agent", "proving"}:
                yield Call(method.upper(), path, operation["operationId"])


CALLS = {call.label: call for call in calls()}
ENDING = {"closeTask", "revokeGrant", "revokeLease"}


async def populated(plane: Plane) -> tuple[dict[tuple[str, str], Agent], list[Thing]]:
    """Open a task for each human, delegate it to four agents, and let each have a lease and an approval asked for."""
    agents: dict[tuple[str, str], Agent] = {}
    things = []
    for human in HUMANS:
        for name, parent in TREE.items():
            agent = agents[human, name] = Agent()
            if parent is None:
                await _open(plane, agent, human)
            else:
                depth, both = ("1" if name == "researcher" else "0"), json.dumps([TABLE, SEARCH])
                more = {"authorization_details": both, "depth": depth, "fan_out": depth}
                await plane.delegated(agents[human, parent], agent, **more)
            things.append(await _things(plane, agent, human, name))
    return agents, things


async def _open(plane: Plane, agent: Agent, human: str) -> None:
    form = {
        "grant_type": EXCHANGE,
        "subject_token": human,
        "subject_token_type": ID_TOKEN,
        "purpose": "draft the CFO summary",
        "ttl": "900",
        "depth": "2",
        "fan_out": "5",
        "authorization_details": json.dumps([TABLE, SEARCH]),
    }
    answer = await plane.exchange(agent, form)
    assert answer.status_code == 200, answer.text
    plane.taken(answer.json(), agent)


async def _things(plane: Plane, agent: Agent, human: str, name: str) -> Thing:
    made = await plane.call(
        agent, "POST", f"/v1/tasks/{agent.task}/leases", json={"grant": agent.grant, "detail": TABLE}
    )
    wider = {"parent": agent.grant, "authorization_details": [{**SEARCH, "uses": 100_000}]}
    asked = await plane.call(agent, "POST", "/v1/approvals", json=wider)
    assert (made.status_code, asked.status_code) == (201, 201), made.text + asked.text
    return Thing(human, name, agent.task, agent.grant, made.json()["lease"], asked.json()["approval"])


def within(agent: str, thing: str) -> bool:
    """Whether an object's agent is the caller itself, or hangs below it."""
    return agent == thing or (TREE[thing] is not None and within(agent, str(TREE[thing])))


def told(answer: httpx.Response) -> tuple[int, Any]:
    """Return what an answer tells: all but its own instance."""
    return answer.status_code, {name: value for name, value in answer.json().items() if name != "instance"}


def nobody(thing: Thing) -> Thing:
    """Return the same with names that nothing has."""
    return replace(thing, task="task_none", grant="grt_none", lease="lse_none", approval="apr_none")


@pytest.mark.attack("API-01")
@pytest.mark.parametrize("label", CALLS)
def test_no_principal_reaches_what_is_not_its_own_or_below(tmp_path: Path, label: str) -> None:
    world = World(now=START, decide=in_bounds)

    async def scene(plane: Plane) -> None:
        call = CALLS[label]
        agents, things = await populated(plane)
        before = {task: _state(plane, task) for task in {thing.task for thing in things}}
        checked = 0
        for (human, name), agent in agents.items():
            for thing in things:
                if human == thing.human and (within(name, thing.agent) or label == "task"):
                    continue
                foreign = await plane.call(agent, call.method, call.at(thing), json=call.body(thing))
                none = nobody(thing)
                unknown = await plane.call(agent, call.method, call.at(none), json=call.body(none))
                assert told(foreign) == told(unknown), (human, name, thing)
                assert foreign.status_code == 404, foreign.text
                checked += 1
        assert checked == (96 if label == "task" else 120)  # of 12 principals by 12 things
        assert {task: _state(plane, task) for task in before} == before

    play(tmp_path, scene, world, Identity(humans=Humans(world)))


def _state(plane: Plane, task: str) -> object:
    found = plane.broker._tasks.task(task)
    return found.head, dict(found.grants), dict(found.leases)


# What the owner of a thing is answered.
OWN = {
    "task": 200,
    "issueLease": 201,
    "revokeGrant": 200,
    "renewLease": 200,
    "revokeLease": 200,
    "ask": 201,
    "approval": 200,
    "approve": 403,  # no agent decides, not even on what it asked for itself
    "deny": 403,
}


@pytest.mark.attack("API-01")
@pytest.mark.parametrize("name", TREE)
def test_the_holder_reaches_it(tmp_path: Path, name: str) -> None:
    world = World(now=START, decide=in_bounds)

    async def scene(plane: Plane) -> None:
        agents, things = await populated(plane)
        assert OWN.keys() | {"closeTask"} == CALLS.keys()
        for label, status in OWN.items():
            agent = agents["bob", name]
            thing = next(item for item in things if item.grant == agent.grant)
            if label in ENDING:  # on what was made for it
                agent = Agent()
                await plane.opened(agent)
                thing = await _things(plane, agent, "bob", name)
            answer = await plane.call(agent, CALLS[label].method, CALLS[label].at(thing), json=CALLS[label].body(thing))
            assert answer.status_code == status, (label, answer.text)

    play(tmp_path, scene, world, Identity(humans=Humans(world)))


# Whoever is above looks and ends, and acts under no grant that is bound to another's key.
ABOVE = {**OWN, "issueLease": 403, "renewLease": 403, "ask": 403}


@pytest.mark.attack("API-01")
@pytest.mark.parametrize(
    ("name", "thing"), [("planner", "researcher"), ("planner", "reader"), ("researcher", "reader")]
)
def test_whoever_is_above_looks_and_ends_and_does_not_act(tmp_path: Path, name: str, thing: str) -> None:
    world = World(now=START, decide=in_bounds)

    async def scene(plane: Plane) -> None:
        agents, things = await populated(plane)
        agent, theirs = agents["bob", name], next(one for one in things if (one.human, one.agent) == ("bob", thing))
        for label in sorted(ABOVE, key=lambda label: label in ENDING):
            call = CALLS[label]
            answer = await plane.call(agent, call.method, call.at(theirs), json=call.body(theirs))
            assert answer.status_code == ABOVE[label], (label, answer.text)

    play(tmp_path, scene, world, Identity(humans=Humans(world)))


@pytest.mark.attack("API-01")
def test_a_task_is_closed_by_its_root_and_by_nobody_below(tmp_path: Path) -> None:
    world = World(now=START, decide=in_bounds)

    async def scene(plane: Plane) -> None:
        agents, _ = await populated(plane)
        for name, status in (("researcher", 404), ("reader", 404), ("writer", 404), ("planner", 200)):
            agent = agents["alice", name]
            assert (await plane.call(agent, "POST", f"/v1/tasks/{agent.task}/close")).status_code == status

    play(tmp_path, scene, world, Identity(humans=Humans(world)))


@pytest.mark.attack("API-01")
def test_the_tokens_of_one_broker_are_nothing_to_another(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()

    async def scene(one: Plane) -> None:
        async with plane(tmp_path / "two") as two:
            agent, other = Agent(), Agent()
            await one.opened(agent)
            await two.opened(other)
            thing = Thing("", "", other.task, other.grant, "lse_none", "apr_none")
            for call in CALLS.values():
                answer = await two.call(agent, call.method, call.at(thing), json=call.body(thing))
                assert answer.status_code == 401, call.label
            assert (await two.call(other, "GET", "/v1/self")).status_code == 200

    play(tmp_path, scene)


# -- API-05 -----------------------------------------------------------------------------------------------------------

SPELLINGS = [
    '"search"',
    "SEARCH",
    "Search",
    "search/",
    "/search",
    "./search",
    "x/../search",
    ".",
    "..",
    "%2e",
    "%73earch",
    "search%20",
    "search ",
    " search",
    "search%00",
    "search\u200b",
    "se\u0430rch",  # a Cyrillic letter
    "\uff53earch",  # a wide one
    "search;v=1",
    "search?",
    "s" * 64,
    "search" * 2_000,
]


@pytest.mark.attack("API-05")
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_name_has_one_spelling(tmp_path: Path, spelling: str) -> None:
    async def scene(here: Plane) -> None:
        before = (await here.control.get("/v1/resources")).json()
        body = {"kind": "http", "destination": "https://evil.test", "bound": [{**SEARCH, "uses": 100_000}]}
        target = "/v1/resources/" + spelling
        raw = httpx.URL("http://localhost").copy_with(raw_path=quote(target, safe=string.printable).encode())
        answer = await here.control.request("PUT", raw, json=body)
        assert answer.status_code in {400, 404, 405}, answer.text
        detail = {**SEARCH, "resource": spelling}
        opened = await here.control.post("/oauth/token", data=opening(authorization_details=json.dumps([detail])))
        assert opened.status_code == 400, opened.text
        assert (await here.control.get("/v1/resources")).json() == before

    play(tmp_path, scene)


@pytest.mark.attack("API-05")
@pytest.mark.parametrize("kind", ["task", "grant", "lease"])
def test_an_id_has_one_spelling(tmp_path: Path, kind: str) -> None:
    async def scene(here: Plane) -> None:
        agent = Agent()
        await here.opened(agent)
        thing = await _things(here, agent, "", "")
        for odd in (str.upper, lambda text: text + " ", lambda text: text + "/", lambda text: text.replace("_", "%5F")):
            spelled = replace(thing, **{kind: odd(getattr(thing, kind))})
            call = CALLS[{"task": "task", "grant": "revokeGrant", "lease": "revokeLease"}[kind]]
            raw = httpx.URL("http://localhost").copy_with(raw_path=call.at(spelled).replace(" ", "%20").encode())
            assert (await here.control.request(call.method, raw)).status_code in {400, 404, 405}
        assert (await here.call(agent, "GET", "/v1/self")).status_code == 200

    play(tmp_path, scene)
