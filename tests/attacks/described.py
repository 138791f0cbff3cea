"""The API by its description: served to generated calls, with objects that live, for the operator and for an agent."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import requests
import yaml
from starlette.applications import Starlette

from remit.compose import status
from remit.compose.app import build
from remit.compose.key_rings import OVERLAP, KeyRing, KeyRings
from remit.compose.policy import LastGoodPolicies, PolicyDirectory
from remit.compose.wiring import new_id
from remit.core.lease import LeaseState
from remit.core.policy import in_bounds
from remit.core.principal import Holder, IdToken, Operator, Signal
from remit.errors import TokenError
from remit.keys.authority import FileAuthority
from remit.keys.file import FileSealer
from remit.keys.signers import FileKeyring
from remit.oauth.clients import Registry
from remit.oauth.registration import RegistrationRules, SelfRegistration
from remit.ports.identity import Humans, PublishedTrust
from remit.ports.trust import Trust
from remit.process.orders import ProcessesState, ProcessState
from remit.run.registry import RunRegistry
from remit.sessions.transmitter import EventSigner, EventStream, StreamReceiver, Transmitter
from remit.web.authentication import SocketAuth, TokenAuth
from remit.web.listen import serve
from remit.web.routes import AppDeps
from tests.broker.world import OPERATOR, TABLE, World
from tests.oauth import consent_driver
from tests.oauth.plane import Plane, _tcp, plane
from tests.web.fake_identity import FakeIdentity

SPEC: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / "docs/reference/openapi.yaml").read_text(encoding="utf-8")
)

T = TypeVar("T")


SHOWS = "Bearer of-the-receiver"
POLICY = '@id("all")\npermit (principal, action, resource);\n'


@dataclass
class Served:
    """A control plane with everything configured, in a thread of its own.

    ``operator`` and ``agent`` are URLs of listeners that stand for them; at ``stranger`` callers prove who they are.
    """

    plane: Plane
    loop: asyncio.AbstractEventLoop
    operator: str
    agent: str
    stranger: str
    kept: dict[str, str] = field(default_factory=dict)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something where the plane lives."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    async def live(self) -> dict[str, str]:
        """Return the ids of a task, a grant and a lease that live; made anew once a call has ended one of them."""
        if self.kept and self._lives(self.kept):
            return self.kept
        opened = await self.plane.opened()
        asked = {"grant": opened["grant"], "detail": TABLE}
        made = await self.plane.control.post(f"/v1/tasks/{opened['task']}/leases", json=asked)
        self.kept = {"task": opened["task"], "grant": opened["grant"], "lease": made.json()["lease"]}
        return self.kept

    def _lives(self, ids: dict[str, str]) -> bool:
        task = self.plane.broker._tasks.task(ids["task"])
        return not task.head.closed and task.lease(ids["lease"]).state is LeaseState.ACTIVE


def whole(plane: Plane) -> AppDeps:
    """Return the dependencies of a plane where all that can be configured is: every route there can be."""
    sealer, clock = FileSealer(b"k" * 32), lambda: plane.world.now
    keys = plane.directory / "keys"
    (plane.directory / "policy").mkdir(exist_ok=True)
    (plane.directory / "policy" / "all.cedar").write_text(POLICY, "utf-8")
    policies = PolicyDirectory(plane.directory / "policy", LastGoodPolicies(plane.directory / "policies.json", sealer))
    policies.broker = plane.broker
    authority = FileAuthority(keys, sealer, "remit.test", clock)
    tokens = FileKeyring(keys, sealer, "token", "ES256", overlap=OVERLAP, clock=clock)
    plane.turned(tokens.signer)
    events = FileKeyring(keys, sealer, "events", "RS256", clock=clock)
    issuer = plane.verifier.issuer
    receivers = [StreamReceiver("siem", "https://siem.test", lambda: SHOWS)]
    signer = EventSigner(EventStream(plane.broker.sessions), issuer, events, receivers)
    transmitter = Transmitter(signer, issuer, receivers)
    rings = {
        "token": KeyRing(tokens, lambda: plane.turned(tokens.signer, tokens.public_jwks()[1:])),
        "spiffe": KeyRing(authority),
    }
    identity = consent_driver.identity(consent_driver.Issuer(plane.world))
    rules = RegistrationRules(frozenset({"app.test"}), most=1_000_000)
    own = SelfRegistration(rules, plane.verifier.tokens.client_mac, clock)
    known = Registry(consent_driver.SET_UP, None, clock, own.known)
    identity = replace(identity, clients=known, registration=own.routes())
    return replace(
        plane.deps,
        identity=replace(identity, workloads=FakeIdentity(plane.world), signals=Unheard()),
        trust=Trust(PublishedTrust(authority.public, {})),
        policies=policies,
        rings=KeyRings(plane.broker, rings),
        streams=transmitter.routes(),
        begin_run=(runs := _runs(plane)).begin_run,
        end_runs=runs.end_all,
        renew_task=partial(_renewed, plane, identity.humans),
        status=AuthorityStatus(plane),
    )


async def _renewed(
    plane: Plane, humans: Humans | None, operator: Operator, task: str, ttl: timedelta, token: IdToken | None
) -> datetime:
    assert humans is not None
    by = operator if token is None else await humans.id_token(token.text)
    return (await plane.broker.renew_task(by, task, ttl)).grant.expires_at


def _runs(plane: Plane) -> RunRegistry:
    """Return runs that no edge comes for: each is offered."""
    broker, clock = plane.broker, lambda: plane.world.now
    made = RunRegistry(broker, broker.runs, OPERATOR, broker.kinds, clock, secrets.token_bytes, new_id)
    made.taking(made.edge("/run/1.sock"))
    return made


class AuthorityStatus:
    """A broker whose processes are as they are in one test."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    async def __call__(self) -> Mapping[str, object]:
        own = ProcessState("supervisor", 1, 0.0, 0, ())
        listens = {"control": str(self._plane.directory), "api": self._plane.base, "gateway": None, "tls": None}
        return {**status.described(ProcessesState((own,), ())), "listens": listens, "tasks": 0, "runs": 0}


