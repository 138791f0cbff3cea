"""A broker on measured loops: the operator's socket on one; on another, over links, web's listener, and a run's."""

from __future__ import annotations

import itertools
import json
import socket
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from starlette.applications import Starlette

from remit.compose.app import build, routes
from remit.core import approval as approvals
from remit.core import paths
from remit.core import scope as scopes
from remit.core.principal import JWT_SPIFFE, Holder
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import Scope
from remit.core.secret import Secret
from remit.core.task import Grant
from remit.errors import InvalidRequestError
from remit.identity.humans import IssuedHumans, Registration
from remit.keys.file import FileSealer
from remit.keys.signers import FileKeyring
from remit.link import roles as worker_roles
from remit.link.authority import AuthorityEnd
from remit.link.authority import serve as serve_link
from remit.link.frames import pair as sockets
from remit.link.roles import WorkerRole
from remit.link.worker import WorkerEnd, connect
from remit.oauth.clients import Registry
from remit.oauth.registration import RegistrationRules, SelfRegistration
from remit.ports import Resource
from remit.run.registry import RunRegistry
from remit.sessions.transmitter import EventSigner, EventStream, StreamReceiver, Transmitter
from remit.stores.sqlite import SqliteStore
from remit.web.authentication import ListenerAuth, SocketAuth, TokenAuth
from remit.web.listen import Listener, serve
from remit.web.routes import AppDeps, Identity
from remit.web.verifier import Keys, Verifier
from tests.attacks.described import SHOWS, _runs, whole
from tests.broker.world import OPERATOR, SEARCH, ClearSealer, World
from tests.compose.worst_requests import Request
from tests.identity.issuing import START, URL, issuer
from tests.identity.issuing import signed as signed_by
from tests.link.two_ends import Heard
from tests.link.worst_calls import allowing
from tests.oauth import consent_driver
from tests.oauth.plane import Agent, Plane, _unix, plane
from tests.support.measured import MeasuredLoop
from tests.support.worst import Pair, Raw
from tests.web.fake_identity import PLANNER, FakeIdentity, svid

SPEAKERS = ("operator", "run", "stranger")
RECEIVERS = [StreamReceiver("siem", "https://siem.test", lambda: SHOWS)]
THERE = {
    "http": "https://api.test",
    "postgres": "postgresql://a@127.0.0.1/b",
    "spiffe": "spiffe://remit.test",
    "egress": "egress:*.a.example",
    "elsewhere": "elsewhere:https://elsewhere.test",
    "mcp": "mcp+https://mcp.test/mcp",
}


class Answered(typing.NamedTuple):
    """What a request was answered with, and what that cost each loop at one go (seconds)."""

    status: int
    code: str
    size: int
    authority: float
    worker: float


