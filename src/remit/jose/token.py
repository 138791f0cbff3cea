"""The token of a grant: an RFC 9068 ``at+jwt``, bound to a key (RFC 9449) or to a certificate (RFC 8705), never both.

Pure: bytes, keys and time come in. Its claims say to others what the broker has granted; ``act`` is for the audit alone
(RFC 8693 §4.1). The broker itself takes from it only *which* grant it is and *whose key* must prove it; what the
grant may do is read from the broker's own state.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from remit import jose
from remit.core import fields
from remit.core import scope as scopes
from remit.core.orders import json_object, json_text
from remit.core.principal import Claims, GrantView
from remit.core.request import Binding
from remit.core.scope import Scope
from remit.errors import AudienceError, InvalidRequestError, TokenError, TooLargeError
from remit.jose.keys import RSA, PublicKey

LIFE = timedelta(minutes=10)  # clients take one for over five minutes before its end
MAX_ACTORS = 10  # named in `act`: who acts, and its nearest ancestors; the audit has the whole lineage
STATUS = "/oauth/status/1"  # below the issuer: the list that `status` points into
SKEW = 5  # seconds
MAX_DETAILS = 16_384  # characters of authorization_details in a token: headers have limits
TYPE = "at+jwt"

_HEADER = frozenset({"typ", "alg", "kid"})
_MAX_INSTANT = 253_402_300_799  # 9999-12-31T23:59:59Z
_BINDINGS = ({"jkt"}, {"x5t#S256"})
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HASH = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class TokenSpec:
    """What a token is to say beyond its grant."""

    audience: str | None = None  # None: the issuer itself
    par_hash: str | None = None  # digest of the parent's token, if there was one
    until: datetime | None = None  # the end of what it is bound to: a certificate's ``notAfter`` (RFC 8705)


def claims(view: GrantView, spec: TokenSpec, issuer: str, jti: str, now: datetime) -> dict[str, Any]:
    """Return the claims of a grant's token (RFC 9068 §2.2), but for its details, whose JSON ``mint`` takes as it is."""
    grant, subject, act = view.grant, view.subject, dict[str, object]()
    ends = min(grant.expires_at, now + LIFE, spec.until or grant.expires_at)
    for actor in view.lineage[-MAX_ACTORS:]:  # its size must not grow with depth; the last is the current actor
        act = {"sub": actor.agent, "act": act} if act else {"sub": actor.agent}
    status = {"status_list": {"idx": grant.status, "uri": issuer + STATUS}}
    content: dict[str, object] = {
        "iss": issuer,
        "aud": spec.audience or issuer,
        "sub": subject.sub,
        "acr": subject.acr,
        "auth_time": None if subject.auth_time is None else int(subject.auth_time.timestamp()),
        "amr": list(subject.amr) or None,
        "client_id": grant.client or grant.agent,
        "act": act,
        "cnf": _confirmation(grant.binding),
        "iat": int(now.timestamp()),
        "exp": int(ends.timestamp()),
        "jti": jti,
        "task": {
            "id": view.task,
            "grant": grant.id,
            "parent": grant.parent,
            "purpose_s256": jose.digest(view.purpose),
            "attested": grant.attested,
            "posture": msgspec.to_builtins(grant.posture),
        },
        "del_depth": grant.level,
        "del_max_depth": grant.level + grant.bounds.depth,
        "status": None if grant.status is None else status,
        "par_hash": spec.par_hash,
    }
    return {name: value for name, value in content.items() if value is not None}


def _confirmation(binding: Binding) -> dict[str, str | None] | None:
    """Return what proves a token's holder (RFC 7800); None: whoever has it is its holder."""
    if binding.bearer is not None:
        return None
    return {"jkt": binding.jkt} if binding.x5t is None else {"x5t#S256": binding.x5t}


def check_size(details: Scope) -> None:
    """Raise TooLargeError for details that no token could name."""
    if len(scopes.text(details)) > MAX_DETAILS:
        raise TooLargeError(f"the details of a token have at most {MAX_DETAILS} characters")


