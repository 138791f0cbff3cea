"""Assertions that say they are unique (``jti``) count once, wherever they are shown, and whoever shows them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from remit.core.principal import Workload
from remit.errors import UnauthenticatedError
from remit.identity.workloads.attested import AttestedWorkloads
from remit.identity.workloads.bundles import TrustBundles
from remit.oauth.clients import WPT, Registry
from remit.ports.identity import Registered
from remit.web.verifier import WIT
from tests.broker.world import SEARCH, World
from tests.identity.spire import NOW, Held
from tests.identity.workloads.test_wit import ALLOW, DOMAIN, proof, wit
from tests.oauth import consent_driver
from tests.oauth.consent_driver import REDIRECT
from tests.oauth.plane import ACCESS_TOKEN, EXCHANGE, Agent, Form, Plane, play
from tests.web import fake_identity
from tests.web.fake_identity import PLANNER, READER, FakeIdentity, assertion_of, svid

JWT = "urn:ietf:params:oauth:token-type:jwt"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
DETAILS = json.dumps([SEARCH])

Scene = Callable[[Plane, FakeIdentity], Awaitable[None]]


def staged(directory: Path, scene: Scene) -> None:
    """Run a scene where humans log in, and workloads whose JWT-SVIDs have a ``jti`` are believed."""
    world = fake_identity.world()
    known = FakeIdentity(world, once=True)
    issuer = consent_driver.Issuer(world)
    registry = Registry([Registered(PLANNER, "Planner", (REDIRECT,))])
    identity = replace(known.identity(), logins=issuer, issuers={consent_driver.ISSUER: "Example"}, clients=registry)

    async def run(plane: Plane) -> None:
        await scene(plane, known)

    play(directory, run, world, identity)


async def opened(plane: Plane, agent: Agent, **more: str) -> None:
    form = {"grant_type": EXCHANGE, "subject_token": "id-token-of-alice", "subject_token_type": ID_TOKEN}
    form |= {"purpose": "draft", "ttl": "900", "depth": "2", "fan_out": "5", "authorization_details": DETAILS}
    answer = await plane.exchange(agent, {**form, **more})
    assert answer.status_code == 200, answer.text
    plane.taken(answer.json(), agent)


def actor(jti: str) -> Form:
    return {"actor_token": svid(READER, jti), "actor_token_type": JWT}


@pytest.mark.attack("TOK-11")
def test_a_parent_that_shows_its_childs_assertion_again_makes_no_second_attested_child(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        root, child, own = Agent(), Agent(), Agent()
        await opened(plane, root)
        await plane.delegated(root, child, **actor("1"))
        answer = await plane.exchange(root, plane.delegation(root, own, **actor("1")))
        assert (answer.status_code, answer.json()["code"]) == (400, "used")
        assert len(plane.broker._tasks.task_of(root.grant).grants) == 2
        last = (await plane.world.events())[-1]
        assert (last.event, last.code, last.grant) == ("grant.delegate", "used", root.grant)
        await plane.delegated(root, own, **actor("2"))

    staged(tmp_path, scene)


@pytest.mark.attack("TOK-11")
def test_what_a_client_showed_is_no_actors_any_more_and_the_other_way_round(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        root, child = Agent(), Agent()
        await opened(plane, root, **assertion_of(READER, "1"))
        answer = await plane.exchange(root, plane.delegation(root, child, **actor("1")))
        assert answer.json()["code"] == "used"
        await plane.delegated(root, child, **actor("2"))
        form = {"grant_type": EXCHANGE, "subject_token": root.token, "subject_token_type": ACCESS_TOKEN}
        answer = await plane.exchange(root, {**form, **assertion_of(READER, "2")})
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        assert (await plane.world.events())[-1].code == "used"

    staged(tmp_path, scene)


CHALLENGE = {"code_challenge": "c" * 43, "code_challenge_method": "S256"}
ASKED = {"purpose": "draft", "authorization_details": DETAILS}
ENDPOINTS = {
    "/oauth/par": {
        **ASKED,
        **CHALLENGE,
        "client_id": PLANNER,
        "response_type": "code",
        "redirect_uri": consent_driver.REDIRECT,
    },
    "/oauth/device_authorization": ASKED,
    "/oauth/bc-authorize": {**ASKED, "login_hint": consent_driver.ALICE},
    "/oauth/revoke": {"token": "t"},
    "/oauth/token": {**ASKED, "grant_type": "client_credentials", "ttl": "60"},
}


@pytest.mark.attack("TOK-11")
@pytest.mark.parametrize(
    ("first", "then"), [*zip(ENDPOINTS, ENDPOINTS, strict=True), *zip(ENDPOINTS, [*ENDPOINTS][1:], strict=False)]
)
def test_a_client_assertion_counts_at_one_endpoint_once(tmp_path: Path, first: str, then: str) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()

        async def post(path: str) -> int:
            proof = agent.proof("POST", plane.base + path, plane.world.now, plane.verifier.nonce())
            form = {**ENDPOINTS[path], **assertion_of(PLANNER)}
            return (await plane.web.post(path, data=form, headers={"dpop": proof})).status_code

        assert await post(first) in {200, 201}
        assert await post(then) == 401

    staged(tmp_path, scene)


def test_a_request_that_lacks_the_nonce_alone_does_not_use_up_the_clients_assertion(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent, form = Agent(), {**ENDPOINTS["/oauth/token"], **assertion_of(PLANNER)}
        stale = agent.proof("POST", plane.endpoint, plane.world.now, "another")
        answer = await plane.web.post("/oauth/token", data=form, headers={"dpop": stale})
        assert answer.json()["error"] == "use_dpop_nonce"
        assert (await plane.exchange(agent, form)).status_code == 200

    staged(tmp_path, scene)


# -- proofs of a workload's key -------------------------------------------------------------------------------------


class Forgetful:
    """The port Workloads as each new process has it: proofs that others saw it does not know."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.seen: AttestedWorkloads | None = None

    def restart(self) -> None:
        """Forget every proof."""
        bundles = TrustBundles({DOMAIN.name: Held(DOMAIN.bundle())}, lambda: self._world.now)
        self.seen = AttestedWorkloads({}, "", lambda: self._world.now, bundles, ALLOW)

    async def proven(self, wit: str, wpt: str, target: str, token: str | None) -> Workload:
        assert self.seen is not None
        return await self.seen.proven(wit, wpt, target, token)

    async def assertion(self, token: str, kind: str) -> Workload:
        raise UnauthenticatedError(f"{token} is no {kind}")

    async def named(self, wit: str) -> Workload:
        raise UnauthenticatedError(f"{wit} is not known")

    async def certified(self, chain: Sequence[bytes]) -> Workload:
        raise UnauthenticatedError(f"{len(chain)} certificates of nobody")


