from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from remit.core.principal import Workload
from remit.errors import AudienceError, RemitError, TokenError, UnauthenticatedError, UnavailableError
from remit.identity.issuers import KEEP
from remit.identity.workloads.attested import MAX_AGE, OidcWorkloads, WorkloadRule
from remit.jose.jwt import SKEW
from tests.identity.issuing import URL, Clock, Site, ec, issuer, rsa, signed, unsigned

BROKER = "https://remit.test"
CLOCK = Clock()

# As the platforms write them.
KUBERNETES: Mapping[str, Any] = {
    "aud": [BROKER],
    "exp": CLOCK.at(hours=1),
    "iat": CLOCK.at(),
    "nbf": CLOCK.at(),
    "iss": URL,
    "jti": "9f1c",
    "kubernetes.io": {
        "namespace": "shop",
        "node": {"name": "n-1", "uid": "u-1"},
        "pod": {"name": "reports-7c", "uid": "u-2"},
        "serviceaccount": {"name": "reports", "uid": "u-3"},
    },
    "sub": "system:serviceaccount:shop:reports",
}
GITHUB: Mapping[str, Any] = {
    "jti": "e1",
    "sub": "repo:acme/shop:ref:refs/heads/main",
    "aud": BROKER,
    "ref": "refs/heads/main",
    "repository": "acme/shop",
    "repository_owner": "acme",
    "repository_id": "70107786",
    "job_workflow_ref": "acme/shop/.github/workflows/report.yml@refs/heads/main",
    "event_name": "push",
    "runner_environment": "github-hosted",
    "iss": URL,
    "nbf": CLOCK.at(minutes=-5),
    "iat": CLOCK.at(),
    "exp": CLOCK.at(minutes=5),
}
GCP: Mapping[str, Any] = {
    "aud": BROKER,
    "azp": "113774264463038321964",
    "email": "reports@acme.iam.gserviceaccount.com",
    "email_verified": True,
    "exp": CLOCK.at(hours=1),
    "google": {"compute_engine": {"project_id": "acme", "project_number": 739419398126, "zone": "europe-west1-b"}},
    "iat": CLOCK.at(),
    "iss": URL,
    "sub": "113774264463038321964",
}
RULES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "kubernetes": {"/kubernetes.io/namespace": ("shop",), "/kubernetes.io/serviceaccount/name": ("reports", "mail")},
    "github": {"repository_id": ("70107786",), "ref": ("refs/heads/main",), "event_name": ("push", "schedule")},
    "gcp": {"email": ("reports@acme.iam.gserviceaccount.com",), "email_verified": ("true",)},
}
TOKENS = {"kubernetes": KUBERNETES, "github": GITHUB, "gcp": GCP}


def platforms(name: str = "github", claims: tuple[str, ...] = (), site: Site | None = None) -> OidcWorkloads:
    clock = Clock()
    return OidcWorkloads((WorkloadRule(issuer(site, clock), BROKER, RULES[name], claims),), clock)


def let_in(made: OidcWorkloads, told: Mapping[str, Any], **header: Any) -> Workload:
    return asyncio.run(made.assertion(signed(told, rsa(), "RS256", **header)))


@pytest.mark.parametrize("name", list(TOKENS))
def test_a_workload_of_a_platform_is_let_in_by_its_claims(name: str) -> None:
    told = TOKENS[name]
    workload = let_in(platforms(name), told)
    assert (workload.id, workload.method) == (f"{URL}#{told['sub']}", "oidc")
    assert workload.expires_at.timestamp() == told["exp"] + SKEW.total_seconds()
    assert (workload.jkt, workload.x5t, workload.digest) == (None, None, None)


@pytest.mark.parametrize("typ", [None, "JWT"])
def test_a_platform_may_leave_out_what_its_token_is(typ: str | None) -> None:
    assert let_in(platforms(), GITHUB, typ=typ).method == "oidc"


