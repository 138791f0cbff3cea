"""What people see in a browser: whole documents, no scripts, every value escaped, nothing fetched from anywhere.

A page that leads elsewhere is a page with a link that follows itself: the answer to a form is never a redirect, so that
``form-action 'self'`` can hold (CSP 3 §6.4.1 checks every hop of a redirect after a form).
"""

from __future__ import annotations

import html
import json
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeGuard

from starlette.requests import Request
from starlette.responses import Response

from remit.core.legible import escaped, rows, written
from remit.errors import DeniedError, NotFoundError, RemitError
from remit.web import wire
from remit.web.who import Web, authority_of

STYLE = """
:root{color-scheme:light dark;--ink:#16181d;--soft:#5b6270;--line:#d9dde4;--page:#f4f5f7;--card:#fff;--well:#f4f5f7;
--act:#1b5e46;--on:#fff;--warn:#8a4b00}
@media(prefers-color-scheme:dark){:root{--ink:#eceef2;--soft:#a3abba;--line:#363c48;--page:#12151a;--card:#1b1f26;
--well:#13161b;--act:#7fd6b0;--on:#0d1f17;--warn:#ffc27a}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:41rem;margin:2.5rem auto;padding:2rem;background:var(--card);border:1px solid var(--line);
border-radius:14px}
header{max-width:41rem;margin:2.5rem auto -1.5rem;padding:0 .25rem;color:var(--soft);font-weight:600}
h1{font-size:1.45rem;line-height:1.25;margin:0 0 .75rem;overflow-wrap:anywhere}
h2{font-size:.8rem;letter-spacing:.05em;text-transform:uppercase;color:var(--soft);margin:1.75rem 0 .5rem}
p{margin:.5rem 0}
blockquote{margin:.75rem 0;padding:.5rem 1rem;border-left:4px solid var(--act);background:var(--well);
overflow-wrap:anywhere}
section.detail{border:1px solid var(--line);border-radius:10px;padding:.75rem 1rem;margin:.6rem 0}
section.detail h3{margin:0 0 .35rem;font-size:1rem}
dl{display:grid;grid-template-columns:minmax(7.5rem,max-content) 1fr;gap:.2rem 1rem;margin:0}
dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}
dt,dd,blockquote{white-space:break-spaces}
code,pre{font:.875em/1.5 ui-monospace,monospace}
code{overflow-wrap:anywhere}
pre{background:var(--well);border:1px solid var(--line);border-radius:8px;padding:.75rem;white-space:pre-wrap;
overflow-wrap:anywhere}
summary{cursor:pointer;color:var(--soft)}
.soft{color:var(--soft)}
.warn{color:var(--warn)}
form{display:flex;flex-wrap:wrap;gap:.75rem;margin-top:1.5rem;align-items:end}
label{display:block;flex:1 1 100%;font-weight:600}
select{font:inherit;padding:.4rem;margin-left:.5rem}
input[type=text]{display:block;width:100%;margin-top:.35rem;padding:.6rem .75rem;border:1px solid var(--soft);
border-radius:8px;background:var(--card);color:inherit;font:1.5rem/1.3 ui-monospace,monospace;letter-spacing:.15em;
text-transform:uppercase}
button,a.go{font:inherit;font-weight:600;padding:.65rem 1.25rem;border-radius:8px;border:1px solid var(--act);
background:var(--act);color:var(--on);cursor:pointer;text-decoration:none;display:inline-block}
button.no{background:transparent;color:var(--ink);border-color:var(--soft)}
:focus-visible{outline:3px solid var(--act);outline-offset:2px}
@media(max-width:34rem){main{margin:0;border:0;border-radius:0;padding:1.25rem}header{margin:1rem 1.25rem 0}
dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.4rem}}
""".strip()

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

_FIELDS = {
    "actions": "may",
    "paths": "paths",
    "args": "argument",
    "tables": "tables",
    "columns": "columns",
    "tools": "tools",
    "uses": "times, at most",
    "ttl": "each credential for",
}
FEW = 8  # items of a list that people read to its end
_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


@dataclass(frozen=True, slots=True)
class Buttons:
    """What a decision is sent with: which request it is on, and that it comes from our page."""

    visit: str
    csrf: str
    issuers: Mapping[str, str] = field(default_factory=dict)  # to choose from: URL -> name
    approve: str = "Log in to approve"  # empty: there is only no to say
    deny: str = "Deny"