class Unheard:
    """An issuer of signals that has said nothing: whatever is presented is not of it."""

    async def event(self, token: str) -> Sequence[Signal]:
        raise TokenError(f"a token of {len(token)} characters is not of an issuer that is known here")

    async def logout(self, token: str) -> Sequence[Signal]:
        return await self.event(token)


@contextmanager
def served(directory: Path) -> Iterator[Served]:
    """Serve a control plane until the block ends."""
    made: list[Served] = []
    ready, over = threading.Event(), threading.Event()

    async def main() -> None:
        async with plane(directory, World(now=datetime(2026, 11, 25, 12, tzinfo=UTC), decide=in_bounds)) as here:
            app = build(whole(here))
            opened = await here.opened()
            agent = await _listen(here, app, SocketAuth(Holder(opened["task"], opened["grant"])))
            operator = await _listen(here, app, SocketAuth(OPERATOR))
            made.append(Served(here, asyncio.get_running_loop(), operator, agent, await _listen(here, app, None)))
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert ready.wait(30)
        yield made[0]
    finally:
        over.set()
        thread.join(30)


async def _listen(here: Plane, app: Starlette, peer: SocketAuth | None) -> str:
    sock = _tcp()
    host = f"127.0.0.1:{sock.getsockname()[1]}"
    here.listeners.append(await serve(app, sock, peer or TokenAuth(frozenset({host}), here.verifier.holder)))
    return f"http://{host}"


def session() -> requests.Session:
    """Return a client that follows no redirect and takes nothing from the environment."""
    made = requests.Session()
    made.trust_env = False
    return made
