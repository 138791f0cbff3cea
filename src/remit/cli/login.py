"""Log in at an issuer, and be its human in what is opened from this terminal."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli import options
from remit.cli.connect import ask
from remit.cli.render import emit, lines, safe, said, warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from remit.sdk.login import ClientRegistration, OpenIDClient
    from remit.sdk.session import LoginSession, SessionFile

BOTH = 2  # issuer and client: a client named in full
WAITS = (0.0, 1.0, 1.0)  # seconds before each try to get an ID token that is not spent
NO_GROUPS = (
    'the issuer may want a scope for it: `scopes = ["openid", "groups"]` in [[humans]]; then restart the broker, '
    "and log in again with `remit login`"
)

CONFIDENTIAL = (
    "add a confidential client of it to the configuration: a table [[humans]] with `client_secret_file`, whose one "
    "redirect URI at the issuer is <issuer of remit>/oauth/callback"
)

AsOwner = Annotated[
    bool, typer.Option("--as-owner", help="As the owner of this state, even when somebody is logged in.")
]


def login(
    issuer: Annotated[
        str | None, typer.Option("--issuer", metavar="URL", help="Which issuer, when the broker knows several.")
    ] = None,
    client_id: Annotated[
        str | None,
        typer.Option("--client-id", metavar="ID", help="Which client there, when the broker knows several."),
    ] = None,
    device: Annotated[bool, typer.Option("--device", help="Enter a code in a browser elsewhere.")] = False,
    json: options.Json = False,
) -> None:
    """Log in at an OpenID issuer: tasks opened from this terminal are then yours, by its word.

    A browser is opened; what it is told comes back to a loopback port of this machine. With --device a code is entered
    in a browser anywhere.

    \b
    Examples:
      remit login
      remit login --issuer https://login.example.com --device
    """
    from remit.sdk.session import session_of

    sessions, (at, groups_claim) = _sessions(), _issuer(issuer, client_id)
    with closing(there_at(at)) as there:
        tokens = there.device(_enter) if device else there.browser(visit)
    session = session_of(at, groups_claim, tokens, unused=True)
    with sessions.alone():  # not while the human is in the browser: others would wait for minutes, and not know why
        sessions.save(session)
    _show(session, json)


def logout(json: options.Json = False) -> None:
    """Forget the login, and give its refresh token back to the issuer. Open tasks go on: close them yourself.

    \b
    Examples:
      remit logout
    """
    from remit.errors import RemitError

    sessions = _sessions()
    with sessions.alone():
        try:
            session = sessions.load()
        except RemitError:  # damaged, or seen by others: forgotten all the same
            session = None
        sessions.forget()
    if session is None:
        _told({"forgotten": True, "revoked": False, "page": None}, json)
        return
    try:
        with closing(there_at(session.of)) as there:
            page = there.log_out(session.tokens)
    except RemitError as error:
        error.add_note("the login is forgotten here, but the issuer was not told")
        raise
    _told({"forgotten": True, "revoked": session.refresh_token is not None, "page": page}, json)


def whoami(json: options.Json = False) -> None:
    """Show who is logged in, as the issuer said it last; it is not asked again.

    \b
    Examples:
      remit whoami
      remit whoami --json
    """
    _show(_sessions().need(), json)


# -- for other commands ---------------------------------------------------------------------------------------------


def visit(url: str, to: str = "log in") -> None:
    """Open a browser, and say where it should be in case there is none."""
    import webbrowser

    sys.stderr.write(f"{to} at: {safe(url)}\n")
    webbrowser.open(url)


def session_token(as_owner: bool) -> str | None:
    """Return a new ID token to open a task with, or None: nobody is logged in, or the owner is meant."""
    if as_owner or os.environ.get("REMIT_GRANT"):
        return None
    sessions = _sessions()
    return None if sessions.load() is None else _refreshed(sessions)


def _refreshed(sessions: SessionFile) -> str:
    """Take a new ID token from the issuer, or the one of the login itself if it gives no refresh tokens; use it once.

    Issuers count in seconds: within one they may make the very token that is spent already. Then the next second is
    waited for.
    """
    from remit.errors import GrantTokenError
    from remit.sdk.login import AGAIN

    with sessions.alone():
        last = session = sessions.need()
        if session.refresh_token is None:
            if not session.unused:
                raise GrantTokenError("this issuer's login opens one task, and it has", help=AGAIN)
            sessions.save(replace(session, unused=False))
            return session.claims_token
        for wait in WAITS:
            pause(wait)
            session = _renewed(sessions, session)
            if last.unused or _signed(session.claims_token) != _signed(last.claims_token):
                return session.claims_token
        raise GrantTokenError("the issuer gives the same ID token again and again", help=AGAIN)


def _renewed(sessions: SessionFile, session: LoginSession) -> LoginSession:
    """Refresh a login; the refresh token that comes with it is kept before anything is done with the ID token."""
    from remit.errors import GrantTokenError, RemitError
    from remit.sdk.login import AGAIN

    try:
        if session.ended:
            raise GrantTokenError("this login cannot be renewed any more", help=AGAIN)
        with closing(there_at(session.of)) as there:
            tokens = there.refresh(session.refresh_token or "", session.tokens.claims)
    except RemitError as error:
        if isinstance(error, GrantTokenError):
            sessions.save(replace(session, ended=True))
        error.add_note("with --as-owner nobody has to be logged in")
        raise
    fresh = replace(session, claims_token=tokens.id_token, refresh_token=tokens.refresh_token, unused=False)
    sessions.save(fresh)
    return fresh


def _signed(token: str) -> str:
    """Return what of a token is signed: the broker knows it by that, however it was signed."""
    return token.rpartition(".")[0]


def pause(seconds: float) -> None:
    """Wait."""
    import time

    time.sleep(seconds)


# -- inside ---------------------------------------------------------------------------------------------------------


def there_at(issuer: ClientRegistration) -> OpenIDClient:
    """Return the issuer, as one speaks to it."""
    from remit.sdk.login import OpenIDClient

    return OpenIDClient(issuer)


def _sessions() -> SessionFile:
    from remit.sdk.session import SessionFile

    return SessionFile(os.environ)


def _issuer(url: str | None, client_id: str | None) -> tuple[ClientRegistration, str | None]:
    """Return the issuer to log in at, and the claim that is configured to name groups there."""
    from remit.sdk.login import SCOPES, ClientRegistration

    known = _known(url, client_id)
    scopes = tuple(dict.fromkeys([*SCOPES, *known.get("scopes", [])]))
    return ClientRegistration(known["issuer"], known["client_id"], scopes), known.get("groups_claim")


def _known(url: str | None, client_id: str | None) -> Mapping[str, Any]:
    """Return the one client that is meant, of those that the broker knows; what is named in full it need not know."""
    from remit.errors import InvalidRequestError, NotFoundError

    named = {name: value for name, value in (("issuer", url), ("client_id", client_id)) if value is not None}
    known = _clients(offline=len(named) == BOTH)
    found = [one for one in known if named.items() <= one.items()]
    if not found and len(named) == BOTH:
        return named
    if not found:
        told = f": it knows {_names(known)}" if known else ""
        raise NotFoundError(
            f"the broker knows no such client for this{told}",
            help="configure [[humans]], or name both --issuer and --client-id",
        )
    if len(found) > 1:
        apart = {"--issuer": "issuer", "--client-id": "client_id"}
        options = [option for option, name in apart.items() if len({one[name] for one in found}) > 1]
        raise InvalidRequestError(
            f"the broker knows several clients: {_names(found)}", help=f"choose with {' and '.join(options)}"
        )
    return found[0]


def _clients(*, offline: bool) -> list[Mapping[str, Any]]:
    """Return the clients that the broker knows; none where it is not needed and does not answer."""
    from remit.errors import UnavailableError
    from remit.sdk import verbs

    try:
        return list(ask(verbs.identity()).get("humans", []))
    except UnavailableError:
        if offline:
            return []
        raise


def _names(clients: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"`{one['client_id']}` at {one['issuer']}" for one in clients)


def _enter(url: str, code: str) -> None:
    sys.stderr.write(f"log in at: {safe(url)}\nthe code there must be: {safe(code)}\n")


def _show(session: LoginSession, as_json: bool) -> None:
    from remit.jose.jwt import find_claim
    from remit.sdk.login import ends_at

    claims = session.tokens.claims
    groups = find_claim(claims, session.groups_claim or "groups")
    _told(
        {
            "issuer": session.issuer,
            "sub": claims.get("sub"),
            "groups": [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else [],
            "acr": claims.get("acr"),
            "auth_time": _instant(claims.get("auth_time")),
            "token_until": ends_at(claims).isoformat(),
            "renewable": session.refresh_token is not None and not session.ended,
        },
        as_json,
    )
    if groups is None and session.groups_claim is not None:
        warn(f"the ID token has no claim `{session.groups_claim}`: to policies you are in no group", help=NO_GROUPS)


def _instant(seconds: object) -> str | None:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat() if isinstance(seconds, int | float) else None


def _told(about: dict[str, object], as_json: bool) -> None:
    if as_json:
        emit(about)
        return
    if "forgotten" in about:
        said("logged out here")
        if about["page"]:
            said(f"to end the session at the issuer: {about['page']}")
        return
    lines(about)
