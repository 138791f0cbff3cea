"""The token of a grant: an RFC 9068 ``at+jwt``, always bound to a key. Pure: bytes, keys and time come in.

The claims say to third parties what the broker has granted. The broker itself takes from a token only *which* grant it
is and *whose key* must prove it; what the grant may do is read from the broker's own state. ``act`` is for the audit
alone (RFC 8693 §4.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from remit.core import jose
from remit.core import scope as scopes
from remit.core.jose import PublicKey
from remit.core.task import Grant, Task
from remit.errors import TokenError

LIFE = timedelta(minutes=10)
SKEW = 5  # seconds
MAX_DETAILS = 16_384  # characters of authorization_details in a token: headers have limits
TYPE = "at+jwt"

_HEADER = frozenset({"typ", "alg", "kid"})
_MAX_INSTANT = 253_402_300_799  # 9999-12-31T23:59:59Z
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HASH = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Claims:
    """What the broker reads from a token that holds. Instants are seconds since the epoch."""

    task: str
    grant: str
    parent: str | None
    subject: str
    client: str
    jkt: str
    jti: str
    issued_at: int
    expires_at: int
    par_hash: str | None
    all: Mapping[str, object]


def claims(
    task: Task, grant: Grant, *, issuer: str, jti: str, now: datetime, par_hash: str | None
) -> dict[str, object]:
    """Return the claims of a grant's token. ``par_hash`` is the digest of the parent's token, if there was one."""
    line = task.lineage(grant.id)
    content: dict[str, object] = {
        "iss": issuer,
        "aud": issuer,
        "sub": task.head.subject.sub,
        "acr": task.head.subject.acr,
        "client_id": grant.agent,
        "act": _act(line),
        "authorization_details": scopes.dump(grant.scope),
        "cnf": {"jkt": grant.jkt},
        "iat": int(now.timestamp()),
        "exp": int(min(grant.expires_at, now + LIFE).timestamp()),
        "jti": jti,
        "task": _task(task, grant),
        "del_depth": grant.level,
        "del_max_depth": grant.level + grant.depth,
    }
    return content if par_hash is None else {**content, "par_hash": par_hash}


def _act(line: Sequence[Grant]) -> dict[str, object]:
    act: dict[str, object] = {}
    for grant in reversed(line):  # root first, so that the outermost is the current actor
        act = {"sub": grant.agent, "act": act} if act else {"sub": grant.agent}
    return act


def _task(task: Task, grant: Grant) -> dict[str, object]:
    posture = {"isolation": grant.posture.isolation, "custody": grant.posture.custody, "at_rest": grant.posture.at_rest}
    return {
        "id": task.id,
        "grant": grant.id,
        "parent": grant.parent,
        "purpose_s256": jose.digest(task.head.purpose),
        "attested": grant.attested,
        "posture": posture,
    }


def life(content: Mapping[str, object]) -> int:
    """Return for how many seconds a token with these claims lives."""
    return _instant(content, "exp") - _instant(content, "iat")


def mint(content: Mapping[str, object], kid: str, algorithm: str, sign: Callable[[bytes], bytes]) -> str:
    """Return the signed token."""
    header = {"typ": TYPE, "alg": algorithm, "kid": kid}
    signed = ".".join(jose.encode(scopes.json_text(part).encode()) for part in (header, content))
    return f"{signed}.{jose.encode(sign(signed.encode()))}"


def read(text: str, keys: Mapping[str, PublicKey], issuer: str, now: datetime, *, expired: bool = False) -> Claims:
    """Return the claims of a token that one of ``keys`` signed for ``issuer``, or raise TokenError.

    ``keys`` maps ``kid`` to key; ``expired`` admits a token whose time is up.
    """
    compact = jose.read(text, _HEADER)
    if compact.header.get("typ") != TYPE:
        raise TokenError("it is not an access token")
    key = keys.get(str(compact.header.get("kid")))
    if key is None:
        raise TokenError("it is not signed by a key of this broker")
    jose.verify(compact, key)
    found = _claims(jose.document(compact.payload, TokenError), issuer)
    _in_time(found, int(now.timestamp()), expired=expired)
    return found


def _claims(raw: Mapping[str, object], issuer: str) -> Claims:
    if raw.get("iss") != issuer or raw.get("aud") not in (issuer, [issuer]):
        raise TokenError("it was not made by this broker for itself")
    about, cnf = _members(raw, "task"), _members(raw, "cnf")
    if cnf.keys() != {"jkt"}:
        raise TokenError("it is not bound to a key")
    if "nbf" in raw:
        _instant(raw, "nbf")
    return Claims(
        task=_text(about, "id", _ID),
        grant=_text(about, "grant", _ID),
        parent=None if about.get("parent") is None else _text(about, "parent", _ID),
        subject=_text(raw, "sub"),
        client=_text(raw, "client_id"),
        jkt=_text(cnf, "jkt", _HASH),
        jti=_text(raw, "jti", _ID),
        issued_at=_instant(raw, "iat"),
        expires_at=_instant(raw, "exp"),
        par_hash=_text(raw, "par_hash", _HASH) if "par_hash" in raw else None,
        all=raw,
    )


def _in_time(found: Claims, now: int, *, expired: bool) -> None:
    starts = found.all.get("nbf", found.issued_at)
    if max(found.issued_at, starts if isinstance(starts, int) else 0) > now + SKEW:
        raise TokenError("it is not valid yet")
    if now >= found.expires_at and not expired:
        raise TokenError("it has expired", help="renew a token before it ends")


def _members(raw: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = raw.get(name)
    if not isinstance(value, Mapping):
        raise TokenError(f"its `{name}` is missing or malformed")
    return value


def _text(raw: Mapping[str, object], name: str, pattern: re.Pattern[str] | None = None) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or not value or (pattern is not None and not pattern.fullmatch(value)):
        raise TokenError(f"its `{name}` is missing or malformed")
    return value


def _instant(raw: Mapping[str, object], name: str) -> int:
    value = raw.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_INSTANT:
        raise TokenError(f"its `{name}` is missing or malformed")
    return value