@pytest.mark.attack("POP-08")
@pytest.mark.parametrize("path", ["/oauth/revoke", "/oauth/par", "/oauth/device_authorization", "/oauth/bc-authorize"])
def test_a_workloads_proof_that_was_used_passes_no_second_time_though_the_broker_restarted(
    tmp_path: Path, path: str
) -> None:
    world = fake_identity.world()
    world.now = NOW
    issuer, forgetful = consent_driver.Issuer(world), Forgetful(world)
    name = DOMAIN.id()
    registry = Registry([Registered(name, "Planner", (REDIRECT,))])
    identity = replace(consent_driver.identity(issuer, registry), workloads=forgetful)

    async def scene(plane: Plane) -> None:
        token = wit()

        async def post(jti: str = "j" * 22) -> int:
            shown = {WIT: token, WPT: proof(token, aud=plane.base + path, jti=jti)}
            form = {**ENDPOINTS[path], **({"client_id": name} if path == "/oauth/par" else {})}
            return (await plane.web.post(path, data=form, headers=shown)).status_code

        forgetful.restart()
        assert await post() in {200, 201}
        assert await post() in {400, 401}
        forgetful.restart()
        assert await post() in {400, 401}
        assert (await plane.world.events())[-1].code == "used"
        assert await post(jti="another-proof-of-its-key") in {200, 201}

    play(tmp_path, scene, world, identity)
