"""Humans and workloads of a real issuer (npm's oidc-provider), through the token endpoint to a real database."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from psycopg import sql

from remit.compose import identities
from remit.compose.identities import TrustedIssuers
from remit.compose.wiring import steady
from remit.config import settings
from remit.core import scope
from remit.core.principal import Human
from remit.errors import GrantTokenError, StepUpError
from remit.identity import issuers
from remit.identity.fetch import HttpFetch
from remit.ports.identity import Login
from tests.live import idp
from tests.live.deployment import Deployment, Work, deployed
from tests.live.fleet import EXCHANGE, ID_TOKEN, SEARCH, Key, claims_of

pytestmark = pytest.mark.live

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
AGENT = "system:serviceaccount:shop:reports"
POLICY = """
@id("analysts-read")
permit (principal, action, resource)
when { principal in Group::"{issuer}#analysts" };

@id("reports-works-for-itself")
permit (principal is Workload, action, resource == Resource::"search")
when { context.attested && context.claims.hasTag("/kubernetes.io/namespace") };
"""

Answer = dict[str, Any]


ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/how-to/act-on-behalf-of-a-user.md").read_text("utf-8")
GUARDS = (ROOT / "examples/policies/guards.cedar").read_text("utf-8")


def on_behalf() -> str:
    """Return the guide's policy with the issuer of these tests in place of its two, and the guards of the examples."""
    policy: str
    (policy,) = re.findall(r"```\n(@id.*?)```", GUIDE, re.DOTALL)
    for issuer in ("https://login.example.com", "https://kubernetes.default.svc.cluster.local"):
        assert issuer in policy
        policy = policy.replace(issuer, "{issuer}")
    return policy + GUARDS


def shown_lease() -> Answer:
    """Return the detail of the lease that the guide asks for."""
    (body,) = re.findall(r'^\{"grant": "<grant>",.*?\}\}$', GUIDE, re.DOTALL | re.MULTILINE)
    detail: Answer = json.loads(body)["detail"]
    return detail


def parts(directory: Path, policy: str) -> Callable[[str], Mapping[str, object]]:
    """Return what these tests configure: humans, and three platforms whose tokens the one issuer signs."""
    policies = directory / "ours"
    policies.mkdir(mode=0o700)

    def of(issuer: str) -> Mapping[str, object]:
        (policies / "ours.cedar").write_text(policy.replace("{issuer}", issuer))
        human = {"issuer": issuer, "client_id": "remit", "groups_claim": "groups", "acr": idp.TWO_FACTORS}
        rules = [
            {
                "audience": "remit-pods",
                "match": {"/kubernetes.io/namespace": "shop", "/kubernetes.io/serviceaccount/name": ["reports"]},
                "claims": ["/kubernetes.io/namespace"],
            },
            {"audience": "remit-ci", "match": {"repository_id": "70107786", "ref": "refs/heads/main"}},
            {"audience": "remit-vms", "match": {"email": "reports@acme.iam.gserviceaccount.com"}},
        ]
        workloads = [{"issuer": issuer, **rule} for rule in rules]
        return {"humans": [{**human, "id_jag": True}], "workloads": workloads, "policy": {"directory": str(policies)}}

    return of


def play(directory: Path, scene: Callable[[Deployment], Awaitable[None]], policy: str = POLICY) -> None:
    """Run a scene."""

    async def main() -> None:
        async with deployed(directory, parts=parts(directory, policy)) as found:
            await scene(found)

    asyncio.run(main())


def opening(found: Deployment, *details: object, **form: str) -> dict[str, str]:
    """Return what a request that opens a task says."""
    asked = list(details) or [SEARCH, *scope.dump((found.store.detail(),))]
    told = {"purpose": "draft the CFO summary", "ttl": "600", "authorization_details": json.dumps(asked)}
    return {**told, **form}


async def ask(found: Deployment, key: Key, **form: str) -> httpx.Response:
    """Post to the token endpoint with a proof of a key."""
    proof = key.proof("POST", f"{found.issuer}/oauth/token", found.edges.authority.verifier.nonce())
    return await found.web.post("/oauth/token", data=form, headers={"dpop": proof})


def by_id_token(token: str) -> dict[str, str]:
    """Return the fields of an exchange of an ID token."""
    return {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ID_TOKEN}


def pod(found: Deployment, **claims: object) -> str:
    """Return a projected service account token, as Kubernetes writes it."""
    account = {"namespace": "shop", "pod": {"name": "reports-7c"}, "serviceaccount": {"name": "reports"}}
    return platform(found, "remit-pods", **{"sub": AGENT, "kubernetes.io": account, **claims})


