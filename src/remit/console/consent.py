"""A human decides on one request in one browser: shown here, decided here, proven by a login at the issuer.

No session of ours is trusted. A random cookie binds a browser to a request, so that nobody can have another's browser
finish what they began (OAU-03); the login's nonce is made of the request and the login, so that it is for these alone.
What has been begun is kept by the browser itself, sealed: showing a page changes nothing and keeps nothing here.

What counts is pressed after the login: a cookie has no port and no scheme, so over plain http whatever else runs on the
host can put its own into a browser, and have it come back from a login that another browser began (RFC 6265 §8.6). The
last page shows who logged in and the request, and its form holds what only the browser that came back was ever told.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from remit import jose
from remit.console import pages
from remit.console.pages import ClientDisplay, DecisionForm, RequestView, request_view
from remit.console.seal import Purpose, Seal
from remit.console.visits import ConsentSession, PushedRequest, RedirectTarget
from remit.core import approval as approvals
from remit.core import connection
from remit.core.approval import Approval, Verdict
from remit.core.policy import LOCAL
from remit.core.principal import Human
from remit.core.scope import check_name
from remit.errors import (
    GrantTokenError,
    InvalidRequestError,
    LimitError,
    NotFoundError,
    RemitError,
    StepUpError,
    UnavailableError,
)
from remit.ports.broker import ApprovalView
from remit.ports.connections import ConnectionPort, ConnectionView
from remit.ports.identity import Login, Logins
from remit.ports.pending import CODE_LIFE, REMEMBERED, AuthorizationCode, PendingKind, PendingStore
from remit.web import wire
from remit.web.routes import AppDeps, Route
from remit.web.wire import check_login_page

LIFE = timedelta(minutes=10)  # of a page that waits for a decision, and of a login
MAX_LAST = 16  # pages that wait for what one human presses who has logged in: the oldest makes way for the newest
_ANSWER = frozenset({"code", "state", "iss", "error", "error_description", "error_uri"})  # and whatever issuers add
_CONSENT = frozenset({"visit", "csrf", "decision", "issuer", "resource"})
_OLD = "this page is too old, or was used before"
_GO_BACK = "Go back to the program"
_MUTE = (
    "Nobody can decide on this: no client of the human's issuer has a secret. The operator of this broker has to add "
    "one to its configuration: [[humans]] with client_secret_file."
)
_OVER = {
    "approved": "This was approved.",
    "denied": "This was refused.",
    "consumed": "This was approved, and is in use or over.",
    "lapsed": "Nobody decided on this in time.",
}


class ConsentPage:
    """Shows requests to browsers and takes decisions."""

    def __init__(self, deps: AppDeps) -> None:
        self._broker, self._verifier, self._connections = deps.broker, deps.verifier, deps.connections
        self._callback = f"{deps.verifier.issuer}/oauth/callback"
        self._secure = self._callback.startswith("https:")
        self._now: Callable[[], datetime] = deps.verifier.clock
        self._identity, self._seal, pending = deps.identity, Seal(), deps.verifier.pending
        self._codes = PendingStore(pending, PendingKind.CODE, AuthorizationCode)
        self._pushed = PendingStore(pending, PendingKind.PUSHED, PushedRequest)  # until the human goes on with it
        self._sessions = PendingStore(pending, PendingKind.CONSENT, ConsentSession)  # of those who have logged in

    def routes(self) -> tuple[Route, ...]:
        """Return the routes; where nobody can log in, only that of a page to read."""
        found = [Route("GET", "/approvals/{approval}", pages.shown(self.approval))]
        if self._connections is not None:
            connected = pages.shown(partial(self.connected, self._connections))
            found.append(Route("GET", "/oauth/connected/{resource}", connected, query=None))
        logins = self._identity.logins
        if logins is None:
            return tuple(found)
        callback = pages.shown(partial(self.callback, logins))
        return (
            *found,
            Route("GET", "/connections", pages.shown(self.mine)),
            Route("GET", "/connections/{resource}", pages.shown(self.connecting)),
            Route("POST", "/oauth/consent", pages.shown(partial(self.consent, logins))),
            Route("GET", "/oauth/callback", callback, query=None),
            Route("GET", "/oauth/callback/{number}", callback, query=None),
        )

    async def approval(self, request: Request) -> Response:
        """Show what was asked of one human, from wherever it was asked."""
        view = await self._broker.look(request.path_params["approval"])
        item = view.approval
        if item.approver is None:  # a link is less than the code of a device, or the browser that asked
            raise NotFoundError
        clients = self._identity.clients if item.task is None else None
        client = None if clients is None else clients.named(item.asker)  # it authenticated to ask
        return self.show(view, ClientDisplay() if client is None else ClientDisplay(client.name))

    def show(self, view: ApprovalView, about: ClientDisplay) -> Response:
        """Show a request to a browser, which may decide on it from now on."""
        item, asked, state = view.approval, request_view(view, about), approvals.state(view.approval, self._now())
        if state != Verdict.PENDING:
            return pages.consent(asked, None, note=_OVER[state])
        if item.approver is not None and item.approver.startswith(LOCAL):
            return pages.consent(asked, None, note=f"Decide on the broker's host: remit approve {item.id}")
        if item.approver is not None and item.approver.partition("#")[0] not in self._identity.issuers:
            return pages.consent(asked, None, note=_MUTE)
        again = "/oauth/device" if item.approver is None else f"/approvals/{item.id}"
        return self._show(asked, ConsentSession(item.id, about, again=again), self._choice(item.approver))

    async def connecting(self, request: Request) -> Response:
        """Offer to connect a resource: its human logs in, and goes on to its provider."""
        name = check_name(request.path_params["resource"])
        asked = ConsentSession("", ClientDisplay(), again=f"/connections/{name}", connect=name)
        session, cookie, csrf = self._bound(asked)
        form = DecisionForm(self._seal.close("form", session), csrf, self._choice(None), approve="Log in to connect")
        return pages.connecting(name, form, "", self._cookie(session.id, cookie))

    async def mine(self, _request: Request) -> Response:
        """Offer a human to see their own connections, and to end some: they log in first."""
        session, cookie, csrf = self._bound(ConsentSession("", ClientDisplay(), again="/connections", mine=True))
        form = DecisionForm(self._seal.close("form", session), csrf, self._choice(None), approve="Log in to see them")
        return pages.connections([], "", form, "", [self._cookie(session.id, cookie)])

    def draft(self, asked: PushedRequest) -> Response:
        """Show what a client wants to ask. Nobody has been asked before the human goes on."""
        now, client = self._now(), asked.back.client_id
        unasked = ApprovalView(Approval("", "task.open", asked.request, now, now, None, client), "")
        session = ConsentSession("", asked.about, asked.back, draft=asked.request, pushed=asked.name)
        return self._show(request_view(unasked, asked.about), session, self._choice(None))

    async def _approval(self, session: ConsentSession) -> Approval:
        return (await self._broker.look(session.approval)).approval

    def _show(self, asked: RequestView, session: ConsentSession, issuers: Mapping[str, str]) -> Response:
        session, cookie, csrf = self._bound(session)
        buttons = DecisionForm(self._seal.close("form", session), csrf, issuers)
        return pages.consent(asked, buttons, cookies=[self._cookie(session.id, cookie)])

    def _bound(self, session: ConsentSession) -> tuple[ConsentSession, str, str]:
        """Return a session that is bound to one browser, with the cookie and the word in the form that bind it."""
        cookie, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        name, until = secrets.token_hex(8), self._now() + LIFE
        bound = replace(session, id=name, cookie=jose.digest(cookie), csrf=jose.digest(csrf), until=until)
        return bound, cookie, csrf

    def _opened(self, purpose: Purpose, text: str) -> ConsentSession | None:
        """Return the session that was sealed, if its time is not up."""
        session = self._seal.open(purpose, text, ConsentSession)
        return session if session is not None and self._now() < session.until else None

    async def consent(self, logins: Logins, request: Request) -> Response:
        """Take what was pressed: before a login it leads to one, after it, it counts."""
        form = await wire.form(request, _CONSENT)
        told = wire.text(form, "visit")
        session = self._opened("form", told) or await self._sessions.find(told)
        if session is None:
            raise InvalidRequestError(_OLD, help="start again")
        given = jose.digest(request.cookies.get(self._name(session.id), ""))
        if not hmac.compare_digest(given, session.cookie):
            raise InvalidRequestError("this was begun in another browser", help="start again in this one")
        if not hmac.compare_digest(jose.digest(wire.text(form, "csrf")), session.csrf):
            raise InvalidRequestError("this form is not from our page")
        decision = wire.text(form, "decision")
        if decision not in {"approve", "deny"} or (decision == "approve" and not session.approves):
            raise InvalidRequestError("`decision` must be one that the page offers")
        session = replace(session, approves=decision == "approve")
        if session.begun:
            return await self._connect(session)
        if session.human is not None and session.mine:
            return await self._disconnect(session, session.human, check_name(wire.text(form, "resource")))
        if session.human is not None:
            return await self._decide(session, session.human)
        return await self._send(logins, session, form.get("issuer"))

    async def _send(self, logins: Logins, session: ConsentSession, issuer: str | None) -> Response:
        """Send a browser to its login, and put on record what its client asks; who refuses goes back to it at once."""
        back = session.back
        if (session.connect or session.mine) and not session.approves:
            return self._unconnected(session)
        if not session.approves and back is not None:
            await self._take_pushed(session)
            return self._refused(session, back, "access_denied", "the human refused")
        approver = (await self._approval(session)).approver if session.approval else None
        choice = self._choice(approver)
        if (issuer is not None and issuer not in choice) or (issuer is None and choice):
            raise InvalidRequestError("`issuer` must be one that the page names")
        at = issuer or next(iter(self._identity.issuers), "") if approver is None else approver.partition("#")[0]
        session = replace(session, issuer=at)
        if session.draft and back is not None:
            await self._take_pushed(session)
            try:
                asked = await self._broker.ask_to_open(back.client_id, approvals.read(session.draft))
            except RemitError as error:
                return self._undecided(session, error)
            session = replace(session, approval=asked.id, draft="", pushed="")
        item = await self._approval(session) if session.approval else None
        state, now = secrets.token_urlsafe(32), self._now()
        url = check_login_page(await logins.begin(await self._login_of(session, item, state, now)))
        digest = jose.digest(state)
        login = replace(session, id=digest[:16], cookie=digest, csrf="", until=now + LIFE)
        cookies = [self._cookie(session.id, ""), self._cookie(login.id, self._seal.close("login", login))]
        return pages.leaving("On to your login", url, "Log in", cookies)

    async def _take_pushed(self, session: ConsentSession) -> None:
        """Use up the name of a pushed request, which counts once (RFC 9126 §4)."""
        if session.pushed and await self._pushed.take(session.pushed) is None:
            raise InvalidRequestError("`request_uri` was used before, or is over", help="start again")

    def _choice(self, approver: str | None) -> Mapping[str, str]:
        issuers = self._identity.issuers
        return issuers if approver is None and len(issuers) > 1 else {}

    async def _login_of(self, session: ConsentSession, item: Approval | None, state: str, at: datetime) -> Login:
        """Return the login that a session takes: anew for a task that there is, and as strong as approving takes."""
        acr = await self._broker.step_up(f"{session.issuer}#") if session.approves else ()
        if item is None:
            anew, nonce = False, connection.nonce(session.connect, state)
        else:
            acr = acr or (item.acr if session.approves else ())
            anew = session.approves and (item.approver is not None or (session.back is not None and session.back.anew))
            nonce = approvals.login_nonce(item, state)
        # Each of several issuers sends browsers back to a place of its own (RFC 9700 §4.4.2.2), so that an answer that
        # comes at another's is to no login, also by an issuer that does not say who it is (RFC 9207).
        number = {url: number for number, url in enumerate(self._identity.issuers, 1)}.get(session.issuer, 1)
        back = self._callback if number == 1 else f"{self._callback}/{number}"
        return Login(back, state, nonce, session.issuer, acr, at if anew or acr else None)

    async def callback(self, logins: Logins, request: Request) -> Response:
        """Take the human back from the issuer, and show them what they are about to decide on."""
        query = request.scope["query_string"].decode("ascii")
        state = wire.text(wire.some(query, _ANSWER), "state")
        kept = request.cookies.get(self._name(jose.digest(state)[:16]), "")
        came = self._opened("login", kept)
        if came is None or not hmac.compare_digest(jose.digest(state), came.cookie):
            raise InvalidRequestError("this login was not begun in this browser, or took too long", help="start again")
        try:
            view = await self._broker.look(came.approval) if came.approval else None
            login = await self._login_of(came, None if view is None else view.approval, state, came.until - LIFE)
            place = f"{self._verifier.issuer}{request.scope['path']}"
            human = replace(await self._verifier.authenticate(logins.finish(query, place, login)), state=state)
            mine = await self._of(human) if came.mine else []
        except RemitError as error:
            return self._undecided(came, error)
        session, cookie, csrf = self._bound(replace(came, human=human))
        await self._sessions.keep(session, LIFE, session.id, room=human.subject.sub, most=MAX_LAST)
        note = f"You are logged in as {human.subject.sub}. Nothing is decided yet."
        if came.mine:
            note, gone = f"You are logged in as {human.subject.sub}.", self._cookie(came.id, "")
            form = DecisionForm(session.id, csrf)
            return pages.connections(mine, human.name, form, note, [gone, self._cookie(session.id, cookie)])
        if view is None:
            form = DecisionForm(session.id, csrf, approve="Connect")
            return pages.connecting(came.connect, form, note, self._cookie(session.id, cookie))
        buttons = DecisionForm(session.id, csrf, approve="Approve" if session.approves else "")
        asked = replace(request_view(view, session.about), digest=view.approval.digest)
        return pages.consent(asked, buttons, note, [self._cookie(came.id, ""), self._cookie(session.id, cookie)])

    async def _decide(self, session: ConsentSession, human: Human) -> Response:
        if await self._sessions.take(session.id) is None:
            raise InvalidRequestError(_OLD, help="start again")
        decide = self._broker.approve if session.approves else self._broker.refuse
        try:
            if session.connect:
                return await self._to_provider(session, human)
            item = await self._approval(session)
            await decide(item.id, item.digest, human, page=True)
        except RemitError as error:
            return self._undecided(session, error)
        said, gone, back = "Approved" if session.approves else "Refused", [self._cookie(session.id, "")], session.back
        if back is None:
            text = "You can close this page and go back to where you came from."
            return pages.document("message.html", said, cookies=gone, text=text)
        if not session.approves:
            return self._refused(session, back, "access_denied", "the human refused")
        until = self._now() + CODE_LIFE
        meant = (item.id, back.client_id, back.redirect_uri, back.challenge, until, back.audience)
        code = await self._codes.keep(AuthorizationCode(*meant, keyed=back.keyed), REMEMBERED)
        return pages.leaving(said, back.url(code=code), _GO_BACK, gone)

    async def _of(self, human: Human) -> Sequence[ConnectionView]:
        return [] if self._connections is None else await self._connections.connections(human)

    async def _disconnect(self, session: ConsentSession, human: Human, name: str) -> Response:
        """End one connection of the human who logged in; for another they log in again, as a login counts once."""
        if await self._sessions.take(session.id) is None or self._connections is None:
            raise InvalidRequestError(_OLD, help="start again")
        try:
            view = await self._connections.end_connection(human, name)
        except RemitError as error:
            return self._undecided(session, error)
        told = f"{view.resource} is not connected any more for {view.human}. No task uses that account from now on."
        gone = [self._cookie(session.id, "")]
        again, label = session.again, "See the others"
        return pages.document("message.html", "Disconnected", cookies=gone, text=told, again=again, label=label)

    async def _to_provider(self, session: ConsentSession, human: Human) -> Response:
        """Send a browser to the provider of a resource; what it shows on its way back is known to it alone."""
        gone, shown = self._cookie(session.id, ""), secrets.token_urlsafe(32)
        if not session.approves or self._connections is None:
            return self._unconnected(session)
        begun = await self._connections.begin_connection(human, session.connect, jose.digest(shown))
        back = self._cookie(jose.digest(begun.state)[:16], shown)
        facts = pages.connection_facts(begun, session.connect, human.name)
        return pages.leaving("On to the provider", begun.url, "Go on", [gone, back], facts)

    async def connected(self, connections: ConnectionPort, request: Request) -> Response:
        """Take what a browser came back with from a provider, and ask whether to connect it, and for whom."""
        answer = wire.some(request.scope["query_string"].decode("ascii"), _ANSWER)
        name = self._name(jose.digest(answer.get("state", ""))[:16])
        shown, at = request.cookies.get(name), request.path_params["resource"]
        back = await connections.answer_connection(at, answer, jose.digest(shown) if shown else "")
        if back.code:
            return pages.returned(back)
        asked = ConsentSession("", ClientDisplay(), connect=at, begun=back.begun, shown=jose.digest(shown or ""))
        session, cookie, csrf = self._bound(asked)
        form = DecisionForm(self._seal.close("form", session), csrf, approve="Connect")
        return pages.returned(back, form, [self._cookie(session.id, cookie)])

    async def _connect(self, session: ConsentSession) -> Response:
        """Have what came back from a provider connected, or leave it: nothing was kept of it."""
        gone = [self._cookie(session.id, ""), self._cookie(session.begun[:16], "")]
        if not session.approves or self._connections is None:
            return self._unconnected(session)
        view = await self._connections.confirm_connection(session.connect, session.begun, session.shown)
        text = f"{view.resource} is connected for {view.human}, to an account at {view.issuer}."
        return pages.document("message.html", "Connected", cookies=gone, text=text)

    def _unconnected(self, session: ConsentSession) -> Response:
        gone = [self._cookie(session.id, "")]
        return pages.document("message.html", "Not connected", cookies=gone, text="Nothing was connected.")

    def _undecided(self, session: ConsentSession, error: RemitError) -> Response:
        """Say why a login did not count; where a stronger one would, how to go on."""
        if session.back is not None and (session.human is not None or not session.about.warning):  # RFC 9700 §4.11.2
            again = isinstance(error, UnavailableError | LimitError)  # the errors of RFC 6749 §4.1.2.1
            final = "server_error" if error.status >= 500 else "access_denied"  # noqa: PLR2004 - of ours, or of theirs
            return self._refused(session, session.back, "temporarily_unavailable" if again else final, error.detail)
        stronger = session.back is None and isinstance(error, StepUpError | GrantTokenError)
        return pages.refusal(error, session.again if stronger else "", [self._cookie(session.id, "")])

    def _refused(self, session: ConsentSession, back: RedirectTarget, error: str, description: str) -> Response:
        """Send the browser back to the program with an error."""
        return pages.leaving("Refused", back.refusal(error, description), _GO_BACK, [self._cookie(session.id, "")])

    def _cookie(self, session: str, value: str) -> str:
        life, secure = int(LIFE.total_seconds()) if value else 0, "; Secure" if self._secure else ""
        return f"{self._name(session)}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={life}{secure}"

    def _name(self, session: str) -> str:
        return f"{'__Host-' if self._secure else ''}remit-{session}"