@dataclass
class Scene:
    """A broker, who speaks to it, and what they may name."""

    authority: MeasuredLoop
    worker: MeasuredLoop
    directory: Path
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    here: Plane = field(init=False)
    apps: dict[str, Starlette] = field(default_factory=dict)
    verifier: Verifier = field(init=False)
    runs: RunRegistry = field(init=False)
    pair: Pair = field(init=False)
    roots: dict[str, Grant] = field(default_factory=dict)
    approvals: dict[str, str] = field(default_factory=dict)
    agent: Agent = field(default_factory=Agent)
    child: Agent = field(default_factory=Agent)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    code: str = ""  # of a device
    tcp: set[str] = field(default_factory=set)  # routes that are there for strangers alone
    served: list[Listener] = field(default_factory=list)  # in the worker's loop, but for the operator's
    ends: dict[str, AuthorityEnd] = field(default_factory=dict)
    links: list[WorkerEnd] = field(default_factory=list)

    # -- begin and end ----------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """In the authority's loop: serve the operator."""
        state = SqliteStore(self.directory / "state", ClearSealer())
        world = World(store=state, decide=allowing, now=START)
        self.here = await self.stack.enter_async_context(plane(self.directory, world, self.identity(world)))
        deps = replace(whole(self.here), identity=self.identity(world))
        self.here.deps, self.runs = deps, _runs(self.here)
        self.apps["operator"] = build(deps)
        self.tcp = {f"{row.method} {row.path}" for row in routes(deps) if row.tcp}
        await self._listen("operator", SocketAuth(OPERATOR))
        self.stack.callback(self.served[0].close)
        asked = {"client_id": "tv", "purpose": "p", "authorization_details": json.dumps([SEARCH])}
        self.code = (await self.here.web.post("/oauth/device_authorization", data=asked)).json()["user_code"]

    def identity(self, world: World) -> Identity:
        """Return who is believed: an issuer's humans by their signature, and workloads of a test."""
        registered = Registration(issuer(), "remit", Secret("a-secret-of-the-client"), id_jag=True)
        humans = IssuedHumans([registered], "https://remit.test", lambda: world.now)
        driven = consent_driver.identity(consent_driver.Issuer(world))
        return replace(driven, humans=humans, workloads=FakeIdentity(world), id_jag=True)

    async def _listen(self, who: str, by: ListenerAuth) -> Listener:
        path = self.directory / f"{who}.sock"
        path.unlink(missing_ok=True)
        made = await serve(self.apps[who], _unix(path), by)
        self.served.append(made)
        return made

    async def serve_worker(self, theirs: typing.Any, role: WorkerRole) -> None:
        """In the authority's loop: serve its end of a link."""
        here, known = self.here, self.here.deps.identity
        keys = FileKeyring(self.directory / "keys", FileSealer(b"k" * 32), "events", "RS256", clock=here.verifier.clock)
        signer = EventSigner(EventStream(here.broker.sessions), here.verifier.issuer, keys, RECEIVERS)
        more: Sequence[object] = [known.workloads, known.humans, signer, self.runs.edge("/run/2.sock")]
        ports = (here.broker, here.tokens._pending, here.tokens, *more)
        end = await serve_link(
            theirs, role, here.broker, ports, lambda: here.world.now, stuck=lambda _: None, ended=lambda one: one.gone()
        )
        self.ends[role.name] = end
        self.stack.callback(end.gone)

    async def join(self, ours: typing.Any, role: WorkerRole) -> None:
        """In the worker's loop: serve what a worker of a role serves."""
        here, who = self.here, "stranger" if role is worker_roles.WEB else "run"
        link = await connect(ours, Heard(), lambda: None)
        remote = link.authority
        self.links.append(link)
        keys, clock = Keys(await remote.token_keys()), lambda: here.world.now
        verifier = Verifier(remote, remote, keys, here.verifier.issuer, clock, await remote.nonces(), remote)
        rules = RegistrationRules(frozenset({"app.test"}), most=1_000_000)
        own = SelfRegistration(rules, remote.client_mac, clock)
        known = Registry(consent_driver.SET_UP, None, clock, own.known)
        identity = replace(self.identity(here.world), workloads=remote, clients=known, registration=own.routes())
        begin = remote.begin_run if role is worker_roles.EDGE else None
        streams = Transmitter(remote, here.verifier.issuer, RECEIVERS).routes()
        self.verifier = verifier
        deps = AppDeps(
            remote,
            here.broker.kinds,
            verifier,
            identity,
            here.deps.trust,
            connections=remote,
            streams=streams,
            begin_run=begin,
        )
        self.apps[who] = build(deps)
        if role is worker_roles.WEB:
            host = here.base.removeprefix("http://")
            await self._listen(who, TokenAuth(frozenset({host}), verifier.holder))

    async def part(self) -> None:
        """In the worker's loop: end all that is served there."""
        for link in self.links:
            link.close()
        for each in self.served[1:]:
            each.close()

    # -- what is there ----------------------------------------------------------------------------------------------

    def bound(self, pair: Pair) -> None:
        """Bound the resources of a pair by its parent, open tasks in it, and let a human be asked in them."""
        self.pair = pair
        self.roots.clear()
        self.fresh()

    async def _bound(self, scope: Scope) -> None:
        for kind, name in {(detail.type, detail.resource) for detail in scope}:
            secret = Secret("api-key-0123456789ab") if kind == "http" else None
            resource = Resource(name, kind, THERE.get(kind, f"{kind}://name"), scope, None, {})
            await self.here.broker.put_resource(OPERATOR, resource, secret)

    def fresh(self) -> None:
        """Open other tasks in the place of those that have ended: one for each who speaks."""
        made = self.authority.do(self._fresh())
        if "run" in made:
            self.worker.do(self._channel(made["run"]))

    async def _fresh(self) -> Mapping[str, Grant]:
        broker, made = self.here.broker, dict[str, Grant]()
        there = {one.name: one.bound for one in await broker.resources()}
        if any(there.get(each.resource) != self.pair.parent for each in self.pair.parent):
            await self._bound(self.pair.parent)
        for who in SPEAKERS:
            if who in self.roots and not broker._tasks.task_of(self.roots[who].id).head.closed:
                continue
            bounds = Bounds(timedelta(hours=1), depth=8, fan_out=1_000)
            if who == "stranger":
                await self.here.opened(self.agent)
                made[who] = (await broker.grant(self.agent.grant)).grant
                continue
            made[who] = (await broker.open(OPERATOR, GrantRequest(self.pair.parent, bounds, purpose="p"))).grant
            request = GrantRequest(self.pair.child[:1], Bounds(timedelta(minutes=1), depth=9), label="asked")
            with suppress(InvalidRequestError):  # too much for a human to decide on
                holder = self.holder(made[who])
                self.approvals[who] = (await broker.ask(holder, holder.grant, request)).approval.id
        self.roots |= made
        run = self.roots["run"]
        self.ends["edge"]._named.add(run.id, self.holder(run).task)  # as if it had redeemed the ticket of a run
        return made

    def holder(self, grant: Grant) -> Holder:
        return Holder(self.here.broker._tasks.task_of(grant.id).id, grant.id)

    async def _channel(self, grant: Grant) -> None:
        """Serve the channel of another run."""
        holder = self.holder(grant)
        await self._listen("run", SocketAuth(holder, run="run_1"))

    def known(self, who: str) -> Raw:
        """Return small values that are accepted, by the names of fields, for who speaks."""
        first, grant = self.pair.child[0], self.roots[who].id
        details = scopes.dump(self.pair.child)
        asked = {"authorization_details": details, "ttl": 60}
        names = {"grant": grant, "parent": grant, "task": self.holder(self.roots[who]).task, "lease": "lse_0"}
        names |= {"approval": self.approvals.get(who, "apr_0"), "resource": first.resource, "secret": first.resource}
        names |= {"ring": "spiffe", "kid": "a", "code": "denied", "receiver": "siem", "number": "1", "begun": "a"}
        browser = {"client_id": "browser-app", "response_type": "code", "redirect_uri": "http://127.0.0.1/cb"}
        browser |= {"code_challenge": "a" * 43, "code_challenge_method": "S256", "state": "s", "csrf": "a"}
        browser |= {"visit": "a", "decision": "approve", "user_code": self.code, "login_hint": f"{URL}#a"}
        shown = {"token": self.agent.token, "access_token": self.agent.token, "id_token": self.id_token()}
        shown |= {"client_assertion": svid(PLANNER), "client_assertion_type": JWT_SPIFFE, "actor_token": svid(PLANNER)}
        there = THERE.get(first.type, f"{first.type}://name")
        return {
            **names,
            **browser,
            **shown,
            **asked,
            **self.here.confirmation(self.child, self.agent.token),
            "detail": details[0],
            "bound": scopes.dump(self.pair.parent),
            "purpose": "p",
            "depth": 9,
            "open": {**asked, "purpose": "p"},
            "delegate": {**asked, "parent": grant},
            "digest": "a",
            "redirect_uris": ["http://127.0.0.1/cb"],
            "client_name": "a",
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code"],
            "response_types": ["code"],
            "descriptions": [{"what": "tool", "name": "open", "s256": "a"}],
            "kind": first.type,
            "destination": there,
            "value": "v" * 20,
            "isolation": "namespace",
            "folder": "/a",
            "grant_type": "a",
            "logout_token": "a.b.c",
            "seq": "1",
            "size": "2",
            "from": "1",
            "to": "2",
        }

    def id_token(self) -> str:
        now = int(START.timestamp())
        claims = {"iss": URL, "sub": "alice", "aud": "remit", "iat": now, "exp": now + 300, "auth_time": now}
        return signed_by({**claims, "acr": "urn:mfa", "groups": ["a"], "jti": str(next(self.numbers))})

    # -- what it costs ----------------------------------------------------------------------------------------------

    def cost(self, who: str, asked: Request) -> Answered:
        """Send a request; return what became of it."""
        self.fresh()
        for forget in (scopes.COMPARED.clear, paths.places.cache_clear, approvals.read.cache_clear):
            forget()
        data = self._written(who, asked)
        self.authority.forget()
        self.worker.forget()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(str(self.directory / f"{who}.sock"))
            with suppress(BrokenPipeError, ConnectionResetError):  # it was refused before it was read
                sock.sendall(data)
            answer = bytearray()
            with suppress(ConnectionResetError):
                while part := sock.recv(1 << 20):
                    answer += part
        status, code = _answer(bytes(answer))
        return Answered(status, code, len(answer), self.authority.cost(), self.worker.cost())

    def _written(self, who: str, asked: Request) -> bytes:
        """Return a request as it is sent."""
        headers = {"host": self.here.base.removeprefix("http://"), "connection": "close"}
        if asked.body or asked.method in {"POST", "PUT"}:
            headers |= {"content-type": asked.media, "content-length": str(len(asked.body))}
        path = asked.path.partition("?")[0]
        shown = who == "stranger" and path.startswith(("/v1/", "/oauth/introspect"))
        shown = shown and not (path.startswith("/oauth/") and b"client_assertion" in asked.body)  # that of a service
        if path.startswith("/v1/signals/streams"):
            headers["authorization"] = SHOWS
        elif shown or path.startswith("/oauth/"):
            token, url, now = self.agent.token if shown else None, self.here.base + path, self.here.world.now
            headers["dpop"] = self.agent.proof(asked.method, url, now, self.verifier.nonce(), token)
            headers |= {"authorization": f"DPoP {token}"} if shown else {}
        headers |= {name: value.decode("latin-1") for name, value in asked.headers}
        lines = [f"{asked.method} {asked.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + asked.body


def _answer(data: bytes) -> tuple[int, str]:
    """Return the status of an answer, 0 where there was none, and the code of its error, if it is one."""
    head, _, body = data.partition(b"\r\n\r\n")
    if not head:
        return 0, "cut"
    status = int(head.split(b" ", 2)[1])
    with suppress(ValueError, AttributeError):
        return status, str(json.loads(body).get("code", "")) if status >= 400 else ""
    return status, ""


@contextmanager
def scene(directory: Path, authority: MeasuredLoop, worker: MeasuredLoop) -> Iterator[Scene]:
    """Serve a broker."""
    made = Scene(authority, worker, directory)
    try:
        authority.do(made.begin())
        for role in (worker_roles.WEB, worker_roles.EDGE):
            ours, theirs = sockets()
            authority.do(made.serve_worker(theirs, role))
            worker.do(made.join(ours, role))
        yield made
    finally:
        worker.do(made.part())
        authority.do(made.stack.aclose())
