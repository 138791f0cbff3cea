"""What people see in a browser: whole documents, no scripts, every value escaped, nothing fetched from anywhere.

A page that leads elsewhere is a page with a link that follows itself: the answer to a form is never a redirect, so that
``form-action 'self'`` can hold (CSP 3 §6.4.1 checks every hop of a redirect after a form).
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from remit.core import approval as approvals
from remit.core import scope as scopes
from remit.core.legible import escaped, rows, written
from remit.core.scope import ENDPOINT, label
from remit.errors import DeniedError, NotFoundError, RemitError
from remit.ports.broker import ApprovalView
from remit.ports.connections import BegunConnection, ConnectionView, ReturnedConnection
from remit.web import wire
from remit.web.authentication import TokenAuth, listener_of

if TYPE_CHECKING:
    from jinja2 import Environment

STYLE = files("remit.console").joinpath("templates/style.css").read_text("utf-8")
POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    **wire.HEADERS,
    "content-security-policy": POLICY,
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

FEW = 8  # items of a list that people read to its end, so that longer ones are counted; the widest come first
NOTHING_SAID = "what the provider does when nothing is said"
_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


@dataclass(frozen=True, slots=True)
class ClientDisplay:
    """What is said beside a request: the name of who asks, what to know of them, and facts."""

    client: str = ""
    warning: str = ""
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class DecisionForm:
    """What a decision is sent with: the request that it is on, and a token against CSRF."""

    visit: str
    csrf: str
    issuers: Mapping[str, str] = field(default_factory=dict)  # to choose from: URL -> name
    approve: str = "Log in to approve"  # empty: there is only no to say


@dataclass(frozen=True, slots=True)
class RequestView:
    """One request as a human sees it: ``request`` exactly, and ``facts`` about it.

    ``held`` are the details of the grant that asks, in wire form, and ``beyond`` those of the request that exceed them.
    """

    title: str
    intro: str
    request: Mapping[str, Any]
    facts: Sequence[tuple[str, str]] = ()
    warning: str = ""
    digest: str = ""  # for who has logged in alone
    held: Sequence[Mapping[str, object]] = ()
    beyond: Sequence[Mapping[str, object]] = ()


def request_view(view: ApprovalView, about: ClientDisplay) -> RequestView:
    """Return a request as it is shown; where a grant asks, also what exceeds it."""
    item, asking = view.approval, view.asking
    asked = approvals.shown(item.request)
    title = f"{about.client or item.asker} asks for access"
    intro = "If you approve, it can do the following in your name, and nothing else. It says what for:"
    if item.verb == "grant.delegate":
        title = "An agent asks for more than it has"
        intro = "If you approve, a sub-agent of your task can do the following, and nothing else."
    told = [("asked by", item.asker), ("in the task", item.task), ("decided by", item.approver), *about.facts]
    facts = [(name, value) for name, value in told if value]
    if asking is None:
        return RequestView(title, intro, asked, facts, about.warning)
    above = " > ".join(written(step.label or step.agent) for step in asking.lineage)
    facts += [("the task is for", asking.task.purpose), ("asked under", above)]
    facts.append(("exceeds", ", ".join(asking.exceeds) or "nothing, but a human has to agree"))
    held, beyond = scopes.dump(asking.held), scopes.dump(asking.offending)
    return RequestView(title, intro, asked, facts, about.warning, held=held, beyond=beyond)


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader  # most brokers show no page
    from markupsafe import Markup

    def legible(value: object) -> object:  # a mark for each character that a browser would not show; then it is escaped
        return value if hasattr(value, "__html__") else escaped(str(value), keep="\n")

    found = PackageLoader("remit.console")
    environment = Environment(loader=found, autoescape=True, finalize=legible, trim_blocks=True, lstrip_blocks=True)
    environment.globals["style"] = Markup(STYLE)  # noqa: S704 - ours
    return environment


def document(template: str, title: str, status: int = 200, cookies: Sequence[str] = (), **values: object) -> Response:
    """Return a whole page. ``values`` are what the template shows; ``cookies`` are values of Set-Cookie."""
    text = _templates().get_template(template).render(title=title, **values)
    response = Response(text, status, HEADERS, "text/html; charset=utf-8")
    for cookie in cookies:
        response.headers.append("set-cookie", cookie)
    return response


def refusal(error: RemitError, again: str = "", cookies: Sequence[str] = ()) -> Response:
    """Say an error to a person; ``again`` is a path of ours where they can try once more."""
    told = {"text": sentence(error.detail), "help": sentence(error.help) if error.help else "", "again": again}
    page = document("message.html", "This cannot go on", error.status, cookies=cookies, **told)
    if error.retry_after is not None:
        page.headers["retry-after"] = str(error.retry_after)
    return page


def sentence(text: str) -> str:
    """Return the text of an error as a sentence."""
    return f"{text[:1].upper()}{text[1:]}."


def leaving(
    title: str, url: str, link: str, cookies: Sequence[str] = (), facts: Sequence[tuple[str, str]] = ()
) -> Response:
    """Send the browser elsewhere from a page of ours, after a form; by a press where there are ``facts`` to read."""
    return document("leaving.html", title, url=url, link=link, cookies=cookies, facts=facts)


def away(url: str) -> Response:
    """Redirect a browser that no form sent here."""
    return Response(status_code=303, headers={**HEADERS, "location": url})


def shown(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Let a handler's errors be pages. Pages are for browsers, which reach TCP alone: sockets of runs show none."""

    async def called(request: Request) -> Response:
        if not isinstance(listener_of(request), TokenAuth):
            raise NotFoundError("pages are for browsers")
        try:
            # an image or a frame of another page (Fetch Metadata) is shown to nobody
            if any(dest != "document" for dest in request.headers.getlist("sec-fetch-dest")):
                raise DeniedError("a page is for a window of its own", help="open it in one")
            return await handler(request)
        except RemitError as error:
            return refusal(error)

    return called


