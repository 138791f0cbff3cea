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
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response

from remit import jose
from remit.console import pages
from remit.console.consent_session import (
    AuthorizationRequest,
    ClientDisplay,
    ConsentSession,
    PushedRequest,
    RedirectTarget,
    Seal,
)
from remit.console.pages import DecisionForm, RequestView
from remit.core import approval as approvals
from remit.core import scope as scopes
from remit.core.approval import Approval, Verdict
from remit.core.legible import written
from remit.core.policy import LOCAL
from remit.core.principal import Human
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
from remit.ports.identity import Login, Logins
from remit.ports.pending import CODE_LIFE, REMEMBERED, AuthorizationCode, PendingKind, PendingStore
from remit.web import wire
from remit.web.routes import AppDeps, Route
from remit.web.wire import check_login_page

LIFE = timedelta(minutes=10)  # of a page that waits for a decision, and of a login
MAX_LAST = 16  # pages that wait for what one human presses who has logged in: the oldest makes way for the newest
_ANSWER = frozenset({"code", "state", "iss", "error", "error_description", "error_uri"})  # and whatever issuers add
_CONSENT = frozenset({"visit", "csrf", "decision", "issuer"})
_OLD = "this page is too old, or was used before"
_GO_BACK = "Go back to the program"
_MUTE = (
    "Nobody can decide on this: no client of the human's issuer has a secret. The operator of this broker has to add "
    "one to its configuration: [[humans]] with client_secret_file."
)