def platform(found: Deployment, audience: str, **claims: object) -> str:
    """Return a platform's token, by the issuer's current key."""
    now = int(time.time())
    told = {"iss": found.provider.issuer, "aud": [audience], "iat": now, "nbf": now, "exp": now + 600}
    return found.provider.sign({**told, "jti": secrets.token_urlsafe(8), **claims}, typ="JWT")


def asserted(token: str) -> dict[str, str]:
    """Return the fields of a client that authenticates by a platform's token."""
    return {"client_assertion_type": ASSERTION, "client_assertion": token}


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    """Return status, error and reason of a refusal."""
    told = answer.json()
    return answer.status_code, told["error"], told["error_description"]


# -- ID tokens --------------------------------------------------------------------------------------------------------


def test_an_id_token_opens_one_task_and_what_it_says_of_its_human_stays_at_the_root(tmp_path: Path) -> None:
    async def scene(found: Deployment) -> None:
        human = await found.tokens("alice")
        said = claims_of(human["id_token"])
        answer = await ask(found, Key(), **opening(found), **by_id_token(human["id_token"]))
        assert answer.status_code == 200, answer.text
        token = claims_of(answer.json()["access_token"])
        assert token["sub"] == f"{found.provider.issuer}#alice"
        assert (token["acr"], token["amr"], token["auth_time"]) == (idp.PASSWORD, ["pwd"], said["auth_time"])
        again = await ask(found, Key(), **opening(found), **by_id_token(human["id_token"]))
        assert (again.status_code, again.json()["error"]) == (400, "invalid_request")
        opened, refused = [one for one in await found.entries() if one["event"] == "task.open"]
        assert (opened["subject"], opened["decision"]) == (token["sub"], "allow")
        assert opened["cause"] == "`analysts-read` permits `search`; `analysts-read` permits `warehouse`"
        assert (refused["subject"], refused["decision"], refused["code"]) == (token["sub"], "deny", "used")
        shown = (await found.control.get(f"/v1/tasks/{opened['task']}")).json()
        assert shown["subject"] == {"sub": token["sub"], "acr": idp.PASSWORD}

    play(tmp_path, scene)


def test_a_human_outside_the_group_opens_nothing(tmp_path: Path) -> None:
    async def scene(found: Deployment) -> None:
        carol = await found.tokens("carol")  # an account that is in no group
        answer = await ask(found, Key(), **opening(found), **by_id_token(carol["id_token"]))
        assert refusal(answer)[:2] == (400, "access_denied")

    play(tmp_path, scene)


# -- logins in a browser, as a confidential client --------------------------------------------------------------------

BACK = "http://127.0.0.1/oauth/callback"
SECRET = "a secret of any characters: 100% + ~ / = & long enough"


def known(directory: Path, issuer: str) -> TrustedIssuers:
    """Return what a broker knows that has a secret at the issuer."""
    path = directory / "secret"
    path.touch(0o600)
    path.write_text(SECRET + "\n")
    row = {"issuer": issuer, "client_id": "remit-web", "client_secret_file": str(path), "scopes": idp.SCOPE.split()}
    found = settings.read(settings.places({"REMIT_STATE_DIR": str(directory)}), {"humans": [row]})
    return identities.trusted(found, steady(), HttpFetch())


def test_a_browser_logs_a_human_in_and_a_step_up_is_what_the_issuer_made_of_it(tmp_path: Path) -> None:
    registered = [{**one, "client_secret": SECRET} for one in idp.clients() if one["client_id"] == "remit-web"]
    with idp.served(registered) as provider:
        logins = known(tmp_path, provider.issuer).logins
        assert logins is not None

        async def login(acr: tuple[str, ...], by: str) -> Human:
            begun = Login(BACK, secrets.token_urlsafe(), secrets.token_urlsafe(), provider.issuer, acr)
            back = await asyncio.to_thread(provider.login, await logins.begin(begun), "alice", by)
            with pytest.raises(GrantTokenError):  # somebody else's answer
                await logins.finish(urlsplit(back).query, BACK, replace(begun, state=begun.state + "x"))
            return await logins.finish(urlsplit(back).query, BACK, begun)

        human = asyncio.run(login((), idp.PASSWORD))
        assert (human.subject.sub, human.client) == (f"{provider.issuer}#alice", "remit-web")
        assert human.subject.sid is not None
        stronger = asyncio.run(login((idp.TWO_FACTORS,), idp.TWO_FACTORS))
        assert (stronger.subject.acr, stronger.subject.amr) == (idp.TWO_FACTORS, ("pwd", "otp"))
        with pytest.raises(StepUpError):
            asyncio.run(login((idp.TWO_FACTORS,), idp.PASSWORD))