@dataclass(frozen=True, slots=True)
class Question:
    """One request as a human sees it. ``asked`` is the exact request; ``facts`` are said of it beside.

    ``held`` are the details of the grant that asks, in wire form, and ``beyond`` those of the request that exceed them.
    """

    title: str
    intro: str
    asked: Mapping[str, object]
    facts: Sequence[tuple[str, str]] = ()
    warning: str = ""
    digest: str = ""  # for who has logged in alone
    held: Sequence[Mapping[str, object]] = ()
    beyond: Sequence[Mapping[str, object]] = ()


# -- documents ------------------------------------------------------------------------------------------------------


def safe(value: object) -> str:
    """Return text that a browser shows as it is: escaped, and with a mark for each character that would not show."""
    return html.escape(escaped(str(value), keep="\n"))


def document(title: str, body: str, status: int = 200, *, head: str = "", cookies: Sequence[str] = ()) -> Response:
    """Return a whole page. ``body`` and ``head`` are HTML; ``cookies`` are values of Set-Cookie."""
    # without this, browsers would send `Origin: null` with our own forms, as the header says no-referrer
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="referrer" content="same-origin"><title>{safe(title)} · remit</title>{head}'
        f"<style>{STYLE}</style></head><body><header>remit</header><main>{body}</main></body></html>"
    )
    response = Response(text, status, HEADERS, "text/html; charset=utf-8")
    for cookie in cookies:
        response.headers.append("set-cookie", cookie)
    return response


def message(title: str, text: str, *, cookies: Sequence[str] = ()) -> Response:
    """Return a page that only says something."""
    return document(title, f"<h1>{safe(title)}</h1><p>{safe(text)}</p>", cookies=cookies)


def refusal(error: RemitError, again: str = "", cookies: Sequence[str] = ()) -> Response:
    """Say an error to a person; ``again`` is a path of ours where they can try once more."""
    title, text = "This cannot go on", f"{error.detail[:1].upper()}{error.detail[1:]}."
    hint = f'<p class="soft">{safe(_sentence(error.help))}</p>' if error.help else ""
    link = f'<p><a class="go" href="{safe(again)}">Log in again</a></p>' if again else ""
    page = document(title, f"<h1>{title}</h1><p>{safe(text)}</p>{hint}{link}", error.status, cookies=cookies)
    if error.retry_after is not None:
        page.headers["retry-after"] = str(error.retry_after)
    return page


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def leaving(title: str, url: str, link: str, cookies: Sequence[str] = ()) -> Response:
    """Send the browser elsewhere from a page of ours, after a form."""
    head = f'<meta http-equiv="refresh" content="0;url={safe(url)}">'
    body = f'<h1>{safe(title)}</h1><p><a class="go" rel="noreferrer" href="{safe(url)}">{safe(link)}</a></p>'
    return document(title, body, head=head, cookies=cookies)


def away(url: str) -> Response:
    """Redirect a browser that no form sent here."""
    return Response(status_code=303, headers={**HEADERS, "location": url})


