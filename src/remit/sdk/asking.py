"""Asking a human for what a grant does not cover, as flows: ask, wait, go on with what was approved."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from remit.errors import ApprovalError, LapsedError, PendingError
from remit.sdk import verbs
from remit.sdk._wire import ApiCall, Flow, Json, ask, ask_list, ask_proven, decoded, quoted
from remit.sdk.detail import Details, Wishes, expand
from remit.sdk.verbs import Bounds, DPoPBinding, TokenResponse

PATH = "/v1/approvals"
WAIT = 25  # seconds that the broker holds back one answer at most


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """What a human is to decide on. ``bound_to`` is the key that a grant of it would be bound to; None in a run."""

    document: Json
    bound_to: DPoPBinding | None = field(default=None, repr=False)

    @property
    def id(self) -> str:
        return str(self.document["approval"])

    @property
    def url(self) -> str:
        return str(self.document["verification_uri"])  # the page where the human decides

    @property
    def expires_at(self) -> datetime:
        return datetime.fromisoformat(self.document["expires_at"])  # to be decided on and used until then


def ask_for(
    parent: str, known: Details, grants: Wishes, bounds: Bounds, label: str = "", bound_to: DPoPBinding | None = None
) -> Flow[ApprovalRequest]:
    """Ask the task's human for a child of a grant that exceeds it; names are expanded as in ``delegate``."""
    body = {"parent": parent, **verbs.grant_request(expand(grants, known), bounds, label)}
    if bound_to is None:
        return ApprovalRequest((yield from ask(ApiCall("POST", PATH, body=body))))
    call = partial(ApiCall, "POST", PATH, None)  # takes the body
    answer = yield from ask_proven(call, body, bound_to.key, f"{bound_to.issuer}{PATH}")
    return ApprovalRequest(decoded(answer), bound_to)


def approvals() -> Flow[list[Json]]:
    """Return what was asked, as far as the caller may know of it, oldest first."""
    return ask_list(ApiCall("GET", PATH), "approvals")


def approval(approval_id: str, wait: int = 0) -> Flow[Json]:
    """Return what was asked, once it was decided on or after ``wait`` seconds (25 at most)."""
    return ask(ApiCall("GET", f"{PATH}/{quoted(approval_id)}", query={"wait": wait}))


def decided(approval_id: str, within: float) -> Flow[Json]:
    """Return what was asked, once it was decided on or has lapsed, or after ``within`` seconds."""
    left = int(within)
    while True:
        turn = min(left, WAIT)
        found = yield from approval(approval_id, turn)
        left -= turn
        if found["state"] != "pending" or left <= 0:
            return found


def granted(asked: ApprovalRequest, within: float) -> Flow[TokenResponse]:
    """Wait for the decision, and make what was approved.

    PendingError when nobody has decided within so many seconds, ApprovalError when a human refused, LapsedError.
    """
    found = yield from decided(asked.id, within)
    match found["state"]:
        case "pending":
            raise PendingError(help=f"wait longer: `{asked.id}` can be decided on until {found['expires_at']}")
        case "denied":
            raise ApprovalError("a human refused this", help="do without it, and say so")
        case "lapsed":
            raise LapsedError(help="ask again while the grant lives: a human has ten minutes to decide")
    return (yield from taken(asked.id, found["request"]["parent"], asked.bound_to))


def taken(approval_id: str, parent: str, bound_to: DPoPBinding | None = None) -> Flow[TokenResponse]:
    """Make the child that was approved under a grant: exactly what was asked for, once."""
    form = {"subject_token": parent, "subject_token_type": verbs.GRANT, "approval": approval_id}
    return verbs.exchange(form, bound_to)


def decide(approval_id: str, verdict: str, digest: str, id_token: str | None = None) -> Flow[Json]:
    """Say ``approve`` or ``deny`` to the request of this digest, as the owner of the state or by an ID token."""
    body = {"digest": digest, **({} if id_token is None else {"id_token": id_token})}
    return ask(ApiCall("POST", f"{PATH}/{quoted(approval_id)}/{verdict}", body=body))