def consent(view: RequestView, form: DecisionForm | None, note: str = "", cookies: Sequence[str] = ()) -> Response:
    """Show a request, with the form for a decision if there is one to take."""
    return document(
        "consent.html",
        view.title,
        page=view,
        beyond=[_detail(item) for item in view.beyond],
        details=[_detail(item) for item in view.request["authorization_details"] if item not in view.beyond],
        held=[_detail(item) for item in view.held],
        bounds=_bounds(view.request),
        exact=json.dumps(view.request, indent=2, ensure_ascii=True, sort_keys=True),
        form=form,
        note=note,
        cookies=cookies,
    )


def connecting(name: str, form: DecisionForm, note: str, cookie: str) -> Response:
    """Offer to connect a resource to an account at its provider."""
    text = (
        f"If you go on, the provider of {name} asks you to let remit in. Remit then keeps the tokens, and uses them in "
        "tasks that were opened for you, within what these may do. No agent sees them."
    )
    return document("connect.html", f"Connect {name}", cookies=[cookie], text=text, form=form, note=note)


def connections(
    known: Sequence[ConnectionView], human: str, form: DecisionForm, note: str, cookies: Sequence[str]
) -> Response:
    """Show a human their own connections, each with a button that ends it; nobody's before they have logged in."""
    text = "Accounts at providers that you let remit use in tasks that were opened for you. No agent sees their tokens."
    rows = [{"resource": one.resource, "over": one.over, "facts": _connection_rows(one)} for one in known]
    shown = rows if human else None
    title = "Your connections"
    return document("connections.html", title, cookies=cookies, text=text, note=note, form=form, known=shown)


def _connection_rows(view: ConnectionView) -> list[tuple[str, str]]:
    told = [
        ("account at", view.issuer),
        ("lets remit do there", view.scope or NOTHING_SAID),
        ("since", _at(view.made_at)),
    ]
    if view.over:
        return [*told, ("is over, as it", view.over)]
    told.append(("last used", "not since this broker was started" if view.used_at is None else _at(view.used_at)))
    told += [("a task that may use it", f"{task.id}: {task.purpose}") for task in view.tasks]
    if left := view.open_tasks - len(view.tasks):
        told.append(("and more tasks", str(left)))
    return told if view.open_tasks else [*told, ("tasks that may use it", "none is open")]


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"


def connection_facts(about: BegunConnection | ReturnedConnection, name: str, human: str) -> list[tuple[str, str]]:
    """Return what a human has to know who is to let remit in at a provider."""
    return [
        ("resource", name),
        ("used in tasks of", human),
        ("account at", about.issuer),
        ("lets remit do there", about.scope or NOTHING_SAID),
        ("its tokens go to", about.destination),
    ]


def returned(back: ReturnedConnection, form: DecisionForm | None = None, cookies: Sequence[str] = ()) -> Response:
    """Say whose connection what came back becomes, and have them confirm it: here, or where they began it."""
    facts = connection_facts(back, back.resource, back.human)
    text = "You came back from a provider. Nothing is connected yet. Go on only if you began this yourself, just now."
    note = "Is this you, and the account that you chose yours?" if form else "Type this code where you began it:"
    return document(
        "connect.html",
        f"Connect {back.resource}?",
        cookies=cookies,
        text=text,
        facts=facts,
        note=note,
        code=f"{back.code[:4]}-{back.code[4:]}" if back.code else "",
        form=form,
    )


def code_form(code: str, wrong: str = "", status: int = 200) -> Response:
    """Ask for the code that another device shows (RFC 8628 §3.3)."""
    return document("code.html", "Enter the code", status, code=code, wrong=wrong)


def _detail(detail: Mapping[str, object]) -> Mapping[str, object]:
    told = []
    for name, value in detail.items():
        if isinstance(value, list | Mapping) and len(value) > FEW:
            told.append((label(detail, name), f"{len(value)} in all"))
    for name, key, value in rows(detail):
        text = length(value) if name == "ttl" and isinstance(value, int) else written(value)
        told.append((f"{label(detail, name)} {key}".rstrip(), text))
    return {"resource": detail.get("resource"), "type": detail.get("type"), "rows": told}


BEARER = "its token, if it proves no key, works for whoever has it, at"


def _bounds(request: Mapping[str, object]) -> list[tuple[str, str]]:
    ttl, depth, patterns = request.get("ttl"), request.get("depth"), request.get("delegates")
    told = [("lasts", length(ttl) if isinstance(ttl, int) else "as long as the grant it comes from")]
    hops = f"{depth} levels deep, {request.get('fan_out')} at each at once" if depth else "it may not"
    told.append(("may hand on to sub-agents", hops))
    if depth:
        told.append(("sub-agents that nobody attests", "yes" if request.get("unattested") else "no"))
    if depth and patterns is not None:
        told.append(("sub-agents", written(patterns)))
    told.append(("may use it itself", "yes" if request.get("exercise") else "no: it only hands on"))
    said = (("label", "calls itself"), ("agent", "attested as"), ("jkt", "key"), ("x5t", "certificate"))
    told += [(words, str(request[name])) for name, words in said if request.get(name)]
    if place := request.get("bearer"):
        told.append((BEARER, "the one endpoint of all these" if place == ENDPOINT else str(place)))
    return told


def length(seconds: int) -> str:
    """Write a length of time, never rounded."""
    parts, left = [], seconds
    for name, size in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {name}{'' if count == 1 else 's'}")
    return " ".join(parts) or "no time"
