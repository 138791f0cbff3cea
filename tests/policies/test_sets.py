"""Sets of policies: good as a whole or refused with all that is wrong; default deny; doubt denies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.core.grant import Subject
from remit.policies import sets
from tests.policies.questions import ALL, SEARCH, TABLE, policies, question, when

OVERFLOW = "context.ttl + 9223372036854775807 > 0"


def problems(*texts: str) -> list[str]:
    found, wrong = sets.read({f"{number}.cedar": text for number, text in enumerate(texts, 1)})
    assert (found is None) == bool(wrong)
    return [str(item) for item in wrong]


# -- deciding ---------------------------------------------------------------------------------------------------------


def test_nothing_is_allowed_that_no_policy_permits() -> None:
    decision = policies(when('resource.name == "other"'))(question())
    assert (decision.allowed, decision.reasons) == (False, ("no policy permits to open `warehouse`",))
    assert [detail.resource for detail in decision.offending] == ["warehouse"]


def test_a_set_of_forbids_alone_allows_nothing() -> None:
    assert not policies(when('resource.name == "other"', "forbid"))(question()).allowed


def test_a_permit_allows_and_says_which_and_by_which_version() -> None:
    found = policies(ALL)
    decision = found(question())
    assert (decision.allowed, decision.reasons, decision.offending) == (True, ("`all` permits `warehouse`",), ())
    assert decision.version == found.version


def test_a_forbid_wins_over_any_number_of_permits() -> None:
    more = [when("true", name=f"also-{number}") for number in range(3)]
    decision = policies(ALL, *more, when('context.purpose == "report"', "forbid", "no"))(question())
    assert (decision.allowed, decision.reasons) == (False, ("`no` forbids `warehouse`",))


def test_every_detail_must_be_allowed_and_those_that_are_not_are_named() -> None:
    decision = policies(when('resource.name == "search"'))(question(SEARCH, TABLE))
    assert not decision.allowed
    assert decision.reasons == ("no policy permits to open `warehouse`",)
    assert [detail.resource for detail in decision.offending] == ["warehouse"]


@pytest.mark.parametrize("effect", ["permit", "forbid"])
def test_a_policy_that_cannot_be_evaluated_denies_whatever_the_others_say(effect: str) -> None:
    found = policies(ALL, when(OVERFLOW, effect, "boom"))
    decision = found(question())
    assert not decision.allowed
    [reason] = decision.reasons
    assert reason.startswith("`boom` could not be evaluated: integer overflow while attempting to add the values ")
    assert decision.offending == ()


def test_a_policy_that_fails_on_one_detail_denies_them_all() -> None:
    assert not policies(ALL, when(f'resource.name == "search" && {OVERFLOW}', name="boom"))(
        question(SEARCH, TABLE)
    ).allowed


def test_what_could_not_be_evaluated_is_counted_with_the_last_reason() -> None:
    found = policies(ALL, when(f'context.purpose == "x" && {OVERFLOW}', "forbid", "boom"))
    assert found(question()).allowed
    assert found.failing == {}
    for _ in range(3):
        assert not found(question(purpose="x")).allowed
    assert found.failing.keys() == {"boom"}
    assert found.failing["boom"].times == 3
    assert found.failing["boom"].why.startswith("integer overflow")


@pytest.mark.parametrize(
    "more",
    [{"purpose": "\ud800"}, {"subject": Subject("a#\ud800", "")}, {"claims": {"a": "\ud800"}}],
    ids=["purpose", "subject", "claims"],
)
def test_a_question_that_is_no_text_is_not_decided_and_so_denied(more: dict[str, object]) -> None:
    decision = policies(ALL)(question(**more))
    assert not decision.allowed
    assert decision.reasons[0].startswith("`the question` could not be evaluated: ")


@given(st.text(max_size=40))
def test_no_purpose_changes_what_is_asked(purpose: str) -> None:
    found = policies(when('context.purpose == "report" && context.agent == ""'))
    assert found(question(purpose=purpose)).allowed == (purpose == "report")


def test_each_verb_can_be_told_from_the_others() -> None:
    found = policies('@id("open")\npermit (principal, action == Action::"open", resource);')
    allowed = [verb for verb in ("open", "delegate", "issue", "renew") if found(question(verb=verb)).allowed]
    assert allowed == ["open"]


def test_a_verb_that_does_not_exist_is_denied() -> None:
    assert not policies(ALL)(question(verb="use")).allowed


# -- versions ---------------------------------------------------------------------------------------------------------


def test_a_version_is_the_same_for_the_same_files_and_another_for_any_other() -> None:
    first = sets.version_of({"a.cedar": "x", "b.cedar": "y"})
    assert first == sets.version_of({"b.cedar": "y", "a.cedar": "x"})
    others = [
        {"a.cedar": "x"},
        {"a.cedar": "y", "b.cedar": "x"},
        {"a.cedar": "x ", "b.cedar": "y"},
        {"a.cedarx": "", "b.cedar": "y"},
    ]
    assert len({first, *map(sets.version_of, others)}) == 5
    assert first.startswith("cedar-")
    assert len(first) == len("cedar-") + 16


def test_a_set_keeps_what_it_was_read_from() -> None:
    found = policies(ALL)
    assert found.texts == {"1.cedar": ALL}
    assert sets.version_of(found.texts) == found.version
    assert [(p.id, p.effect, p.file, p.line) for p in found.policies] == [("all", "permit", "1.cedar", 1)]


# -- reading ----------------------------------------------------------------------------------------------------------


def test_no_policy_at_all_is_a_problem() -> None:
    assert problems() == problems("// nothing") == ["there is no policy here; to deny everything, write a forbid"]


def test_one_bad_policy_refuses_the_whole_set_and_every_problem_is_named_with_its_place() -> None:
    assert problems(
        ALL, f"\n{when('context.nonsense == 1')}{when('context.level ==', name='half')}", "permit (principal)"
    ) == [
        "2.cedar:4: attribute `nonsense` in context not found",
        "2.cedar:7: unexpected token `}`",
        "3.cedar:1: the policy has no end: a `;` is missing, or a string is not closed",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("permit (principal, action, resource);", "the policy needs a name: @id("),
        ('@id("") permit (principal, action, resource);', "the policy needs a name: @id("),
        ('@id("no spaces") permit (principal, action, resource);', "the policy needs a name: @id("),
        (f'@id("{"x" * 65}") permit (principal, action, resource);', "the policy needs a name: @id("),
        ('@id("a") permit (principal == ?principal, action, resource);', "this is not one policy: templates"),
        ('@id("a") permit (principal, action == Action::"use", resource);', "action"),
        ('@id("a") permit (principal in Grop::"x", action, resource);', "Grop"),
        (when('context.level == "3"'), "the types Long and String are not compatible"),
        (when('context.detail.tables.contains("a")'), "unable to guarantee safety of access to optional attribute"),
        (when("principal.auth_time > 3"), "unable to guarantee safety of access to optional attribute `auth_time`"),
        (when('context.claims.getTag("x") == "y"'), "unable to guarantee safety of access to tag"),
        (when("context.posture.isolation"), "type"),
        (when('context.posture.sandbox == "x"'), "attribute `posture.sandbox`"),
        ("syntax error;", "unexpected"),
        (";", "unexpected"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    found = problems(text)
    assert any(said in item for item in found), found
    assert all(item.startswith("1.cedar:") for item in found)


def test_a_name_is_given_once_in_all_files() -> None:
    assert problems(ALL, ALL) == ["2.cedar:1: the name `all` is taken by 1.cedar:1"]


def test_the_same_said_of_each_action_is_said_once() -> None:
    assert len(problems(when("context.nonsense == 1"))) == 1


def test_files_are_taken_in_the_order_of_their_names() -> None:
    found, _ = sets.read({"b.cedar": when("true", name="b"), "a.cedar": when("true", name="a")})
    assert found is not None
    assert [item.id for item in found.policies] == ["a", "b"]


@given(st.text(alphabet='@id("a") permit forbid(principal,action,resource)when{context.level==1};\n//', max_size=80))
def test_reading_anything_ends_with_a_set_or_with_problems(text: str) -> None:
    found, wrong = sets.read({"a.cedar": text})
    assert (found is None) == bool(wrong)
