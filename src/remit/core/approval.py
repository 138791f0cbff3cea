"""Asking a human: one state machine for approvals, device codes, authorization codes and back-channel requests. Pure.

    PENDING ── approve ──▶ APPROVED ── consume ──▶ CONSUMED
       ├── deny ──▶ DENIED
       └── time ──▶ lapsed (from PENDING and APPROVED alike)

What a human decides on is the exact request, named by its digest: whoever decides says which digest they saw, and
whoever redeems must ask for that very thing. A decision counts once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

from remit.core import request as requests
from remit.core import scope as scopes
from remit.core.grant import Subject
from remit.core.orders import digest, json_text
from remit.core.policy import LOCAL
from remit.core.request import Binding, GrantRequest
from remit.errors import (
    ApprovalError,
    ConflictError,
    InvalidRequestError,
    LapsedError,
    NotFoundError,
    PendingError,
    StepUpError,
    UsedError,
)

MAX_REQUEST = 32_768  # characters
SKEW = timedelta(seconds=5)  # between an issuer's clock and ours


class Verdict(StrEnum):
    """Where an approval is in its life."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    CONSUMED = "consumed"


@dataclass(frozen=True, slots=True)
class Approval:
    """One thing to be decided by a human, and what became of it. ``digest`` covers its id, verb, request and salt."""

    id: str
    verb: str  # task.open | grant.delegate
    request: str  # what is asked for, as canonical JSON text
    asked_at: datetime
    expires_at: datetime
    # The one human who may decide (issuer-qualified). None, for a task yet to be opened: whomever the issuers know,
    # who becomes its human; only the page of the flow shows it, in the browser that asked or with the device's code.
    approver: str | None
    asker: str  # the agent or client that asked
    acr: tuple[str, ...] = ()  # how strongly they must have proven who they are
    task: str | None = None
    grant: str | None = None
    verdict: Verdict = Verdict.PENDING
    by: Subject | None = None
    decided_at: datetime | None = None
    result: str | None = None  # the grant that came of it
    rev: int = 1  # grows by one with every change
    salt: str = ""  # who asks knows all the rest, and must not be able to say what only who decides was shown

    @property
    def digest(self) -> str:
        """What a human decides on: SHA-256 over the id, the verb, the exact request and the salt, base64url."""
        return digest(f"{self.id}\n{self.verb}\n{self.request}\n{self.salt}")

    @property
    def room(self) -> str:
        """With what it shares room where room is short, so that what anybody can ask for takes no place of a task's."""
        if self.task is not None:
            return "task"
        return "anybody" if self.approver is None else "named"


def login_nonce(approval: Approval, state: str) -> str:
    """Return the nonce of the login with this ``state`` that decides on a request, and on nothing else."""
    return digest(f"{approval.digest}\n{state}")  # who holds a link, and is sent to log in, learns no digest


def text_of(request: GrantRequest, parent: str | None = None) -> str:
    """Return a request as canonical JSON text: all that a human decides on, the key included."""
    requests.check(request)
    text = json_text({**requests.written(request), "parent": parent})
    if len(text) > MAX_REQUEST:
        raise InvalidRequestError("the request is too large for a human to decide on")
    return text


def shown(text: str) -> dict[str, Any]:
    """Return a request, of which ``text_of`` wrote the text, as it is shown: every member that says something."""
    return {name: value for name, value in dict(json.loads(text)).items() if value is not None}


def request_of(approval: Approval) -> GrantRequest:
    """Return the request that was approved, as it is to be made."""
    return read(approval.request)


@lru_cache(maxsize=32)  # whoever looks at one reads it more than once, and a long one takes milliseconds
def read(text: str) -> GrantRequest:
    """Return the request of a text that ``text_of`` wrote, within whatever limits held then."""
    said = shown(text)
    claims = tuple(sorted(dict(said.get("claims", {})).items()))  # an earlier version told none
    binding = Binding(said.get("jkt"), said.get("x5t"), said.get("agent"), claims, said.get("bearer"))
    return requests.read(said, binding, scopes.read)


