"""Cases: questions in TOML with what is expected of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from remit.core.grant import Posture, Subject
from remit.core.policy import Question
from remit.core.request import Binding, Bounds
from remit.core.scope import parse
from remit.errors import InvalidRequestError
from remit.policies import cases
from tests.policies.questions import ALL, IDP, TABLE, policies, when

LEAST = f"""
[[case]]
subject = {{ sub = "{IDP}#ada" }}
details = [{{ type = "postgres", resource = "warehouse", actions = ["select"], tables = ["sales.revenue"] }}]
"""
HTTP = 'details = [{ type = "http", resource = "a", actions = ["GET"], paths = ["/"] }]'


def one(more: str = "") -> cases.Case:
    [found] = cases.read(LEAST + more)
    return found


def refused(text: str) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        cases.read(text)
    return caught.value


def test_the_least_that_can_be_asked_is_who_and_what() -> None:
    detail = {"type": "postgres", "resource": "warehouse", "actions": ["select"], "tables": ["sales.revenue"]}
    found = one()
    assert found == cases.Case("case 1", Question(Subject(f"{IDP}#ada", ""), "", parse([detail]), {}))
    assert found.question.posture == Posture()


def test_everything_that_is_asked_can_be_written_down() -> None:
    [found] = cases.read(
        f"""
        [[case]]
        name = "planner"
        expect = "deny"
        reasons = ["a", "b"]
        verb = "delegate"
        purpose = "report"
        subject = {{ sub = "{IDP}#ada", acr = "mfa", amr = ["otp"], groups = ["analysts"], auth_time = 1767225600 }}
        agent = "spiffe://prod.example/planner"
        attested = true
        claims = {{ env = "prod" }}
        level = 1
        depth = 2
        fan_out = 3
        exercise = false
        unattested = false
        ttl = 60
        posture = {{ isolation = "namespace", custody = "channel", at_rest = "kek-file" }}
        approval = true
        [[case.details]]
        type = "postgres"
        resource = "warehouse"
        actions = ["select"]
        tables = ["sales.revenue"]
        columns = {{ "sales.revenue" = ["amount", "quarter"] }}
        ttl = 600
        """
    )
    assert (found.name, found.allowed, found.reasons) == ("planner", False, ("a", "b"))
    assert found.question == Question(
        subject=Subject(f"{IDP}#ada", "mfa", datetime(2026, 1, 1, tzinfo=UTC), ("otp",), ("analysts",)),
        purpose="report",
        scope=parse([TABLE]),
        verb="delegate",
        agent="spiffe://prod.example/planner",
        binding=Binding(identity="spiffe://prod.example/planner", claims=(("env", "prod"),)),
        bounds=Bounds(timedelta(seconds=60), depth=2, fan_out=3, exercise=False, unattested=False),
        level=1,
        posture=Posture("namespace", "channel", "kek-file"),
        approval="asked",
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("nonsense = 1", "`nonsense` is not known here"),
        ('level = "1"', "`level` has the wrong type"),
        ("level = true", "`level` has the wrong type"),
        ("attested = 1", "`attested` has the wrong type"),
        ('expect = "yes"', "`expect` must be one of allow, deny"),
        ("expect = true", "`expect` has the wrong type"),
        ('verb = "use"', "`verb` must be one of open, delegate, issue, renew"),
        ("reasons = [1]", "`reasons` must be text"),
        ("claims = { a = 1 }", "`claims` must be text"),
        ("posture = { sandbox = true }", "`sandbox` is not known here"),
        ('posture = { isolation = "strong" }', "`isolation` must be one of namespace, host-net, unsandboxed, none"),
        ("ttl = 0", "`ttl` must be from 1 to 2592000"),
        ("ttl = 2_592_001", "`ttl` must be from 1 to 2592000"),
        ("level = -1", "`level` must be from 0 to 64"),
        ("depth = 65", "`depth` must be from 0 to 64"),
    ],
)
def test_what_is_wrong_is_said_with_the_name_of_the_case(more: str, said: str) -> None:
    error = refused(f'{LEAST}name = "mine"\n{more}')
    assert error.detail.startswith(f"`mine`: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[case]", "this is not TOML: "),
        ("", "cases are written as `[[case]]` tables, and nothing else is in the file"),
        ("[case]\n", "cases are written as"),
        ("case = 1", "cases are written as"),
        ("case = [1]", "cases are written as"),
        (f"{LEAST}[other]\n", "cases are written as"),
        ("[[case]]\n", "`case 1`: `details` and `subject.sub` are needed"),
        ('[[case]]\ndetails = []\nsubject = { sub = "a" }', "`case 1`: "),
        ("[[case]]\ndetails = []\nsubject = {}", "`case 1`: `details` and `subject.sub` are needed"),
        (f"{LEAST}[[case]]\nname = 1", "`1`: `name` has the wrong type"),
        (f'[[case]]\n{HTTP}\nsubject = {{ sub = "a", groups = [1] }}', "`case 1`: `groups` must be text"),
        (f'[[case]]\n{HTTP}\nsubject = {{ sub = "a", auth_time = 999999999999 }}', "`case 1`: `auth_time` must be"),
        ('[[case]]\nsubject = { sub = "a" }\ndetails = [{ type = "nonsense", resource = "a" }]', "`case 1`: "),
    ],
)  # fmt: skip
def test_what_is_no_file_of_cases_is_refused(text: str, said: str) -> None:
    assert refused(text).detail.startswith(said)


@pytest.mark.parametrize(
    ("expected", "passes"),
    [
        ("", True),
        ('expect = "allow"', True),
        ('expect = "deny"', False),
        ('expect = "allow"\nreasons = ["all"]', True),
        ('expect = "allow"\nreasons = ["other"]', False),
        ('expect = "allow"\nreasons = ["all", "other"]', False),
        ("reasons = []", False),
    ],
)
def test_a_case_passes_if_it_comes_out_as_it_says(expected: str, passes: bool) -> None:  # noqa: FBT001 - a parameter
    result = cases.tried(policies(ALL), one(expected))
    assert (result.passed, result.by) == (passes, ("all",))


def test_what_denied_is_named_and_what_would_have_allowed_is_not() -> None:
    result = cases.tried(policies(ALL, when("true", "forbid", "no")), one('expect = "deny"\nreasons = ["no"]'))
    assert result.passed
    assert result.by == ("no",)


def test_a_policy_that_could_not_be_evaluated_is_what_denied() -> None:
    boom = when("context.ttl + 9223372036854775807 > 0", name="boom")
    result = cases.tried(policies(ALL, boom), one('expect = "deny"\nreasons = ["boom"]'))
    assert result.passed
    assert "could not be evaluated" in result.decision.reasons[0]


def test_nothing_at_all_denied_where_no_policy_permits() -> None:
    result = cases.tried(policies(when("context.attested")), one('expect = "deny"\nreasons = []'))
    assert result.passed
