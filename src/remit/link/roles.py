"""Who may say what: for each role of a worker the methods that it may call and the principals that it may name.

A worker speaks for whom it has been shown, and for nobody else: it names a grant only if that grant, or one above it,
was told to it over its link, in answer to a ticket, a token, or an open. A human it names by their token, which the
authority verifies itself, and a workload by a credential that the authority has verified (``link.answering``). Nobody
speaks for the operator over a link.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from remit.core.principal import GrantView, Holder, Human, Operator, Right, Workload
from remit.core.refresh import RefreshFamily
from remit.errors import DeniedError, NotFoundError
from remit.ports.broker import Rotated
from remit.ports.runs import RedeemedRun
from remit.ports.tokens import Granted


class Cost(Enum):
    """What a call is counted as; each has room of its own."""

    LOOK = "look"  # at memory, and it is answered at once
    WAIT = "wait"  # for a human
    VERB = "verb"


@dataclass(frozen=True, slots=True)
class WorkerRole:
    """What one kind of worker may do. A method that is not named may not be called."""

    name: str
    methods: frozenset[str]
    principals: tuple[type, ...]
    uses: bool  # in batches, so that how each ended is known, and who has to cut it; there is no call for one


_EVERY = frozenset(
    {
        *("approvals", "approve", "ask", "check_acting", "close", "delegate", "deny", "find", "grant", "issue"),
        *("lease", "look", "refuse", "renew", "revoke", "revoke_lease", "spend", "task", "tasks", "wait"),
        *(
            "burn",
            "present",
            "token_grant",
            "refuse_token",
            "token_keys",
            "nonces",
            "status_list",
            "published_trust",
        ),
        *("assertion", "named"),
        *("started", "failed", "logged"),
    }
)
EDGE = WorkerRole(
    "edge",
    _EVERY
    | {
        *("access_token", "admit", "credential", "described", "description", "handle_key", "resource", "target"),
        *("take_runs", "begin_run", "redeem_run", "run_ready", "end_run"),
    },
    (Holder, Workload),
    uses=True,
)
WEB = WorkerRole(
    "web",
    _EVERY
    | {
        *("open", "to_open", "ask_to_open", "step_up", "signal", "refuse_signal"),
        *("delegate_approved", "revoke_opened", "keep", "kept", "swap", "take"),
        *("certified", "proven", "server_certificate", "pending_events", "acknowledge_events", "event_keys"),
        *("mint", "open_with_token", "delegate_with_token", "refresh_token", "client_mac"),
        *("issue_refresh_token", "rotate_refresh_token"),
        *("begin_connection", "answer_connection", "confirm_connection", "connections", "end_connection"),
    },
    (Holder, Human, Workload),
    uses=False,
)

LOOKS = frozenset(
    {"admit", "grant", "check_acting", "deny", "target", "resource", "mint", "present", "token_keys", "nonces"}
    | {"description", "client_mac", "handle_key"}
)
WAITS = frozenset({"wait"})
NAMING = frozenset({"grant_id", "parent_id", "own"})  # arguments that name a grant
# what else they are named as is nobody's business; a holder has a grant, and may be named as whatever it has rights for
AS = {Human: frozenset({"opener", "by"}), Workload: frozenset({"opener", "actor", "workload"})}
OURS = frozenset({"posture"})  # arguments that only the authority itself gives
# whose answer tells a worker of a grant of its own
TELLING = frozenset(
    {
        *("redeem_run", "present", "token_grant", "open", "open_with_token", "delegate_approved"),
        *("refresh_token", "rotate_refresh_token"),
    }
)


def cost(method: str) -> Cost:
    """Return what a call counts as."""
    return Cost.LOOK if method in LOOKS else Cost.WAIT if method in WAITS else Cost.VERB


def check_method(role: WorkerRole, method: str) -> None:
    """Raise DeniedError unless a worker of a role may call a method: what else it sent is not even read."""
    if method not in role.methods:
        raise DeniedError(f"a worker of the role `{role.name}` may not call `{method}`")


def check(role: WorkerRole, arguments: Mapping[str, object], may_name: Callable[[str, str | None], bool]) -> None:
    """Raise unless a worker of a role may name all this: DeniedError; NotFoundError for a grant it may not name.

    ``may_name`` says whether it may name a grant, and whether that is one of a task, if one is said.
    """
    for name, value in arguments.items():
        if isinstance(value, Operator | Human | Workload | Holder):
            wrong = name not in AS.get(type(value), {name})
            if not isinstance(value, role.principals) or wrong or Right.OPERATE in value.rights:
                raise DeniedError(f"a worker of the role `{role.name}` does not speak for this principal")
            if isinstance(value, Holder) and not may_name(value.grant, value.task):
                raise NotFoundError
        elif name in OURS and value is not None:
            raise DeniedError(f"a worker does not say what the `{name}` of a grant is")
        elif name in NAMING and isinstance(value, str) and not may_name(value, None):
            raise NotFoundError


def told(answer: object) -> str | None:
    """Return the grant that a worker is told of by an answer."""
    if isinstance(answer, GrantView):
        return answer.id
    if isinstance(answer, Rotated):
        return answer.grant.id
    if isinstance(answer, Holder | RefreshFamily | Granted):
        return answer.grant
    return answer.holder.grant if isinstance(answer, RedeemedRun) else None


def task_named(arguments: Mapping[str, object], task_of: Callable[[str], str]) -> str:
    """Return the task that a call is for, as far as it says so, which it counts for; else an empty text."""
    for name, value in arguments.items():
        if isinstance(value, Holder):
            return value.task
        if name == "task_id" and isinstance(value, str):
            return value
        if name in NAMING and isinstance(value, str):
            return task_of(value)
    return ""