def asks_no_less(one: Approval, other: Approval) -> bool:
    """Whether a grant by ``one`` would hold all that one by ``other`` would, but for its time, names and keys."""
    more, less = request_of(one), request_of(other)
    wide, narrow = more.bounds, less.bounds
    hops = wide.depth >= narrow.depth and wide.fan_out >= narrow.fan_out and wide.exercise >= narrow.exercise
    return hops and None not in scopes.covering(less.scope, more.scope)


def state(approval: Approval, now: datetime) -> str:
    """Return where an approval is in its life, time included: a verdict, or ``lapsed``."""
    over = approval.verdict in {Verdict.PENDING, Verdict.APPROVED} and now >= approval.expires_at
    return "lapsed" if over else approval.verdict.value


def _check_shown(approval: Approval, digest: str, by: Subject) -> None:
    """Raise unless ``by`` is whom it is asked of, having seen the request of this digest."""
    if approval.approver not in {None, by.sub}:
        raise NotFoundError
    if digest != approval.digest:
        raise ConflictError("this is not the request that was shown")


def approve(approval: Approval, digest: str, by: Subject, now: datetime) -> Approval:
    """Return the approval as approved by a human who saw the request of this digest."""
    _check_shown(approval, digest, by)
    check_strength(by, approval.acr, approval.asked_at, anew=approval.approver is not None or bool(approval.acr))
    return _decided(approval, Verdict.APPROVED, by, now)


def check_strength(by: Subject, acr: tuple[str, ...], since: datetime, *, anew: bool) -> None:
    """Raise StepUpError unless a human proved who they are by one of ``acr``, if any, and ``anew``: not before."""
    if acr and by.acr not in acr:
        raise StepUpError(help=f"log in again with {' or '.join(acr)}")
    fresh = by.auth_time is not None and by.auth_time >= since - SKEW
    if anew and not by.sub.startswith(LOCAL) and not fresh:
        raise StepUpError("the human has to log in again to decide on this")


def deny(approval: Approval, digest: str, by: Subject, now: datetime) -> Approval:
    """Return the approval as refused; who may approve may refuse, however they proved who they are."""
    _check_shown(approval, digest, by)
    return _decided(approval, Verdict.DENIED, by, now)


def _decided(approval: Approval, verdict: Verdict, by: Subject, now: datetime) -> Approval:
    if approval.verdict is not Verdict.PENDING:
        raise ConflictError("this was decided before")
    if now >= approval.expires_at:
        raise LapsedError
    return replace(approval, verdict=verdict, by=by, decided_at=now, rev=approval.rev + 1)


def consume(approval: Approval, request: GrantRequest, result: str, now: datetime) -> Approval:
    """Return the approval as used up for exactly the request that was approved, or say why it cannot be."""
    ready(approval, now)
    approved = request_of(approval)
    # where a human saw no key, as a device proves its own only with its token request (RFC 9449 §5), any opens the task
    if approval.grant is None and approved.binding.thumbprint is None:
        bearer = approved.binding.bearer if request.binding.thumbprint else request.binding.bearer
        request = replace(request, binding=replace(request.binding, jkt=None, x5t=None, bearer=bearer))
    if request != approved:
        raise ApprovalError("something else was approved", help="ask for exactly what the human saw, or ask anew")
    return replace(approval, verdict=Verdict.CONSUMED, result=result, rev=approval.rev + 1)


def ready(approval: Approval, now: datetime) -> Subject:
    """Return the human who approved, or raise what an asking client has to know."""
    if approval.verdict is Verdict.CONSUMED:
        raise UsedError("this approval was used before", help="ask anew: an approval counts once")
    if approval.verdict is Verdict.DENIED:
        raise ApprovalError("a human refused this", help="do without it, and say so")
    if now >= approval.expires_at:
        raise LapsedError
    if approval.verdict is Verdict.PENDING or approval.by is None:
        raise PendingError(help="ask again later")
    return approval.by