# -- the issuer's keys, and its outages -------------------------------------------------------------------------------


def test_keys_that_rotate_are_followed_and_old_ones_end_with_the_set_they_were_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers, "RETRY", timedelta())  # asked as often as needed: no test waits ten seconds

    async def scene(found: Deployment) -> None:
        before, spare = await found.tokens("alice"), await found.tokens("alice")
        assert (await ask(found, Key(), **opening(found), **by_id_token(before["id_token"]))).is_success
        found.provider.rotate()
        after = await found.tokens("alice")
        assert (await ask(found, Key(), **opening(found), **by_id_token(after["id_token"]))).is_success
        found.provider.retire()
        monkeypatch.setattr(issuers, "FRESH", timedelta())
        gone = await ask(found, Key(), **opening(found), **by_id_token(spare["id_token"]))
        assert refusal(gone) == (400, "invalid_request", "it is not signed by a key of its issuer")

    play(tmp_path, scene)


def test_while_the_issuer_is_down_nobody_is_let_in_longer_than_its_keys_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(found: Deployment) -> None:
        first, second, third = [await found.tokens("alice") for _ in range(3)]
        work = await found.working(first["id_token"])
        found.provider.stop()
        assert (await ask(found, Key(), **opening(found), **by_id_token(second["id_token"]))).is_success
        monkeypatch.setattr(issuers, "FRESH", timedelta())
        monkeypatch.setattr(issuers, "KEEP", timedelta())
        answer = await ask(found, Key(), **opening(found), **by_id_token(third["id_token"]))
        assert answer.status_code == 503
        assert answer.json()["error"] == "temporarily_unavailable"
        assert f"the issuer `{found.provider.issuer}` cannot be asked" in answer.json()["error_description"]
        assert await found.works(work)  # what was granted before goes on until its own end

    play(tmp_path, scene)


# -- identity assertion grants ----------------------------------------------------------------------------------------


def test_an_identity_assertion_opens_one_task_for_its_client_within_what_it_allows(tmp_path: Path) -> None:
    """oidc-provider issues no ID-JAGs; the one here is signed by its key in a hook of the fixture."""

    async def scene(found: Deployment) -> None:
        key = Key()

        def jag(client: str = "planner", **claims: Any) -> dict[str, str]:
            told = {"groups": ["analysts"], "authorization_details": [SEARCH], "cnf": {"jkt": key.signer.kid}, **claims}
            made = found.provider.id_jag(found.issuer, client, **told)
            return {"grant_type": JWT_BEARER, "assertion": made, "client_id": "planner"}

        once, form = jag(), opening(found, SEARCH)
        answer = await ask(found, key, **form, **once)
        assert answer.status_code == 200, answer.text
        assert "refresh_token" not in answer.json()
        token = claims_of(answer.json()["access_token"])
        assert token["sub"] == f"{found.provider.issuer}#alice"
        assert (token["acr"], token["amr"]) == (idp.PASSWORD, ["pwd"])
        again = await ask(found, key, **form, **once)
        assert refusal(again)[:2] == (400, "invalid_grant")
        wide = await ask(found, key, **opening(found), **jag())
        assert refusal(wide)[:2] == (400, "invalid_authorization_details")
        for other in (jag("writer"), jag(scope="x"), {**jag(), "client_id": "writer"}):
            assert refusal(await ask(found, key, **form, **other))[:2] == (400, "invalid_grant")
        for other, by in ((jag(cnf=None), key), (jag(), Key())):
            assert not (await ask(found, by, **form, **other)).is_success
        elsewhere = await ask(found, key, **form, **jag(aud="https://other.test"))
        assert elsewhere.status_code in {400, 401}

    play(tmp_path, scene)