@pytest.mark.parametrize(
    ("name", "over"),
    [
        ("kubernetes", {"kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "reports2"}}}),
        ("kubernetes", {"kubernetes.io": {"namespace": "shop-2", "serviceaccount": {"name": "reports"}}}),
        ("kubernetes", {"kubernetes.io": {"serviceaccount": {"name": "reports"}}}),
        ("kubernetes", {"kubernetes.io": "shop"}),
        ("kubernetes", {"kubernetes.io": {"namespace": ["shop"], "serviceaccount": {"name": "reports"}}}),
        ("kubernetes", {"kubernetes.io": ..., "/kubernetes.io/namespace": "shop"}),
        ("github", {"repository_id": "701077860"}),
        ("github", {"repository_id": "7010778"}),
        ("github", {"repository_id": ...}),
        ("github", {"repository_id": ["70107786"]}),
        ("github", {"repository_id": None}),
        ("github", {"ref": "refs/heads/main2"}),
        ("github", {"ref": "refs/heads/Main"}),
        ("github", {"ref": "refs/heads/main "}),
        ("github", {"ref": "refs/pull/7/merge"}),
        ("github", {"event_name": "pull_request_target"}),
        ("github", {"event_name": ""}),
        ("gcp", {"email": "reports@acme.iam.gserviceaccount.com.evil.test"}),
        ("gcp", {"email": "REPORTS@acme.iam.gserviceaccount.com"}),
        ("gcp", {"email_verified": False}),
        ("gcp", {"email_verified": 1}),
    ],
)
def test_a_workload_whose_claims_are_nearly_right_is_nobody(name: str, over: dict[str, Any]) -> None:
    told = {claim: value for claim, value in {**TOKENS[name], **over}.items() if value is not ...}
    with pytest.raises(UnauthenticatedError, match="no rule lets"):
        let_in(platforms(name), told)


@pytest.mark.parametrize(
    ("over", "error", "says"),
    [
        ({"iss": "https://token.actions.githubusercontent.com.evil.test"}, TokenError, "trusted"),
        ({"iss": f"{URL}/"}, TokenError, "trusted"),
        ({"aud": "https://other.test"}, AudienceError, "meant"),
        ({"aud": [BROKER, "https://other.test"]}, AudienceError, "meant"),
        ({"aud": f"{BROKER}/"}, AudienceError, "meant"),
        ({"exp": CLOCK.at(seconds=-60)}, TokenError, "expired"),
        ({"nbf": CLOCK.at(seconds=61)}, TokenError, "yet"),
        ({"iat": CLOCK.at(seconds=61)}, TokenError, "yet"),
        ({"exp": "soon"}, TokenError, "`exp`"),
        ({"sub": ""}, TokenError, "`sub`"),
        ({"nonce": "n"}, TokenError, "not a workload's"),
        ({"events": {}}, TokenError, "not a workload's"),
    ],
)
def test_a_token_with_one_thing_wrong_lets_nobody_in(over: dict[str, Any], error: type[RemitError], says: str) -> None:
    with pytest.raises(error, match=says):
        let_in(platforms(), {**GITHUB, **over})


@pytest.mark.parametrize("typ", ["at+jwt", "wit+jwt", "oauth-id-jag+jwt", "secevent+jwt"])
def test_a_token_of_another_kind_lets_nobody_in(typ: str) -> None:
    with pytest.raises(TokenError, match="type"):
        let_in(platforms(), GITHUB, typ=typ)


def test_a_token_that_its_issuer_did_not_sign_lets_nobody_in() -> None:
    made = platforms()
    for token in (signed(GITHUB, ec("e-9"), kid="e-1"), unsigned(GITHUB, {"alg": "none"}, "AA")):
        with pytest.raises(TokenError):
            asyncio.run(made.assertion(token))


def test_the_first_rule_that_matches_says_what_policies_are_told() -> None:
    clock = Clock()
    one = issuer(clock=clock)
    first = WorkloadRule(one, BROKER, {"ref": ("refs/heads/other",)}, ("ref",))
    second = WorkloadRule(one, BROKER, {"ref": ("refs/heads/main",)}, ("repository", "missing", "/google/a"))
    third = WorkloadRule(one, BROKER, {"ref": ("refs/heads/main",)}, ("sub",))
    assert let_in(OidcWorkloads((first, second, third), clock), GITHUB).claims == {"repository": "acme/shop"}


def test_claims_for_policies_are_text() -> None:
    picked = ("/google/compute_engine/project_number", "email_verified", "google", "aud")
    told = let_in(platforms("gcp", picked), GCP).claims
    assert told == {"/google/compute_engine/project_number": "739419398126", "email_verified": "true", "aud": BROKER}


def test_a_rule_is_for_its_own_audience() -> None:
    clock = Clock()
    one = issuer(clock=clock)
    rules = (
        WorkloadRule(one, "a", {"ref": ("refs/heads/main",)}, ("ref",)),
        WorkloadRule(one, "b", {"ref": ("refs/heads/dev",)}, ("sub",)),
    )
    made = OidcWorkloads(rules, clock)
    assert let_in(made, {**GITHUB, "aud": "a"}).claims == {"ref": "refs/heads/main"}
    with pytest.raises(UnauthenticatedError, match="no rule lets"):
        let_in(made, {**GITHUB, "aud": "b"})


def test_a_token_counts_for_a_day_at_most() -> None:
    assert let_in(platforms(), {**GITHUB, "exp": CLOCK.at(days=365)}).expires_at == CLOCK.now + MAX_AGE + SKEW
    with pytest.raises(TokenError, match="expired"):
        let_in(platforms(), {**GITHUB, "iat": CLOCK.at(hours=-25), "nbf": 0, "exp": CLOCK.at(days=365)})


def test_a_platform_that_cannot_be_asked_lets_nobody_in_after_a_while() -> None:
    site, clock = Site(), Clock()
    made = OidcWorkloads((WorkloadRule(issuer(site, clock), BROKER, RULES["github"]),), clock)
    told = {**GITHUB, "exp": CLOCK.at(hours=3)}
    let_in(made, told)
    site.down = True
    clock.now += KEEP - timedelta(seconds=1)
    let_in(made, told)
    clock.on(seconds=1)
    with pytest.raises(UnavailableError):
        let_in(made, told)
