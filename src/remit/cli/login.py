"""Log in at an issuer, and be its human in what is opened from this terminal."""

from __future__ import annotations

import os
import sys
import webbrowser
from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated

from remit.cli import options, sdk
from remit.cli.options import option
from remit.cli.render import answer, pause, safe, warn
from remit.errors import UnavailableError

NO_GROUPS = (
    'the issuer may want a scope for it: `scopes = ["openid", "groups"]` in [[humans]]; then restart the broker, '
    "and log in again with `remit login`"
)

AsOwner = Annotated[bool, option("--as-owner", "As the owner of this state, even when somebody is logged in.")]


def login(
    issuer: Annotated[str | None, option("--issuer URL", "Which issuer, when the broker knows several.")] = None,
    client_id: Annotated[
        str | None, option("--client-id ID", "Which client there, when the broker knows several.")
    ] = None,
    device: Annotated[bool, option("--device", "Enter a code in a browser elsewhere.")] = False,
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
    sessions = sdk.session.SessionFile(os.environ)
    try:
        known = sdk.ask(sdk.verbs.identity()).get("humans", [])
    except UnavailableError:
        if issuer is None or client_id is None:  # a client that is named in full needs no broker
            raise
        known = []
    chosen = sdk.login.chosen_client(known, issuer, client_id)
    scopes = tuple(dict.fromkeys([*sdk.login.SCOPES, *chosen.get("scopes", [])]))
    registration = sdk.login.ClientRegistration(chosen["issuer"], chosen["client_id"], scopes)
    with closing(sdk.login.OpenIDClient(registration)) as client:
        tokens = client.device(_enter) if device else client.browser(visit)
    groups = chosen.get("groups_claim")
    session = sdk.session.LoginSession(
        chosen["issuer"], chosen["client_id"], scopes, groups, tokens.id_token, refresh_token=tokens.refresh_token
    )
    with sessions.alone():  # not while the human is in the browser: others would wait for minutes, and not know why
        sessions.save(session)
    _show(session, json)


def logout(json: options.Json = False) -> None:
    """Forget the login, and give its refresh token back to the issuer. Open tasks go on: close them yourself.

    \b
    Examples:
      remit logout
    """
    revoked, page = sdk.session.SessionFile(os.environ).log_out(sdk.login.OpenIDClient)
    document = {"forgotten": True, "revoked": revoked, "page": page}
    answer(json, document, "logged out here", *([f"to end the session at the issuer: {page}"] if page else []))


def whoami(json: options.Json = False) -> None:
    """Show who is logged in, as the issuer said it last; it is not asked again.

    \b
    Examples:
      remit whoami
      remit whoami --json
    """
    _show(sdk.session.SessionFile(os.environ).need(), json)


def visit(url: str, to: str = "log in") -> None:
    """Open a browser, and say where it should be in case there is none."""
    sys.stderr.write(f"{to} at: {safe(url)}\n")
    webbrowser.open(url)


def session_token(as_owner: bool) -> str | None:
    """Return a new ID token to open a task with, or None: nobody is logged in, or the owner is meant."""
    if as_owner or os.environ.get("REMIT_GRANT"):
        return None
    sessions = sdk.session.SessionFile(os.environ)
    return None if sessions.load() is None else sessions.id_token(sdk.login.OpenIDClient, pause)


def _enter(url: str, code: str) -> None:
    sys.stderr.write(f"log in at: {safe(url)}\nthe code there must be: {safe(code)}\n")


def _show(session: sdk.session.LoginSession, as_json: bool) -> None:
    from remit.jose.jwt import find_claim

    claims = session.tokens.claims
    groups = find_claim(claims, session.groups_claim or "groups")
    at = claims.get("auth_time")
    about: dict[str, object] = {
        "issuer": session.issuer,
        "sub": claims.get("sub"),
        "groups": [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else [],
        "acr": claims.get("acr"),
        "auth_time": datetime.fromtimestamp(at, UTC).isoformat() if isinstance(at, int | float) else None,
        "token_until": sdk.login.ends_at(claims).isoformat(),
        "renewable": session.refresh_token is not None and not session.ended,
    }
    answer(as_json, about, about)
    if groups is None and session.groups_claim is not None:
        warn(f"the ID token has no claim `{session.groups_claim}`: to policies you are in no group", NO_GROUPS)
