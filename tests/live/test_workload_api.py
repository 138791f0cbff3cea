"""SVIDs of the broker's own trust domain, in real runs, by clients that nobody here wrote."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from remit.identity.workloads.bundles import SpiffeBundle, WebSource
from remit.kinds.spiffe.engine import serial
from remit.sdk import Place
from remit.sdk.client import Client
from remit.sdk.verbs import Bounds
from tests.identity.spire import pem
from tests.live.mesh_town import DOMAIN, LEDGER, REMIT, Agent, Ledger, Town, founded, started

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Found a town for all of these tests."""
    with founded(tmp_path_factory.mktemp("town")) as found:
        yield found


def name(town: Town, grant: str) -> str:
    """Return the SPIFFE ID that a grant must have."""
    found: str = town.remit("show", grant)["agent"]
    assert found.startswith(f"spiffe://{DOMAIN}/task/task_")
    assert found.endswith(f"/{grant}")
    return found


def bundle(town: Town) -> SpiffeBundle:
    """Fetch the bundle as another organization's broker would."""
    return asyncio.run(WebSource(f"{town.base}/.well-known/spiffe-bundle", town.ca).fetch(DOMAIN))


def issued(town: Town, grant: str, wish: str) -> dict[str, Any]:
    """Issue an SVID by the command line."""
    found: dict[str, Any] = town.remit("issue", wish, "-g", grant)["credential"]
    return found


# -- the official client --------------------------------------------------------------------------------------------


def test_the_official_client_gets_every_kind_of_svid_and_bundle_inside_a_run(town: Town) -> None:
    grant = town.opened()
    with town.agent("-g", grant) as agent:
        svid = agent.tell("x509")
        assert svid["id"] == name(town, grant)
        assert datetime.fromisoformat(svid["until"]) - datetime.now(UTC) < timedelta(seconds=301)
        assert agent.tell("x509_bundle") == {DOMAIN: 2, "prod.test": 1}
        token = agent.tell("jwt", audience=[LEDGER])
        assert token["id"] == svid["id"]
        assert agent.tell("validate", token=token["token"], audience=LEDGER) == {"asked": svid["id"], "own": svid["id"]}


def test_what_the_grant_does_not_have_is_refused(town: Town) -> None:
    grant = town.opened("-r", "mesh:actions=x509")
    with town.agent("-g", grant) as agent:
        assert "PERMISSION_DENIED" in agent.tell("jwt", audience=[LEDGER])["error"]
    with town.agent("-g", town.opened()) as agent:
        assert "PERMISSION_DENIED" in agent.tell("jwt", audience=["https://other.test"])["error"]
        other = f"spiffe://{DOMAIN}/task/x/y"
        assert "PERMISSION_DENIED" in agent.tell("jwt", audience=[LEDGER], subject=other)["error"]
        assert "INVALID_ARGUMENT" in agent.tell("validate", token="a.b.c", audience=LEDGER)["error"]


def test_updates_come_by_themselves_and_the_end_of_the_grant_ends_the_stream(town: Town) -> None:
    grant = town.opened("-r", "mesh:ttl=4")
    with town.agent("-g", grant) as agent:
        first = agent.tell("watch")
        second = agent.tell("update", serial=first["serial"])  # after half its life
        assert second["id"] == first["id"]
        assert datetime.fromisoformat(second["until"]) > datetime.fromisoformat(first["until"])
        town.remit("revoke", grant)
        (said,) = agent.tell("end")["ended"]
        assert "PERMISSION_DENIED" in said
        assert "PERMISSION_DENIED" in agent.tell("x509")["error"]


def test_a_rotation_of_the_authority_reaches_runs_at_once_and_breaks_nothing(town: Town) -> None:
    with town.agent("-g", town.opened()) as agent:
        first = agent.tell("watch")
        before = bundle(town)
        town.remit("keys", "rotate", "spiffe")
        assert agent.tell("update", serial=first["serial"])["id"] == first["id"]
        after = bundle(town)
        assert set(before.authorities) < set(after.authorities)
        assert (before.sequence or 0) < (after.sequence or 0)


# -- sub-agents -----------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(town: Town, tmp_path: Path) -> Iterator[Ledger]:
    """Serve a ledger that believes the bundle as it is now."""
    credential = issued(town, town.opened(), "mesh:actions=x509")
    (tmp_path / "ledger").mkdir()
    with Ledger(tmp_path / "ledger" / "sock", credential, b"".join(bundle(town).authorities)) as found:
        yield found


def child(town: Town, root: str, label: str, ledger: Ledger) -> Any:
    """Start a sub-agent that sees the ledger's socket."""
    return town.agent("-g", root, "-r", "mesh", "--label", label, "--bind", f"{ledger.path.parent}:rw")


def test_a_service_tells_one_sub_agent_from_another(town: Town, ledger: Ledger) -> None:
    root = town.opened()
    with child(town, root, "reader", ledger) as reader, child(town, root, "payer", ledger) as payer:
        names = [agent.tell("x509")["id"] for agent in (reader, payer)]
        ledger.allowed = names[1]
        said = [agent.tell("call", path=str(ledger.path), domain=DOMAIN) for agent in (reader, payer)]
        assert [each["said"] for each in said] == ["not you", "paid"]
        assert [ledger.who(), ledger.who()] == names
        assert {each["server"] for each in said} == {_uri(ledger)}
        assert len({*names, name(town, root), _uri(ledger)}) == 4