def mint(
    content: Mapping[str, object],
    kid: str,
    algorithm: str,
    sign: Callable[[bytes], bytes],
    typ: str = TYPE,
    **written: str,
) -> str:
    """Return the signed token; ``written`` are claims whose JSON text is known."""
    header = json_text({"typ": typ, "alg": algorithm, "kid": kid})
    signed = ".".join(jose.encode(part.encode()) for part in (header, json_object(content, **written)))
    return f"{signed}.{jose.encode(sign(signed.encode()))}"


def read(
    text: str,
    keys: Mapping[str, PublicKey],
    issuer: str,
    now: datetime,
    *,
    expired: bool = False,
    by_rsa: Collection[str] = (),
) -> Claims:
    """Return the claims of a token that one of ``keys`` signed as ``issuer``, or raise TokenError.

    ``keys`` maps ``kid`` to key; ``expired`` admits a token whose time is up. Whom it is for, ``check_audience`` says;
    a key of RSA signs for none but ``by_rsa``, which are elsewhere.
    """
    compact = jose.read(text, _HEADER)
    if compact.header.get("typ") != TYPE:
        raise TokenError("it is not an access token")
    key = keys.get(str(compact.header.get("kid")))
    if key is None:
        raise TokenError("it is not signed by a key of this broker")
    key.verify(compact)
    found = _claims(jose.document(compact.payload, TokenError), issuer)
    if key.algorithms & RSA and found.audience not in by_rsa:
        raise TokenError("it is signed by a key that signs nothing for its audience")
    check_time(found, int(now.timestamp()), expired=expired)
    return found


def check_audience(found: Claims, accepted: Collection[str]) -> None:
    """Raise AudienceError unless a token is for one of ``accepted``."""
    if found.audience not in accepted:
        raise AudienceError


def _claims(raw: Mapping[str, object], issuer: str) -> Claims:
    if raw.get("iss") != issuer:
        raise TokenError("it was not made by this broker")
    about, aud, act = raw.get("task"), raw.get("aud"), raw.get("act")
    posture = about.get("posture") if isinstance(about, Mapping) else None
    borne = isinstance(posture, Mapping) and posture.get("custody") == "bearer" and "cnf" not in raw
    cnf: object = {} if borne else raw.get("cnf")
    if not isinstance(about, Mapping) or not isinstance(cnf, Mapping):
        raise TokenError("its `task` or its `cnf` is missing or malformed")
    audience = aud[0] if isinstance(aud, list) and len(aud) == 1 else aud
    if not isinstance(audience, str) or not audience:
        raise TokenError("it is not for one audience")
    if not borne and cnf.keys() not in _BINDINGS:
        raise TokenError("it is not bound to a key")
    try:
        fields.whole("nbf", raw.get("nbf", 0), most=_MAX_INSTANT)
        return Claims(
            task=fields.text("id", about.get("id"), _ID),
            grant=fields.text("grant", about.get("grant"), _ID),
            parent=None if about.get("parent") is None else fields.text("parent", about["parent"], _ID),
            subject=fields.text("sub", raw.get("sub")),
            client=fields.text("client_id", raw.get("client_id")),
            jkt=fields.text("jkt", cnf["jkt"], _HASH) if "jkt" in cnf else None,
            x5t=fields.text("x5t#S256", cnf["x5t#S256"], _HASH) if "x5t#S256" in cnf else None,
            jti=fields.text("jti", raw.get("jti"), _ID),
            issued_at=fields.whole("iat", raw.get("iat"), most=_MAX_INSTANT),
            expires_at=fields.whole("exp", raw.get("exp"), most=_MAX_INSTANT),
            audience=audience,
            par_hash=fields.text("par_hash", raw["par_hash"], _HASH) if "par_hash" in raw else None,
            all=raw,
            agent=fields.text("act", act.get("sub") if isinstance(act, Mapping) else None),
        )
    except InvalidRequestError as error:
        raise TokenError(f"its {error.detail}") from error


def check_time(found: Claims, now: int, *, expired: bool = False) -> None:
    """Raise TokenError unless a token is valid at ``now`` (seconds since the epoch), or has been, if ``expired``."""
    starts = found.all.get("nbf", found.issued_at)
    if max(found.issued_at, starts if isinstance(starts, int) else 0) > now + SKEW:
        raise TokenError("it is not valid yet")
    if now >= found.expires_at and not expired:
        raise TokenError("it has expired", help="renew a token before it ends")