class ConsentPage:
    """Shows requests to browsers and takes decisions."""

    def __init__(self, deps: AppDeps) -> None:
        self._broker, self._verifier = deps.broker, deps.verifier
        self._callback = f"{deps.verifier.issuer}/oauth/callback"
        self._now: Callable[[], datetime] = deps.verifier.clock
        self._identity, self._seal, pending = deps.identity, Seal(), deps.verifier.pending
        self._codes = PendingStore(pending, PendingKind.CODE, AuthorizationCode)
        self._pushed = PendingStore(pending, PendingKind.PUSHED, PushedRequest)  # until the human goes on with it
        self._sessions = PendingStore(pending, PendingKind.CONSENT, ConsentSession)  # of those who have logged in

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        return (
            *self.pages(),
            Route("POST", "/oauth/consent", pages.shown(self.consent)),
            Route("GET", "/oauth/callback", pages.shown(self.callback), query=None),
            Route("GET", "/oauth/callback/{number}", pages.shown(self.callback), query=None),
        )

    def pages(self) -> tuple[Route, ...]:
        """Return the routes that need nobody to log in."""
        return (Route("GET", "/approvals/{approval}", pages.shown(self.approval)),)

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

    def draft(self, draft: AuthorizationRequest, about: ClientDisplay, back: RedirectTarget) -> Response:
        """Show what a client wants to ask. Nobody has been asked before the human goes on."""
        now = self._now()
        unasked = ApprovalView(Approval("", "task.open", draft.request, now, now, None, draft.client_id), "")
        session = ConsentSession("", about, back, draft=draft)
        return self._show(request_view(unasked, about), session, self._choice(None))

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

    async def consent(self, request: Request) -> Response:
        """Take what was pressed: before a login it leads to one, after it, it counts."""
        form = await wire.form(request, _CONSENT)
        told = wire.text(form, "visit")
        session = self._seal.open("form", told, self._now()) or await self._sessions.find(told)
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
        if session.human is not None:
            return await self._decide(session, session.human)
        return await self._send(session, form.get("issuer"))

    async def _send(self, session: ConsentSession, issuer: str | None) -> Response:
        if not session.approves and session.back is not None:
            await self._taken(session)
            return self._refused(session, "access_denied", "the human refused")
        approver = (await self._approval(session)).approver if session.approval else None
        session = replace(session, issuer=self._chosen(approver, issuer))
        if session.draft is not None:
            await self._taken(session)
            try:
                draft = session.draft
                item = await self._broker.ask_to_open(draft.client_id, approvals.read(draft.request))
                session = replace(session, approval=item.id, draft=None)
            except RemitError as error:
                return self._undecided(session, error)
        url, cookie = await self._login(session)
        return pages.leaving("On to your login", url, "Log in", [self._cookie(session.id, ""), cookie])

    async def _taken(self, session: ConsentSession) -> None:
        """Use up the name of a pushed request, which counts once (RFC 9126 §4)."""
        name = "" if session.draft is None else session.draft.pushed
        if name and await self._pushed.take(name) is None:
            raise InvalidRequestError("`request_uri` was used before, or is over", help="start again")

    def _choice(self, approver: str | None) -> Mapping[str, str]:
        issuers = self._identity.issuers
        return issuers if approver is None and len(issuers) > 1 else {}

    def _chosen(self, approver: str | None, issuer: str | None) -> str:
        choice = self._choice(approver)
        if (issuer is not None and issuer not in choice) or (issuer is None and choice):
            raise InvalidRequestError("`issuer` must be one that the page names")
        return issuer or next(iter(self._identity.issuers), "") if approver is None else approver.partition("#")[0]

    async def _login(self, session: ConsentSession) -> tuple[str, str]:
        item, state, now = await self._approval(session), secrets.token_urlsafe(32), self._now()
        url = check_login_page(await self._issuers().begin(await self._login_of(session, item, state, now)))
        digest = jose.digest(state)
        session = replace(session, id=digest[:16], cookie=digest, csrf="", until=now + LIFE)
        return url, self._cookie(session.id, self._seal.close("login", session))

    async def _login_of(self, session: ConsentSession, item: Approval, state: str, at: datetime) -> Login:
        """Return the login that a session takes: anew for a task that there is, and as strong as approving takes."""
        acr = (await self._broker.step_up(f"{session.issuer}#") or item.acr) if session.approves else ()
        anew = session.approves and (item.approver is not None or (session.back is not None and session.back.anew))
        nonce = jose.digest(f"{item.digest}\n{state}")  # who holds a link, and is sent to log in, learns no digest
        return Login(self._back(session.issuer), state, nonce, session.issuer, acr, at if anew or acr else None)

    async def callback(self, request: Request) -> Response:
        """Take the human back from the issuer, and show them what they are about to decide on."""
        query = request.scope["query_string"].decode("ascii")
        state = wire.text(wire.some(query, _ANSWER), "state")
        kept = request.cookies.get(self._name(jose.digest(state)[:16]), "")
        session = self._seal.open("login", kept, self._now())
        if session is None or not hmac.compare_digest(jose.digest(state), session.cookie):
            raise InvalidRequestError("this login was not begun in this browser, or took too long", help="start again")
        try:
            view = await self._broker.look(session.approval)
            login = await self._login_of(session, view.approval, state, session.until - LIFE)
            number = request.path_params.get("number")
            came = self._callback if number is None else f"{self._callback}/{number}"
            human = await self._verifier.authenticate(self._issuers().finish(query, came, login))
        except RemitError as error:
            return self._undecided(session, error)
        return await self._confirm(view, session, replace(human, nonce=view.approval.digest))

    async def _confirm(self, view: ApprovalView, came: ConsentSession, human: Human) -> Response:
        session, cookie, csrf = self._bound(replace(came, human=human))
        await self._sessions.keep(session, LIFE, session.id, room=human.subject.sub, most=MAX_LAST)
        buttons = DecisionForm(session.id, csrf, approve="Approve" if session.approves else "")
        note = f"You are logged in as {human.subject.sub}. Nothing is decided yet."
        asked = replace(request_view(view, session.about), digest=view.approval.digest)
        return pages.consent(asked, buttons, note, [self._cookie(came.id, ""), self._cookie(session.id, cookie)])

    async def _decide(self, session: ConsentSession, human: Human) -> Response:
        if await self._sessions.take(session.id) is None:
            raise InvalidRequestError(_OLD, help="start again")
        decide = self._broker.approve if session.approves else self._broker.refuse
        try:
            item = await self._approval(session)
            await decide(item.id, item.digest, human, page=True)
        except RemitError as error:
            return self._undecided(session, error)
        said, gone = "Approved" if session.approves else "Refused", [self._cookie(session.id, "")]
        if session.back is None:
            return pages.message(said, "You can close this page and go back to where you came from.", cookies=gone)
        if not session.approves:
            return self._refused(session, "access_denied", "the human refused")
        back, until = session.back, self._now() + CODE_LIFE
        meant = (session.approval, back.client_id, back.redirect_uri, back.challenge, until, back.audience)
        code = await self._codes.keep(AuthorizationCode(*meant), REMEMBERED)
        return pages.leaving(said, back.url(code=code), _GO_BACK, gone)

    def _undecided(self, session: ConsentSession, error: RemitError) -> Response:
        """Say why a login did not count; where a stronger one would, how to go on."""
        if session.back is not None and (session.human is not None or not session.about.warning):  # RFC 9700 §4.11.2
            again = isinstance(error, UnavailableError | LimitError)  # the errors of RFC 6749 §4.1.2.1
            final = "server_error" if error.status >= 500 else "access_denied"  # noqa: PLR2004 - of ours, or of theirs
            return self._refused(session, "temporarily_unavailable" if again else final, error.detail)
        stronger = session.back is None and isinstance(error, StepUpError | GrantTokenError)
        return pages.refusal(error, session.again if stronger else "", [self._cookie(session.id, "")])

    def _refused(self, session: ConsentSession, error: str, description: str) -> Response:
        """Send the browser back to the program with an error; only where the answer goes somewhere."""
        gone = [self._cookie(session.id, "")]
        if session.back is None:
            return pages.message("Refused", f"{description}.", cookies=gone)
        return pages.leaving("Refused", session.back.refusal(error, description), _GO_BACK, gone)

    def _back(self, issuer: str) -> str:
        """Return where an issuer sends browsers back to: each of several to a place of its own (RFC 9700 §4.4.2.2).

        So an answer that comes at another's is to no login, also by an issuer that does not say who it is (RFC 9207).
        """
        number = {url: number for number, url in enumerate(self._identity.issuers, 1)}.get(issuer, 1)
        return self._callback if number == 1 else f"{self._callback}/{number}"

    def _issuers(self) -> Logins:
        if self._identity.logins is None:
            raise UnavailableError("nobody can log in here: no issuer of humans is configured")
        return self._identity.logins

    def _cookie(self, session: str, value: str) -> str:
        life = int(LIFE.total_seconds()) if value else 0
        secure = "; Secure" if self._callback.startswith("https:") else ""
        return f"{self._name(session)}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={life}{secure}"

    def _name(self, session: str) -> str:
        return f"{'__Host-' if self._callback.startswith('https:') else ''}remit-{session}"