# -- workloads of platforms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("audience", "claims", "near"),
    [
        (
            "remit-pods",
            {"sub": AGENT, "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "reports"}}},
            {"kubernetes.io": {"namespace": "shop2", "serviceaccount": {"name": "reports"}}},
        ),
        (
            "remit-ci",
            {"sub": "repo:acme/shop:ref:refs/heads/main", "repository_id": "70107786", "ref": "refs/heads/main"},
            {"ref": "refs/heads/main2"},
        ),
        (
            "remit-vms",
            {"sub": "1137742644", "azp": "1137742644", "email": "reports@acme.iam.gserviceaccount.com"},
            {"email": "reports@acme.iam.gserviceaccount.com.evil.test"},
        ),
    ],
    ids=["kubernetes", "github", "gcp"],
)
def test_a_workload_of_a_platform_acts_for_a_human_by_its_own_token(
    tmp_path: Path, audience: str, claims: dict[str, Any], near: dict[str, Any]
) -> None:
    async def scene(found: Deployment) -> None:
        human = await found.tokens("alice")
        form = opening(found, SEARCH, **by_id_token(human["id_token"]))
        for wrong in (
            platform(found, audience, **{**claims, **near}),
            platform(found, "remit", **claims),
            platform(found, audience, **claims, nonce="n"),
            human["id_token"],
        ):
            refused = await ask(found, Key(), **form, **asserted(wrong))
            assert refusal(refused)[:2] == (401, "invalid_client"), refused.text
        answer = await ask(found, Key(), **form, **asserted(platform(found, audience, **claims)))
        assert answer.status_code == 200, answer.text
        token = claims_of(answer.json()["access_token"])
        assert token["sub"] == f"{found.provider.issuer}#alice"
        assert token["act"]["sub"] == token["client_id"] == f"{found.provider.issuer}#{claims['sub']}"
        assert token["task"]["attested"] is True

    play(tmp_path, scene)


def test_a_workload_acts_for_itself_where_a_policy_asks_for_its_claims(tmp_path: Path) -> None:
    async def scene(found: Deployment) -> None:
        form = opening(found, SEARCH, grant_type="client_credentials")
        answer = await ask(found, Key(), **form, **asserted(pod(found)))
        assert answer.status_code == 200, answer.text
        assert claims_of(answer.json()["access_token"])["sub"] == f"{found.provider.issuer}#{AGENT}"
        job = platform(found, "remit-ci", sub="repo:acme/shop", repository_id="70107786", ref="refs/heads/main")
        assert refusal(await ask(found, Key(), **form, **asserted(job)))[:2] == (400, "access_denied")
        assert (await ask(found, Key(), **form)).status_code == 401

    play(tmp_path, scene)


# -- on behalf of a user ----------------------------------------------------------------------------------------------


def test_an_agent_works_with_a_database_on_behalf_of_a_user_and_the_audit_names_the_user(tmp_path: Path) -> None:
    """User to issuer, JWT to agent, exchanged on behalf of the user, spent on a database role made just in time."""

    async def scene(found: Deployment) -> None:
        user = await found.tokens("alice")  # 1. the user logs in; the application hands the ID token to the agent
        key, wanted = Key(), scope.dump((found.store.detail(),))
        form = opening(found, *wanted, **by_id_token(user["id_token"]))
        alone = await ask(found, Key(), **form)  # a token that leaks is worth nothing without the agent
        assert refusal(alone)[:2] == (400, "access_denied")
        answer = await ask(found, key, **form, **asserted(pod(found)))  # 2. the agent exchanges it, as itself
        assert answer.status_code == 200, answer.text
        key.token = answer.json()["access_token"]
        work = Work(key, answer.json()["task"], answer.json()["grant"])
        before = found.store.roles()
        detail = shown_lease()
        lease = {"grant": work.grant, "detail": detail}
        endless = {**lease, "detail": {name: value for name, value in detail.items() if name != "ttl"}}
        assert (await found.call(work, f"/v1/tasks/{work.task}/leases", endless)).status_code == 403
        issued = await found.call(work, f"/v1/tasks/{work.task}/leases", lease)
        assert issued.status_code in {200, 201}, issued.text  # 3. a role of the database that did not exist before
        dsn = issued.json()["credential"]["dsn"]
        assert len(found.store.roles()) > len(before)
        assert await asyncio.to_thread(_revenue, dsn) == 1_600  # 4. and it reads
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await asyncio.to_thread(_revenue, dsn, "sales.cost")
        entries = [one for one in await found.entries() if one.get("task") == work.task]
        assert {one["event"] for one in entries} >= {"task.open", "lease.issue"}
        assert {one["subject"] for one in entries} == {f"{found.provider.issuer}#alice"}  # whoever did it, for whom
        assert {(one["agent"], one["attested"]) for one in entries} == {(f"{found.provider.issuer}#{AGENT}", True)}
        ended = await found.call(work, f"/v1/tasks/{work.task}/close", {})
        assert ended.is_success, ended.text
        with pytest.raises(psycopg.OperationalError):  # 5. what was made for the task ends with it
            await asyncio.to_thread(_revenue, dsn)

    play(tmp_path, scene, on_behalf())


def _revenue(dsn: str, table: str = "sales.revenue") -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            sql.SQL("SELECT sum(amount) FROM {}").format(sql.Identifier(*table.split(".")))
        ).fetchone()
        assert row is not None
        return int(row[0])