def test_a_service_refuses_svids_of_an_authority_that_it_does_not_believe_any_more(town: Town, ledger: Ledger) -> None:
    with child(town, town.opened(), "payer", ledger) as payer:
        ledger.allowed = payer.tell("x509")["id"]
        assert payer.tell("call", path=str(ledger.path), domain=DOMAIN)["said"] == "paid"
        assert ledger.who() == ledger.allowed
        old = ledger.bundle
        signing = town.remit("keys", "list")["rings"]["spiffe"][0]["kid"]
        town.remit("keys", "revoke", "spiffe", signing)
        ledger.bundle = b"".join(bundle(town).authorities)
        assert ledger.bundle not in old
        assert "CERTIFICATE_VERIFY_FAILED" in payer.tell("call", path=str(ledger.path), domain=DOMAIN)["error"]
        assert "unknown ca" in ledger.who()  # it does not believe the ledger's old SVID
        ledger.credential = issued(town, town.opened(), "mesh:actions=x509")
        assert (
            payer.tell("call", path=str(ledger.path), domain=DOMAIN)["said"] == "paid"
        )  # it has a new one itself already
        assert ledger.who() == ledger.allowed
        ledger.bundle = old
        assert "error" in payer.tell("call", path=str(ledger.path), domain=DOMAIN)
        assert "certificate verify failed" in ledger.who()


def test_an_agent_and_a_service_of_another_trust_domain_verify_each_other(town: Town, tmp_path: Path) -> None:
    svid = town.prod.svid("/ns/bank/sa/ledger")
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in svid.chain).decode()
    credential = {"certificate": chain, "key": pem(svid.key).decode()}
    (tmp_path / "bank").mkdir()
    service = Ledger(tmp_path / "bank" / "sock", credential, b"".join(bundle(town).authorities))
    with service as bank, child(town, town.opened(), "payer", bank) as payer:
        bank.allowed = payer.tell("x509")["id"]
        answer = payer.tell("call", path=str(bank.path), domain="prod.test")
        assert answer == {"server": "spiffe://prod.test/ns/bank/sa/ledger", "said": "paid"}
        assert bank.who() == bank.allowed
        assert "CERTIFICATE_VERIFY_FAILED" in payer.tell("call", path=str(bank.path), domain=DOMAIN)["error"]


def test_a_sub_agent_that_an_agent_started_has_a_name_of_its_own(town: Town) -> None:
    grant = town.opened()
    inner = [REMIT, "run", "--quiet", "-r", "mesh", "--label", "inner", "--", sys.executable, "svid_agent.py"]
    outer = [REMIT, "run", "--quiet", "--nest", "-g", grant, "--", *inner]
    with started(outer, town.environ, town.project) as process:
        found = Agent(process).tell("x509")["id"]
    assert found.startswith(name(town, grant).rpartition("/")[0])
    assert found != name(town, grant)


# -- leases without the Workload API --------------------------------------------------------------------------------


def test_an_svid_is_a_lease_like_any_other_but_cannot_be_ended_early(town: Town) -> None:
    grant = town.opened()
    made = town.remit("issue", "mesh:actions=x509", "-g", grant)
    assert set(made["credential"]) == {"spiffe_id", "certificate", "key", "bundle"}
    leaf = x509.load_pem_x509_certificate(made["credential"]["certificate"].encode())
    assert leaf.serial_number == serial(made["lease"])  # a service's log leads to ours
    report = town.remit("revoke", grant)
    (left,) = report["outstanding"]
    assert (report["state"], left["lease"], left["kind"]) == ("partial", made["lease"], "spiffe")
    assert datetime.fromisoformat(left["expires_at"]).replace(microsecond=0) == leaf.not_valid_after_utc


def test_a_run_that_ends_says_which_svids_live_on(town: Town) -> None:
    command = [REMIT, "run", "--quiet", "-r", "mesh", "--", sys.executable, "svid_agent.py"]
    told = json.dumps({"do": "x509"})
    done = subprocess.run(
        command, env=town.environ, cwd=town.project, input=told, capture_output=True, text=True, check=True
    )
    until = datetime.fromisoformat(json.loads(done.stdout)["until"])
    first, left = done.stderr.strip().splitlines()
    assert first == "warning: the run has ended, and not yet all its credentials"
    assert left.strip().startswith("lse_")
    assert f"(spiffe) until {until:%Y-%m-%dT%H:%M:%S}" in left


def test_the_python_client_leases_a_jwt_svid_that_an_oidc_relying_party_verifies(town: Town) -> None:
    with (
        Client(Place(town.control)) as client,
        client.task("pay", grants=["mesh"], bounds=Bounds(ttl="5m")) as task,
        task.lease("mesh", actions=["jwt"]) as credential,
    ):
        token = credential["jwt"]
        claims = relying(town, token)
        assert (claims["sub"], claims["attested"]) == (name(town, task.id), False)
    with pytest.raises(jwt.InvalidAudienceError):
        relying(town, token, "https://other.test")


def relying(town: Town, token: str, audience: str = LEDGER) -> dict[str, Any]:
    """Verify a token as a party that knows OIDC discovery and nothing else (PyJWT)."""
    with httpx.Client(
        verify=ssl.create_default_context(cafile=town.ca)
    ) as web:  # what a relying party has: the issuer's name alone
        issuer = jwt.decode(token, options={"verify_signature": False})["iss"]
        assert issuer == town.base
        known = web.get(f"{issuer}/.well-known/openid-configuration").json()
        assert known["issuer"] == issuer
        keys = {key["kid"]: jwt.PyJWK(key) for key in web.get(known["jwks_uri"]).json()["keys"]}
    found: dict[str, Any] = jwt.decode(
        token,
        keys[jwt.get_unverified_header(token)["kid"]].key,
        algorithms=known["id_token_signing_alg_values_supported"],
        audience=audience,
        issuer=issuer,
        options={"require": ["exp", "iat", "aud", "iss", "sub"]},
    )
    return found


def _uri(ledger: Ledger) -> str:
    return str(ledger.credential["spiffe_id"])