def shown(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Let a handler's errors be pages. Pages are for browsers, which reach TCP alone: sockets of runs show none."""

    async def called(request: Request) -> Response:
        if not isinstance(authority_of(request), Web):
            raise NotFoundError("pages are for browsers")
        try:
            _check_document(request)
            return await handler(request)
        except RemitError as error:
            return refusal(error)

    return called


def _check_document(request: Request) -> None:
    """Refuse what is not shown to anybody: an image or a frame of another page (Fetch Metadata, ``Sec-Fetch-Dest``)."""
    if any(dest != "document" for dest in request.headers.getlist("sec-fetch-dest")):
        raise DeniedError("a page is for a window of its own", help="open it in one")


# -- requests -------------------------------------------------------------------------------------------------------


def question(asked: Question, buttons: Buttons | None, note: str = "", cookies: Sequence[str] = ()) -> Response:
    """Show a request, and take a decision on it if there is one to take."""
    body = [
        f"<h1>{safe(asked.title)}</h1><p>{safe(asked.intro)}</p>",
        f"<blockquote>{safe(asked.asked['purpose'])}</blockquote>" if "purpose" in asked.asked else "",
        f'<p class="warn">{safe(asked.warning)}</p>' if asked.warning else "",
        _table(asked.facts),
        "<h2>What it may do</h2>",
        *(_detail(item, "beyond what the grant has") for item in asked.beyond),
        *(_detail(item) for item in _details(asked.asked) if item not in asked.beyond),
        "<h2>For how long, and by whom</h2>",
        _table(_bounds(asked.asked)),
        "<h2>What the grant has that asks</h2>" if asked.held else "",
        *(_detail(item) for item in asked.held),
        _exact(asked),
        f"<p><strong>{safe(note)}</strong></p>" if note else "",
        _form(buttons) if buttons else "",
    ]
    return document(asked.title, "".join(body), cookies=cookies)


def code_form(code: str, wrong: str = "", status: int = 200) -> Response:
    """Ask for the code that another device shows (RFC 8628 §3.3)."""
    title = "Enter the code"
    said = f'<p class="warn" role="alert">{safe(wrong)}</p>' if wrong else ""
    body = (
        f"<h1>{title}</h1><p>Enter the code that the program or device shows. Go on only if you started it yourself,"
        f" and the code here is the code there.</p>{said}"
        '<form method="post" action="/oauth/device"><label>Code <input type="text" name="user_code" required'
        ' autocomplete="off" autocapitalize="characters" spellcheck="false" maxlength="20"'
        f' value="{safe(code)}"></label>'
        "<button>See what is asked</button></form>"
    )
    return document(title, body, status)


def _form(buttons: Buttons) -> str:
    return (
        '<form method="post" action="/oauth/consent">'
        f'<input type="hidden" name="visit" value="{safe(buttons.visit)}">'
        f'<input type="hidden" name="csrf" value="{safe(buttons.csrf)}">'
        f"{_issuers(buttons.issuers)}"
        f"{_approve(buttons.approve)}"
        f'<button class="no" name="decision" value="deny">{safe(buttons.deny)}</button></form>'
    )


def _approve(text: str) -> str:
    return f'<button name="decision" value="approve">{safe(text)}</button>' if text else ""


def _issuers(issuers: Mapping[str, str]) -> str:
    if not issuers:
        return ""
    options = "".join(f'<option value="{safe(url)}">{safe(name)}</option>' for url, name in issuers.items())
    return f'<label>Log in at <select name="issuer">{options}</select></label>'


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{safe(name)}</dt><dd>{safe(value)}</dd>" for name, value in rows) + "</dl>"


def _details(asked: Mapping[str, object]) -> list[Mapping[str, object]]:
    found = asked.get("authorization_details")
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def _detail(detail: Mapping[str, object], mark: str = "") -> str:
    counts = [(_words(name), f"{len(value)} in all") for name, value in detail.items() if _many(value)]
    listed = [(f"{_words(name)} {key}".rstrip(), _value(name, value)) for name, key, value in rows(detail)]
    marked = f' <strong class="warn">{safe(mark)}</strong>' if mark else ""
    title = f'<h3>{safe(detail.get("resource"))} <span class="soft">{safe(detail.get("type"))}</span>{marked}</h3>'
    return f'<section class="detail">{title}{_table([*counts, *listed])}</section>'


def _words(name: str) -> str:
    return _FIELDS.get(name, name)


def _many(value: object) -> TypeGuard[Sequence[object] | Mapping[str, object]]:
    """Whether a value is so long that people may not read to its end; its widest items come first."""
    return isinstance(value, list | Mapping) and len(value) > FEW


def _value(name: str, value: object) -> str:
    return length(value) if name == "ttl" and isinstance(value, int) else written(value)


def _bounds(asked: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return what is asked for beside the details, in words."""
    ttl, depth, patterns = asked.get("ttl"), asked.get("depth"), asked.get("delegates")
    told = [("lasts", length(ttl) if isinstance(ttl, int) else "as long as the grant it comes from")]
    hops = f"{depth} levels deep, {asked.get('fan_out')} at each at once" if depth else "it may not"
    told.append(("may hand on to sub-agents", hops))
    if depth:
        told.append(("sub-agents that nobody attests", "yes" if asked.get("unattested") else "no"))
    if depth and patterns is not None:
        told.append(("sub-agents", written(patterns)))
    told.append(("may use it itself", "yes" if asked.get("exercise") else "no: it only hands on"))
    said = (("label", "calls itself"), ("agent", "attested as"), ("jkt", "key"), ("x5t", "certificate"))
    return told + [(words, str(asked[name])) for name, words in said if asked.get(name)]


def _exact(asked: Question) -> str:
    raw = json.dumps(asked.asked, indent=2, ensure_ascii=True, sort_keys=True)
    digest = f'<p class="soft">Digest of this request <code>{safe(asked.digest)}</code></p>' if asked.digest else ""
    return f"<details><summary>The exact request</summary><pre>{safe(raw)}</pre></details>{digest}"


def length(seconds: int) -> str:
    """Write a length of time, never rounded."""
    parts, left = [], seconds
    for name, size in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {name}{'' if count == 1 else 's'}")
    return " ".join(parts) or "no time"
