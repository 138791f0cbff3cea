"""A plane where a human of an issuer has opened a task, and an agent asks for more than its grant."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from remit.core.policy import Decision, Question
from remit.core.principal import Human
from remit.core.task import Subject
from remit.errors import GrantTokenError
from remit.web.routes import Identity
from tests.broker.world import SEARCH, World
from tests.oauth.plane import EXCHANGE, Agent, Answer, Form, Plane, play

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


def run(directory: Path, scene: Callable[[Scene], Awaitable[None]]) -> None:
    """Play a scene on a plane with an issuer of humans; Ann decides with ``urn:mfa`` alone."""
    world = World(now=datetime(2026, 11, 25, 12, tzinfo=UTC), decide=everybody, step_up={ANN: ("urn:mfa",)})
    issuer = Issuer(world)

    async def main(made: Plane) -> None:
        await scene(Scene(made, issuer))

    play(directory, main, world, Identity(humans=issuer))


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Return status and code of a refusal."""
    return answer.status_code, str(answer.json().get("code") or answer.json().get("error"))


def form(at: Scene, more: dict[str, object], child: Agent | None = None) -> Form:
    """Return the form for what the body of an approval says."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in more.items()}
    return {**at.made.delegation(at.agent, child or Agent()), "ttl": "300", "label": "wide", **texts}
