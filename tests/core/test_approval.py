"""Approvals: one state machine, the exact request, one decision, one use; also a model under any sequence of steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.core import approval as approvals
from remit.core import scope
from remit.core.approval import SKEW, Approval, Verdict
from remit.core.grant import Subject
from remit.core.request import Binding, Bounds, GrantRequest
from remit.errors import (
    ApprovalError,
    ConflictError,
    InvalidRequestError,
    LapsedError,
    NotFoundError,
    PendingError,
    RemitError,
    StepUpError,
    UsedError,
)
from tests.grant_requests import changed

Decide = Callable[[Approval, str, Subject, datetime], Approval]
START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ANN = Subject("https://idp.test#ann", "urn:mfa", START + MINUTE)
BOB = Subject("https://idp.test#bob", "urn:mfa", START + MINUTE)
OWNER = Subject("unix://host#1000", "local-uid")
SEARCH = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any"}
WANTED = GrantRequest(
    scope.parse([SEARCH]), Bounds(timedelta(minutes=5), depth=1, fan_out=2), Binding(jkt="k" * 43), label="research"
)


def asked(wanted: GrantRequest = WANTED, **more: object) -> Approval:
    """Return an approval that Ann has to give."""
    item = Approval(
        id="apr_1",
        verb="grant.delegate",
        request=approvals.text_of(wanted, "grt_1"),
        asked_at=START,
        expires_at=START + 10 * MINUTE,
        approver=ANN.sub,
        asker="grt_1",
        acr=("urn:mfa", "urn:phr"),
        task="task_1",
        grant="grt_1",
    )
    return replace(item, **more)  # type: ignore[arg-type]  # fields of Approval


def approved(item: Approval | None = None, by: Subject = ANN) -> Approval:
    """Return it as approved after a minute."""
    item = item or asked()
    return approvals.approve(item, item.digest, by, START + MINUTE)


def test_what_names_a_human_shares_no_room_with_what_anybody_may_answer() -> None:
    opening = asked(verb="task.open", task=None, grant=None)
    rooms = [item.room for item in (asked(), opening, replace(opening, approver=None))]
    assert rooms == ["task", "named", "anybody"]


# -- the request ----------------------------------------------------------------------------------------------------


def test_what_was_asked_for_is_what_is_made() -> None:
    made = approvals.request_of(asked())
    assert made == WANTED
    attested = changed(
        WANTED, {"agent": "spiffe://prod.test/agent", "attested": True, "delegates": ("spiffe://a/*",), "ttl": None}
    )
    assert approvals.request_of(asked(attested)) == attested
    told = changed(attested, {"claims": (("environment", "production"), ("ref", "main"))})
    assert approvals.request_of(asked(told)) == told  # a policy goes by them


def test_what_an_earlier_version_asked_for_without_claims_is_read_as_without_any() -> None:
    raw = json.loads(approvals.text_of(WANTED))
    del raw["claims"]
    assert approvals.request_of(asked(request=json.dumps(raw))) == WANTED


def test_what_is_shown_has_every_member_that_says_something_and_no_other() -> None:
    shown = approvals.shown(asked().request)
    assert shown["authorization_details"] == [SEARCH]
    assert (shown["ttl"], shown["depth"], shown["fan_out"], shown["parent"]) == (300, 1, 2, "grt_1")
    assert shown["exercise"] is shown["unattested"] is True
    assert shown["jkt"] == "k" * 43
    assert None not in shown.values()
    assert "purpose" not in shown


@pytest.mark.parametrize(
    "more",
    [
        {"scope": scope.parse([{**SEARCH, "paths": ["/**"]}])},
        {"ttl": timedelta(minutes=6)},
        {"depth": 2},
        {"fan_out": 3},
        {"exercise": False},
        {"delegates": ()},
        {"unattested": False},
        {"agent": "spiffe://prod.test/agent", "attested": True},
        {"claims": (("environment", "production"),)},
        {"label": "else"},
        {"jkt": "j" * 43},
        {"jkt": None},
        {"x5t": "x" * 43},
    ],
    ids=lambda more: next(iter(more)),
)
def test_the_digest_covers_everything_that_is_asked_for(more: dict[str, object]) -> None:
    other = asked(changed(WANTED, more))
    assert other.digest != asked().digest
    with pytest.raises(ConflictError, match="not the request that was shown"):
        approvals.approve(other, asked().digest, ANN, START + MINUTE)


def test_the_digest_covers_the_id_the_verb_the_parent_and_the_purpose() -> None:
    digests = {
        asked().digest,
        asked(id="apr_2").digest,
        asked(verb="task.open").digest,
        asked(request=approvals.text_of(WANTED, "grt_2")).digest,
        asked(request=approvals.text_of(replace(WANTED, purpose="spam"))).digest,
    }
    assert len(digests) == 5


def test_a_part_of_a_second_is_a_second() -> None:
    rounded = approvals.request_of(asked(changed(WANTED, {"ttl": timedelta(milliseconds=1)})))
    assert rounded.bounds.ttl == timedelta(seconds=1)


def test_a_request_that_nobody_would_read_is_refused() -> None:
    many = scope.parse([{**SEARCH, "paths": [f"/v1/{'x' * 200}/{index}" for index in range(200)]}])
    with pytest.raises(InvalidRequestError, match="too large for a human"):
        approvals.text_of(replace(WANTED, scope=many))


def test_the_key_is_part_of_it_unless_a_task_was_asked_for_without_one() -> None:
    unkeyed, other = changed(WANTED, {"jkt": None}), changed(WANTED, {"jkt": "o" * 43})
    opening = approved(asked(unkeyed, verb="task.open", grant=None, task=None))
    assert approvals.consume(opening, other, "grt_2", START + 2 * MINUTE).result == "grt_2"
    for item in (approved(asked(verb="task.open", grant=None, task=None)), approved(asked(unkeyed))):
        with pytest.raises(ApprovalError, match="something else was approved"):
            approvals.consume(item, other, "grt_2", START + 2 * MINUTE)


# -- deciding -------------------------------------------------------------------------------------------------------


def test_the_named_human_approves_and_is_kept() -> None:
    done = approved()
    assert (done.verdict, done.by, done.decided_at, done.rev) == (Verdict.APPROVED, ANN, START + MINUTE, 2)
    assert approvals.ready(done, START + 2 * MINUTE) == ANN


@pytest.mark.parametrize("decide", [approvals.approve, approvals.deny])
def test_nobody_else_can_decide_or_learns_that_it_is_there(decide: Decide) -> None:
    for by in (BOB, OWNER, replace(ANN, sub=f"{ANN.sub}x"), replace(ANN, sub="ann")):
        with pytest.raises(NotFoundError):
            decide(asked(), asked().digest, by, START + MINUTE)


@pytest.mark.parametrize("decide", [approvals.approve, approvals.deny])
def test_who_decides_says_which_request_they_saw(decide: Decide) -> None:
    with pytest.raises(ConflictError, match="not the request that was shown"):
        decide(asked(), asked(id="apr_2").digest, ANN, START + MINUTE)


def test_one_of_the_demanded_acr_is_needed_to_approve_and_the_refusal_names_them() -> None:
    weak = replace(ANN, acr="pwd")
    with pytest.raises(StepUpError) as refused:
        approvals.approve(asked(), asked().digest, weak, START + MINUTE)
    assert "urn:mfa or urn:phr" in str(refused.value.help)
    assert approved(asked(acr=()), weak).by == weak
    assert approved(by=replace(ANN, acr="urn:phr")).verdict is Verdict.APPROVED


def test_refusing_needs_no_more_than_who_one_is() -> None:
    stale = replace(ANN, acr="pwd", auth_time=None)
    assert approvals.deny(asked(), asked().digest, stale, START + MINUTE).verdict is Verdict.DENIED


def test_a_login_from_before_the_request_does_not_decide_on_it() -> None:
    for auth_time in (None, START - SKEW - timedelta(microseconds=1)):
        with pytest.raises(StepUpError, match="log in again"):
            approved(by=replace(ANN, auth_time=auth_time))
    assert approved(by=replace(ANN, auth_time=START - SKEW)).verdict is Verdict.APPROVED


def test_the_owner_of_the_state_is_present_at_their_socket() -> None:
    assert approved(asked(approver=OWNER.sub, acr=()), OWNER).by == OWNER


def test_a_task_that_is_yet_to_be_opened_takes_whoever_decides_as_its_human() -> None:
    opening = asked(verb="task.open", approver=None, acr=(), grant=None, task=None)
    assert approved(opening, replace(BOB, auth_time=None)).by == replace(BOB, auth_time=None)


@pytest.mark.parametrize("decide", [approvals.approve, approvals.deny])
def test_it_is_decided_once(decide: Decide) -> None:
    once = approved()
    denied = approvals.deny(asked(), asked().digest, ANN, START + MINUTE)
    used = approvals.consume(once, approvals.request_of(once), "grt_2", START + MINUTE)
    for item in (once, denied, used):
        with pytest.raises(ConflictError, match="decided before"):
            decide(item, item.digest, ANN, START + 2 * MINUTE)


@pytest.mark.parametrize("decide", [approvals.approve, approvals.deny])
def test_at_the_instant_it_expires_it_is_too_late(decide: Decide) -> None:
    item = asked()
    with pytest.raises(LapsedError):
        decide(item, item.digest, ANN, item.expires_at)
    decide(item, item.digest, ANN, item.expires_at - timedelta(microseconds=1))


# -- using ----------------------------------------------------------------------------------------------------------


def test_it_is_used_up_for_exactly_what_was_approved() -> None:
    item = approved()
    wider = changed(WANTED, {"fan_out": 3})
    with pytest.raises(ApprovalError, match="something else was approved"):
        approvals.consume(item, wider, "grt_2", START + 2 * MINUTE)
    used = approvals.consume(item, approvals.request_of(item), "grt_2", START + 2 * MINUTE)
    assert (used.verdict, used.result, used.rev) == (Verdict.CONSUMED, "grt_2", 3)
    with pytest.raises(UsedError) as refusal:
        approvals.consume(used, approvals.request_of(item), "grt_3", START + 2 * MINUTE)
    assert "ask anew" in (refusal.value.help or "")


def test_each_state_has_an_error_of_its_own() -> None:
    item = asked()
    denied = approvals.deny(item, item.digest, ANN, START + MINUTE)
    with pytest.raises(PendingError):
        approvals.ready(item, START)
    with pytest.raises(ApprovalError, match="a human refused this"):
        approvals.ready(denied, START)
    with pytest.raises(LapsedError):
        approvals.ready(approved(), item.expires_at)
    with pytest.raises(LapsedError):
        approvals.ready(item, item.expires_at)
    with pytest.raises(PendingError):  # never without the human who gave it
        approvals.ready(replace(item, verdict=Verdict.APPROVED), START)


def test_the_state_that_is_shown_knows_the_time() -> None:
    item, done = asked(), approved()
    used = approvals.consume(done, approvals.request_of(done), "grt_2", START + MINUTE)
    denied = approvals.deny(item, item.digest, ANN, START + MINUTE)
    at = [START, item.expires_at]
    assert [approvals.state(item, now) for now in at] == ["pending", "lapsed"]
    assert [approvals.state(done, now) for now in at] == ["approved", "lapsed"]
    assert [approvals.state(used, now) for now in at] == ["consumed", "consumed"]
    assert [approvals.state(denied, now) for now in at] == ["denied", "denied"]


# -- any sequence ---------------------------------------------------------------------------------------------------

HUMANS = [ANN, BOB, replace(ANN, acr="pwd"), replace(ANN, auth_time=START - MINUTE)]
STEPS = st.tuples(
    st.sampled_from(["approve", "deny", "consume", "consume else"]),
    st.sampled_from(HUMANS),
    st.booleans(),  # whether the digest is the right one
    st.integers(min_value=0, max_value=400),  # seconds that pass before it
)


@settings(max_examples=400)
@given(st.lists(STEPS, max_size=12))
def test_under_any_sequence_it_is_decided_once_by_its_human_in_time_and_used_once(
    steps: list[tuple[str, Subject, bool, int]],
) -> None:
    """The model: what has happened is a list; what may happen next is read off it."""
    item, now = asked(), START + MINUTE
    done: list[str] = []
    for what, by, seen, seconds in steps:
        now += timedelta(seconds=seconds)
        in_time, ann = now < START + 10 * MINUTE, by.sub == ANN.sub
        digest = item.digest if seen else asked(id="apr_9").digest
        expected = {
            "approve": not done and in_time and by == ANN and seen,
            "deny": not done and in_time and ann and seen,
            "consume": done == ["approve"] and in_time,
            "consume else": False,
        }[what]
        before = item
        try:
            if what == "approve":
                item = approvals.approve(item, digest, by, now)
            elif what == "deny":
                item = approvals.deny(item, digest, by, now)
            else:
                request = approvals.request_of(item) if what == "consume" else replace(WANTED, label="another")
                item = approvals.consume(item, request, "grt_2", now)
            done.append(what)
            assert expected, (what, done)
            assert item.rev == before.rev + 1
        except RemitError:
            assert not expected, (what, done)
            assert item == before
    assert done in [[], ["approve"], ["deny"], ["approve", "consume"]]
    assert (item.id, item.request, item.approver, item.expires_at) == (
        "apr_1",
        asked().request,
        ANN.sub,
        asked().expires_at,
    )


# -- what answers another request, too ------------------------------------------------------------------------------


def test_the_purpose_of_a_request_to_open_is_told() -> None:
    opening = replace(WANTED, purpose="draft the summary")
    assert approvals.read(approvals.text_of(opening)) == opening
    assert approvals.read(approvals.text_of(WANTED, "grt_1")).purpose == ""


NARROW = {**SEARCH, "paths": ["/v1/search"]}


@pytest.mark.parametrize(
    ("more", "holds"),
    [
        ({"label": "other", "jkt": "j" * 43, "ttl": timedelta(minutes=1)}, True),
        ({"scope": scope.parse([SEARCH, {**SEARCH, "resource": "mail"}])}, True),
        ({"depth": 3}, True),
        ({"scope": scope.parse([NARROW])}, False),
        ({"depth": 0}, False),
        ({"fan_out": 1}, False),
        ({"exercise": False}, False),
    ],
)
def test_a_request_asks_no_less_whatever_its_names_keys_and_time(more: dict[str, object], holds: bool) -> None:  # noqa: FBT001 - a parameter
    again = asked(changed(WANTED, more))
    assert approvals.asks_no_less(again, asked()) is holds


def test_the_login_that_decides_on_a_request_is_made_for_it_and_its_own_state_alone() -> None:
    item = asked()
    nonce = approvals.login_nonce(item, "state")
    assert nonce == approvals.login_nonce(asked(), "state")
    others = [approvals.login_nonce(item, "other"), approvals.login_nonce(asked(id="apr_2"), "state")]
    others += [approvals.login_nonce(asked(salt="salt"), "state"), item.digest]
    assert nonce not in others
    assert item.digest not in nonce
