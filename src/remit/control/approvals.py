"""``/v1/approvals``: an agent asks for more than its grant, a human decides, and the agent goes on.

An agent can ask, look and wait. Who decides is the operator at the control socket, or a human by an ID token that was
obtained for this very request (its ``nonce`` is the digest) by a client with a secret, whose answers come here alone:
never whoever holds a grant, by whatever way it comes, and by no login that anybody could have begun.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from remit.control import render
from remit.core import request as requests
from remit.core.approval import Approval
from remit.core.principal import Holder, Principal, Right
from remit.core.request import Binding
from remit.errors import InvalidRequestError, NotFoundError, UnauthenticatedError
from remit.jose import token as tokens
from remit.ports.broker import ApprovalView
from remit.web import wire
from remit.web.authentication import idles, shown
from remit.web.routes import AppDeps, Route
from remit.web.verifier import attested, verified_actor

MAX_WAIT = 25  # seconds; shorter than anything on the way waits for an answer
WAIT = frozenset({"wait"})

_ASKED = requests.LIMITS | {"label", "parent", "req_cnf", "req_cnf_proof", "actor_token"}

Decide = Callable[[str, str, Principal], Awaitable[Approval]]


class ApprovalRoutes:
    """The handlers over one broker."""

    def __init__(self, deps: AppDeps) -> None:
        self._broker, self._verifier, self._identity = deps.broker, deps.verifier, deps.identity

    def routes(self) -> tuple[Route, ...]:
        one = "/v1/approvals/{approval}"
        return (
            Route("POST", "/v1/approvals", self.ask, Right.ACT),
            Route("GET", "/v1/approvals", self.all, Right.ACT),
            Route("GET", one, self.one, Right.ACT, WAIT),
            Route("POST", f"{one}/approve", partial(self.decide, self._broker.approve), authenticate=shown),
            Route("POST", f"{one}/deny", partial(self.decide, self._broker.refuse), authenticate=shown),
        )

    async def ask(self, request: Request, caller: Principal) -> Response:
        asked = await wire.document(request, _ASKED)
        key, actor = None, None
        if "req_cnf" in asked or "req_cnf_proof" in asked:  # of the child's token; its proof is for this URL
            proof, url = wire.text(asked, "req_cnf_proof"), f"{self._verifier.issuer}/v1/approvals"
            token = request.headers.get("authorization", "").partition(" ")[2].strip(" ")
            proven = self._verifier.confirmed(asked.get("req_cnf"), proof, url, token or None)
            await self._verifier.pending.burn(proven)
            key = proven.jkt
        if "actor_token" in asked:  # the child is to be this workload, by a credential of its own
            if self._identity.workloads is None:
                raise InvalidRequestError("no workload is believed here: none is configured")
            verified = verified_actor(self._identity.workloads, wire.text(asked, "actor_token"), key)
            actor = await self._verifier.authenticate(verified)
        wanted = requests.read(asked, attested(Binding(jkt=key), actor))
        if key is not None:  # a token follows
            tokens.check_size(wanted.scope)
        item = await self._broker.ask(caller, wire.text(asked, "parent"), wanted, actor)
        shown = self._shown(caller, item)
        shown.pop("digest", None)  # who asks is not told it, whoever that is
        return wire.answer(shown, 201)

    async def all(self, _: Request, caller: Principal) -> Response:
        found = deque[dict[str, object]]()
        for name in await self._broker.approvals(caller):
            await asyncio.sleep(0)  # a long one takes milliseconds to read, and to show: many hold up nobody else
            with suppress(NotFoundError):  # it is over meanwhile
                item = await self._broker.look(name, caller)
                await asyncio.sleep(0)
                found.append(self._shown(caller, item))
        # Each is let go of as it is written: to free many at once takes milliseconds.
        return wire.listing(approvals=(found.popleft() for _ in range(len(found))))

    async def one(self, request: Request, caller: Principal) -> Response:
        """Show what was asked; with ``wait`` (seconds), once it was decided on, or after so long."""
        seconds = wire.pairs(request.scope["query_string"], WAIT).get("wait", "0")
        name = request.path_params["approval"]
        item = await self._broker.look(name, caller)
        decided = asyncio.ensure_future(self._broker.wait(caller, name, wire.whole("wait", seconds, MAX_WAIT)))
        idles(request, decided.cancel)
        with suppress(asyncio.CancelledError):  # whoever asked has gone
            item = await decided
        if isinstance(caller, Holder):  # it may have ended meanwhile
            await self._broker.grant(caller.grant)
        return wire.answer(self._shown(caller, item))

    def _shown(self, caller: Principal, item: ApprovalView) -> dict[str, object]:
        return render.approval(caller, item, self._verifier.issuer)

    async def decide(self, decide: Decide, request: Request, caller: Principal | None) -> Response:
        """Approve of the request of a digest, or refuse it; over TCP an ID token alone has to do."""
        asked, by = await wire.document(request, frozenset({"digest", "id_token"})), caller
        digest = wire.text(asked, "digest")
        if not isinstance(caller, Holder) and "id_token" in asked:
            if self._identity.humans is None:
                raise InvalidRequestError("no issuer of humans is configured here")
            human = self._identity.humans.id_token(wire.text(asked, "id_token"), nonce=digest)
            by = await self._verifier.authenticate(human)
        if by is None:
            raise UnauthenticatedError("this needs an ID token whose `nonce` is the digest of the request")
        item = await decide(request.path_params["approval"], digest, by)
        return wire.answer({"approval": item.id, "state": item.verdict.value, "digest": item.digest})
