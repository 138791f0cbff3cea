"""A human decides on one request in one browser: shown here, decided here, proven by a login at the issuer.

No session of ours is trusted. A random cookie binds a browser to a request, so that nobody can have another's browser
finish what they began (OAU-03); the login's nonce is the digest of the request, so that it is a login for this alone.

What counts is pressed after the login: a cookie has no port and no scheme, so over plain http whatever else runs on the
host can put its own into a browser, and have it come back from a login that another browser began (RFC 6265 §8.6). The
last page shows who logged in and the request, and its form holds what only the browser that came back was ever told.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from remit.api import pages, wire
from remit.api.codes import CODE_LIFE, REMEMBERED, Code, Waiting
from remit.api.held import Held
from remit.api.pages import Buttons, Question
from remit.api.registry import browsable
from remit.api.routes import Row, Surface, Who
from remit.core import approval as approvals
from remit.core import jose
from remit.core.approval import Approval, Verdict
from remit.core.identity import Human
from remit.core.policy import LOCAL
from remit.errors import (
    GrantTokenError,
    InvalidRequestError,
    LimitError,
    NotFoundError,
    RemitError,
    StepUpError,
    UnavailableError,
)
from remit.ports.identity import Logins

LIFE = timedelta(minutes=10)  # of a page that waits for a decision, and of a login
VISIT = 4_096  # bytes, about: where an answer goes may have two thousand characters
MAX_SHOWN = 50  # pages of one request: whoever has its link must not take all the room for pages and logins
CALLBACK = frozenset(
    {"code", "state", "iss", "error", "error_description", "error_uri", "session_state", "scope"}
    | {"authuser", "prompt", "hd", "client_info"}  # what well-known issuers add
)
_CONSENT = frozenset({"visit", "csrf", "decision", "issuer"})
_GO_BACK = "Go back to the program"


@dataclass(frozen=True, slots=True)
class Back:
    """Where an authorization response goes, and what its code will be bound to."""

    client_id: str
    redirect_uri: str
    challenge: str
    state: str | None
    issuer: str
    audience: str | None = None
    anew: bool = False  # whether the client wants the human to log in again

    def url(self, **answer: str) -> str:
        """Return the redirect with an answer: ``state`` as it came, ``iss`` (RFC 9207) always."""
        given = {**answer, **({} if self.state is None else {"state": self.state}), "iss": self.issuer}
        return f"{self.redirect_uri}{'&' if '?' in self.redirect_uri else '?'}{urlencode(given)}"

    def refusal(self, error: str, description: str) -> str:
        """Return the redirect that tells a client no (RFC 6749 §4.1.2.1)."""
        return self.url(error=error, error_description=described(description))


@dataclass(frozen=True, slots=True)
class About:
    """What is said beside a request: the name of who asks, what to know of them, and facts."""

    client: str = ""
    warning: str = ""
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Visit:
    """One browser before one request. Only digests of what the browser holds are kept."""

    approval: str
    about: About = About()
    back: Back | None = None
    again: str = ""  # where it is shown once more, unless the answer goes back to a program
    id: str = ""
    cookie: str = ""
    csrf: str = ""
    approves: bool = True  # or came to refuse: then the login need not be strong, and approves of nothing
    issuer: str | None = None  # where to log in
    human: Human | None = None  # who came back from there; nobody decides before


class Desk:
    """Shows requests to browsers and takes decisions."""

    def __init__(self, surface: Surface, waiting: Waiting) -> None:
        """Decide for the broker of ``surface``; codes go to ``waiting``."""
        self._broker, self._verifier, self._issuer = surface.broker, surface.verifier, surface.verifier.issuer
        self._now: Callable[[], datetime] = surface.verifier.clock
        self._identity, self._codes = surface.identity, waiting.codes
        self._visits: Held[Visit] = Held(self._now)
        self._logins: Held[Visit] = Held(self._now)  # by the state of the login
        self._shown: Held[int] = Held(self._now)  # how often, by approval

    def rows(self) -> tuple[Row, ...]:
        """Return the routes."""
        return (
            *self.pages(),
            Row("POST", "/oauth/consent", Who.PUBLIC, pages.shown(self.consent)),
            Row("GET", "/oauth/callback", Who.PUBLIC, pages.shown(self.callback), CALLBACK),
            Row("GET", "/oauth/callback/{number}", Who.PUBLIC, pages.shown(self.callback), CALLBACK),
        )

    def pages(self) -> tuple[Row, ...]:
        """Return the routes that need nobody to log in."""
        return (Row("GET", "/approvals/{approval}", Who.PUBLIC, pages.shown(self.approval)),)

    # -- showing ------------------------------------------------------------------------------------------------

    async def approval(self, request: Request) -> Response:
        """Show what was asked of one human, from wherever it was asked."""
        item = self._broker.approval(request.path_params["approval"])
        if item.approver is None:  # a link is less than the code of a device, or the browser that asked
            raise NotFoundError
        client = self._identity.clients.named(item.asker) if item.task is None else None
        return self.show(item, About() if client is None else About(client.name, client.warning))

    def show(self, item: Approval, about: About, back: Back | None = None) -> Response:
        """Show a request to a browser, which may decide on it from now on."""
        asked = question_of(item, about)
        state = approvals.state(item, self._now())
        if state != Verdict.PENDING:
            return pages.question(asked, None, note=_OVER[state])
        if item.approver is not None and item.approver.startswith(LOCAL):
            return pages.question(asked, None, note=f"Decide on the broker's host: remit approve {item.id}")
        shown = self._shown.get(item.id) or 0
        if shown >= MAX_SHOWN:
            raise LimitError("this was opened too often", retry_after=int(LIFE.total_seconds()))
        self._shown.put(shown + 1, LIFE, item.id, room=item.room)
        again = "/oauth/device" if item.approver is None else f"/approvals/{item.id}"
        buttons, cookie = self._taking(Visit(item.id, about, back, again=again))
        return pages.question(asked, replace(buttons, issuers=self._choice(item)), cookies=[cookie])

    def _taking(self, visit: Visit) -> tuple[Buttons, str]:
        """Take a decision from one browser: return the form for it, and the cookie, that no other was ever told."""
        cookie, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        visit = replace(visit, id=secrets.token_hex(8), cookie=jose.digest(cookie), csrf=jose.digest(csrf))
        room = self._broker.approval(visit.approval).room if visit.human is None else "logged in"
        self._visits.put(visit, LIFE, visit.id, size=VISIT, room=room)
        return Buttons(visit.id, csrf), self._cookie(visit.id, cookie)

    # -- deciding -----------------------------------------------------------------------------------------------

    async def consent(self, request: Request) -> Response:
        """Take what was pressed: before a login it leads to one, after it, it counts."""
        form = await wire.form(request, _CONSENT)
        visit = self._visits.get(wire.text(form, "visit"))
        if visit is None:
            raise InvalidRequestError("this page is too old, or was used before", help="start again")
        self._check_browser(request, visit)
        if not hmac.compare_digest(jose.digest(wire.text(form, "csrf")), visit.csrf):
            raise InvalidRequestError("this form is not from our page")
        decision = wire.text(form, "decision")
        if decision not in {"approve", "deny"} or (decision == "approve" and not visit.approves):
            raise InvalidRequestError("`decision` must be one that the page offers")
        visit = replace(visit, approves=decision == "approve")
        if visit.human is not None:
            return await self._decided(visit, visit.human)
        return await self._sent(replace(visit, issuer=self._chosen(visit, form.get("issuer"))))

    async def _sent(self, visit: Visit) -> Response:
        """Send the human to the issuer; who only refuses a program goes back to it at once."""
        self._visits.pop(visit.id)
        if not visit.approves and visit.back is not None:
            return self._refused(visit, "access_denied", "the human refused")
        return pages.leaving("On to your login", await self._login(visit), "Log in")

    def _choice(self, item: Approval) -> Mapping[str, str]:
        """Return the issuers to choose from: none where it is clear at which to log in."""
        issuers = self._identity.issuers
        return issuers if item.approver is None and len(issuers) > 1 else {}

    def _chosen(self, visit: Visit, issuer: str | None) -> str | None:
        item = self._broker.approval(visit.approval)
        choice = self._choice(item)
        if (issuer is not None and issuer not in choice) or (issuer is None and choice):
            raise InvalidRequestError("`issuer` must be one that the page names")
        return issuer if item.approver is None else item.approver.partition("#")[0]

    async def _login(self, visit: Visit) -> str:
        """Return where the human logs in: who decides for a task that there is, anew and as strongly as it takes."""
        item = self._broker.approval(visit.approval)
        state = self._logins.put(visit, LIFE, size=VISIT, room=item.room)
        acr = item.acr if visit.approves else ()
        anew = visit.approves and (item.approver is not None or (visit.back is not None and visit.back.anew))
        back = self._back(visit.issuer)
        begun = self._issuers().begin(back, state, item.digest, issuer=visit.issuer, acr=acr, anew=anew, room=item.room)
        return browsable(await begun)

    async def callback(self, request: Request) -> Response:
        """Take the human back from the issuer, and show them what they are about to decide on."""
        query: bytes = request.scope["query_string"]
        state = wire.text(wire.pairs(query, CALLBACK), "state")
        visit = self._logins.get(state)
        if visit is None:
            raise InvalidRequestError("this login is not known here, or took too long", help="start again")
        self._check_browser(request, visit)
        self._logins.pop(state)
        try:
            item = self._broker.approval(visit.approval)
            number = request.path_params.get("number")
            came = self._place if number is None else f"{self._place}/{number}"
            login = self._issuers().finish(query.decode("ascii"), came, state, item.digest)
            human = await self._verifier.believed(login)
        except RemitError as error:
            return self._undecided(visit, error)
        buttons, cookie = self._taking(replace(visit, human=human))
        buttons = replace(buttons, approve="Approve" if visit.approves else "")
        note = f"You are logged in as {human.subject.sub}. Nothing is decided yet."
        cookies = [self._cookie(visit.id, ""), cookie]
        return pages.question(question_of(item, visit.about), buttons, note, cookies)

    async def _decided(self, visit: Visit, human: Human) -> Response:
        """Let what a human pressed count, who had logged in before they saw the page."""
        self._visits.pop(visit.id)
        decide = self._broker.approve if visit.approves else self._broker.refuse
        try:
            item = self._broker.approval(visit.approval)
            await decide(item.id, item.digest, human, page=True)
        except RemitError as error:
            return self._undecided(visit, error)
        said, gone = "Approved" if visit.approves else "Refused", [self._cookie(visit.id, "")]
        if visit.back is None:
            return pages.message(said, "You can close this page and go back to where you came from.", cookies=gone)
        if not visit.approves:
            return self._refused(visit, "access_denied", "the human refused")
        return pages.leaving(said, visit.back.url(code=self._code(visit, visit.back)), _GO_BACK, gone)

    def _undecided(self, visit: Visit, error: RemitError) -> Response:
        """Say why a login did not count; where a stronger one would, how to go on."""
        if visit.back is not None and (visit.human is not None or not visit.about.warning):  # RFC 9700 §4.11.2
            return self._refused(visit, _authorization_error(error), error.detail)
        stronger = visit.back is None and isinstance(error, StepUpError | GrantTokenError)
        return pages.refusal(error, visit.again if stronger else "", [self._cookie(visit.id, "")])

    def _refused(self, visit: Visit, error: str, description: str) -> Response:
        """Send the browser back to the program with an error; only where the answer goes somewhere."""
        gone = [self._cookie(visit.id, "")]
        if visit.back is None:
            return pages.message("Refused", f"{description}.", cookies=gone)
        return pages.leaving("Refused", visit.back.refusal(error, description), _GO_BACK, gone)

    def _code(self, visit: Visit, back: Back) -> str:
        until = self._now() + CODE_LIFE
        made = Code(visit.approval, back.client_id, back.redirect_uri, back.challenge, until, back.audience)
        return self._codes.put(made, REMEMBERED)

    # -- inside -------------------------------------------------------------------------------------------------

    @property
    def _place(self) -> str:
        return f"{self._issuer}/oauth/callback"

    def _back(self, issuer: str | None) -> str:
        """Return where an issuer sends browsers back to: each of several to a place of its own (RFC 9700 §4.4.2.2).

        So an answer that comes at another's is to no login, also by an issuer that does not say who it is (RFC 9207).
        """
        number = {url: number for number, url in enumerate(self._identity.issuers, 1)}.get(issuer or "", 1)
        return self._place if number == 1 else f"{self._place}/{number}"

    def _issuers(self) -> Logins:
        if self._identity.logins is None:
            raise UnavailableError("nobody can log in here: no issuer of humans is configured")
        return self._identity.logins

    @property
    def _secure(self) -> bool:
        return self._issuer.startswith("https:")

    def _cookie(self, visit: str, value: str) -> str:
        """Return a cookie of this visit alone; an empty value removes it."""
        life = int(LIFE.total_seconds()) if value else 0
        secure = "; Secure" if self._secure else ""
        return f"{self._name(visit)}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={life}{secure}"

    def _name(self, visit: str) -> str:
        return f"{'__Host-' if self._secure else ''}remit-{visit}"

    def _check_browser(self, request: Request, visit: Visit) -> None:
        given = jose.digest(request.cookies.get(self._name(visit.id), ""))
        if not hmac.compare_digest(given, visit.cookie):
            raise InvalidRequestError("this was begun in another browser", help="start again in this one")


_OVER = {
    "approved": "This was approved.",
    "denied": "This was refused.",
    "consumed": "This was approved, and is in use or over.",
    "lapsed": "Nobody decided on this in time.",
}


def question_of(item: Approval, about: About) -> Question:
    """Return a request as it is shown."""
    asked = approvals.asked(item)
    who = about.client or ("A sub-agent" if item.verb == "grant.delegate" else item.asker)
    title = f"{who} asks for access" if item.verb == "task.open" else "An agent asks for more than it has"
    intro = {
        "task.open": "If you approve, it can do the following in your name, and nothing else. It says what for:",
        "grant.delegate": "If you approve, a sub-agent of your task can do the following, and nothing else.",
    }[item.verb]
    told = [("asked by", item.asker), ("in the task", item.task), ("decided by", item.approver), *about.facts]
    rows = [(name, value) for name, value in told if value]
    return Question(title, intro, asked, item.digest, rows, about.warning)


def _authorization_error(error: RemitError) -> str:
    """Return the registered error of an authorization response (RFC 6749 §4.1.2.1) for one of ours."""
    if isinstance(error, UnavailableError | LimitError):
        return "temporarily_unavailable"
    return "server_error" if error.status >= 500 else "access_denied"  # noqa: PLR2004


def described(text: str) -> str:
    """Return text as ``error_description`` may hold it (RFC 6749 §4.1.2.1)."""
    return "".join(char if " " <= char <= "~" and char not in '"\\' else "'" for char in text)