_OVER = {
    "approved": "This was approved.",
    "denied": "This was refused.",
    "consumed": "This was approved, and is in use or over.",
    "lapsed": "Nobody decided on this in time.",
}


def request_view(view: ApprovalView, about: ClientDisplay) -> RequestView:
    """Return a request as it is shown; where a grant asks, also what exceeds it."""
    item, asking = view.approval, view.asking
    asked = approvals.shown(item.request)
    who = about.client or ("A sub-agent" if item.verb == "grant.delegate" else item.asker)
    title = f"{who} asks for access" if item.verb == "task.open" else "An agent asks for more than it has"
    intro = {
        "task.open": "If you approve, it can do the following in your name, and nothing else. It says what for:",
        "grant.delegate": "If you approve, a sub-agent of your task can do the following, and nothing else.",
    }[item.verb]
    told = [("asked by", item.asker), ("in the task", item.task), ("decided by", item.approver), *about.facts]
    facts = [(name, value) for name, value in told if value]
    if asking is None:
        return RequestView(title, intro, asked, facts, about.warning)
    above = " > ".join(written(step.label or step.agent) for step in asking.lineage)
    facts += [("the task is for", asking.task.purpose), ("asked under", above)]
    facts.append(("exceeds", ", ".join(asking.exceeds) or "nothing, but a human has to agree"))
    held, beyond = scopes.dump(asking.held), scopes.dump(asking.offending)
    return RequestView(title, intro, asked, facts, about.warning, held=held, beyond=beyond)
