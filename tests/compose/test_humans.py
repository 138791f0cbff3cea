from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from remit.compose import identities
from remit.compose.identities import TrustedIssuers
from remit.config import settings
from remit.config.values import MAX_ENTRIES
from remit.errors import InvalidRequestError
from tests.identity.issuing import URL, Clock, Site, signed

ISSUER = "https://other.test"
HUMAN = {"issuer": URL, "client_id": "remit"}
WORKLOAD = {"issuer": ISSUER, "audience": "remit", "match": {"sub": "system:serviceaccount:shop:reports"}}


def known(**parts: object) -> TrustedIssuers:
    found = settings.read(settings.places({"REMIT_STATE_DIR": "/nowhere"}), parts)
    return identities.trusted(found, Clock(), Site())


def native(*rows: object) -> Sequence[Mapping[str, object]]:
    where = settings.places({"REMIT_STATE_DIR": "/nowhere"})
    return identities.native_clients(settings.read(where, {"humans": list(rows)}))


def private(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_without_issuers_nobody_is_believed() -> None:
    found = known()
    assert (found.humans, found.logins, found.platforms, found.sources) == (None, None, None, {})
    assert found.step_up(f"{URL}#alice") == ()


def test_a_human_of_a_configured_issuer_is_known() -> None:
    found = known(humans=[{**HUMAN, "groups_claim": "/realm/roles"}])
    assert found.humans is not None
    clock = Clock()
    claims = {"iss": URL, "aud": "remit", "sub": "alice", "iat": clock.at(), "exp": clock.at(minutes=1)}
    human = asyncio.run(found.humans.id_token(signed({**claims, "realm": {"roles": ["analysts"]}})))
    assert (human.subject.sub, human.subject.groups) == (f"{URL}#alice", ("analysts",))
    assert found.logins is None  # nobody decides by a client that anybody can be
    assert found.platforms is None


def test_humans_decide_where_a_client_has_a_secret(tmp_path: Path) -> None:
    found = known(humans=[HUMAN, {**HUMAN, "client_id": "web", "client_secret_file": private(tmp_path / "s", "x")}])
    assert found.humans is not None
    assert found.logins is not None
    assert [one.client_id for one in found.humans.deciding] == ["web"]
    clock = Clock()
    claims = {"iss": URL, "sub": "alice", "iat": clock.at(), "exp": clock.at(minutes=1)}
    for client, own in (("remit", False), ("web", True)):
        human = asyncio.run(found.humans.id_token(signed({**claims, "aud": client})))
        assert (human.client, human.confidential) == (client, own)


def test_everything_that_can_be_said_of_an_issuer_is_read(tmp_path: Path) -> None:
    row = {
        **HUMAN,
        "client_secret_file": private(tmp_path / "secret", "s3cret\n"),
        "scopes": ["openid", "groups"],
        "groups_claim": "groups",
        "acr": ["phr", "phrh"],
        "id_jag": True,
        "name": "Work",
    }
    found = known(humans=[row])
    assert found.humans is not None
    (one,) = found.humans.registrations
    assert (one.client_id, one.scopes, one.groups, one.acr) == (
        "remit",
        ("openid", "groups"),
        "groups",
        ("phr", "phrh"),
    )
    assert (one.id_jag, one.name, one.issuer.url) == (True, "Work", URL)
    assert one.secret is not None
    assert one.secret.reveal() == "s3cret"
    assert "s3cret" not in repr(found)


def test_whoever_decides_is_proven_as_their_own_issuer_can() -> None:
    found = known(humans=[{**HUMAN, "acr": "phr"}, {**HUMAN, "issuer": ISSUER}])
    subs = (f"{URL}#alice", f"{ISSUER}#alice", "unix://host#1000", f"{URL}.evil.test#alice")
    assert [found.step_up(sub) for sub in subs] == [("phr",), (), (), ()]


def test_clients_of_one_issuer_share_its_keys_and_its_signals() -> None:
    found = known(
        humans=[HUMAN, {**HUMAN, "client_id": "web"}], workloads=[{**WORKLOAD, "issuer": URL, "audience": "w"}]
    )
    assert list(found.issuers) == list(found.sources) == [URL]
    source = found.sources[URL]
    assert (source.about, source.logouts) == (URL, True)
    assert source.audiences == {"remit", "web", "http://127.0.0.1:8470"}
    assert found.platforms is not None
    assert found.platforms.rules[0].issuer is source.issuer is found.issuers[URL]


def test_a_workload_s_token_is_made_for_the_broker_unless_it_is_said_for_whom() -> None:
    row = {name: value for name, value in WORKLOAD.items() if name != "audience"}
    found = known(workloads=[{**row, "match": {"ref": ["a", "b"], "/x/y": "c"}, "claims": ["ref"]}, WORKLOAD])
    assert found.platforms is not None
    first, second = found.platforms.rules
    assert (first.audience, second.audience) == ("http://127.0.0.1:8470", "remit")
    assert (first.match, first.claims) == ({"ref": ("a", "b"), "/x/y": ("c",)}, ("ref",))
    assert found.humans is None


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"issuer": None}, "humans.issuer"),
        ({"issuer": "http://login.test"}, "humans.issuer"),
        ({"issuer": f"{URL}?a=b"}, "humans.issuer"),
        ({"client_id": None}, "humans.client_id"),
        ({"client_id": ""}, "humans.client_id"),
        ({"client_id": 7}, "humans.client_id"),
        ({"client_secret": "s3cret"}, "humans.client_secret"),
        ({"client_secret_file": "relative"}, "absolute"),
        ({"client_secret_file": "/nowhere/secret"}, "cannot be read"),
        ({"scopes": []}, "humans.scopes"),
        ({"scopes": ["groups"]}, "openid"),
        ({"scopes": ["openid groups"]}, "humans.scopes"),
        ({"scopes": ["openid", 7]}, "humans.scopes"),
        ({"groups_claim": "/a/"}, "groups_claim"),
        ({"groups_claim": []}, "groups_claim"),
        ({"acr": []}, "humans.acr"),
        ({"acr": [""]}, "humans.acr"),
        ({"acr": [True]}, "humans.acr"),
        ({"acr": ["phr", "unspecified"]}, "humans.acr"),  # any login would do
        ({"id_jag": "yes"}, "humans.id_jag"),
        ({"id_jag": 1}, "humans.id_jag"),
        ({"name": ""}, "humans.name"),
        ({"jwks_uri": "https://evil.test"}, "humans.jwks_uri"),
    ],
)
def test_an_issuer_of_humans_that_cannot_be_meant_is_named(row: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        known(humans=[{**HUMAN, **row}])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"issuer": "login.test"}, "workloads.issuer"),
        ({"audience": ""}, "workloads.audience"),
        ({"audience": ["a"]}, "workloads.audience"),
        ({"match": None}, "workloads.match"),
        ({"match": {}}, "workloads.match"),
        ({"match": "sub"}, "workloads.match"),
        ({"match": {"sub": []}}, "workloads.match"),
        ({"match": {"sub": 7}}, "workloads.match"),
        ({"match": {"sub": {"a": "b"}}}, "workloads.match"),
        ({"match": {"/": "a"}}, "workloads.match"),
        ({"match": {str(n): "a" for n in range(MAX_ENTRIES + 1)}}, "workloads.match"),
        ({"claims": "/a~"}, "workloads.claims"),
        ({"claims": []}, "workloads.claims"),
        ({"client_id": "a"}, "workloads.client_id"),
    ],
)
def test_a_rule_for_workloads_that_cannot_be_meant_is_named(row: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        known(workloads=[{**WORKLOAD, **row}])


@pytest.mark.parametrize("table", [{}, "x", ["x"], [HUMAN] * (MAX_ENTRIES + 1)])
def test_a_part_is_a_list_of_tables(table: Any) -> None:
    for part in ("humans", "workloads"):
        with pytest.raises(InvalidRequestError, match=part):
            known(**{part: table})


def test_a_client_is_configured_once() -> None:
    with pytest.raises(InvalidRequestError, match="twice"):
        known(humans=[HUMAN, HUMAN])


@pytest.mark.parametrize("over", [{"acr": ["phr"]}, {"groups_claim": "groups"}, {"id_jag": True}])
def test_what_is_said_of_an_issuer_is_said_alike_for_all_its_clients(over: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError, match="the same for all clients"):
        known(humans=[HUMAN, {**HUMAN, "client_id": "web", **over}])


def test_a_human_cannot_pass_for_a_workload() -> None:
    with pytest.raises(InvalidRequestError, match="client of `humans`"):
        known(humans=[HUMAN], workloads=[{**WORKLOAD, "issuer": URL}])


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = Path(private(tmp_path / "secret", "s3cret"))
    path.chmod(0o640)
    with pytest.raises(InvalidRequestError, match="by others") as caught:
        known(humans=[{**HUMAN, "client_secret_file": str(path)}])
    assert "s3cret" not in f"{caught.value}{caught.value.help}"


@pytest.mark.parametrize("text", ["", "\n", "two\nlines\n", "\x00", "\xff\xfe"])
def test_a_secret_is_one_line_of_text(tmp_path: Path, text: str) -> None:
    path = private(tmp_path / "secret", "")
    Path(path).write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidRequestError, match="client_secret_file"):
        known(humans=[{**HUMAN, "client_secret_file": path}])


# -- the clients of terminals ------------------------------------------------------------------------------------------


def test_an_issuer_with_a_public_client_is_told_without_what_is_the_brokers_own() -> None:
    row = {"issuer": "https://a.test", "client_id": "remit", "groups_claim": "roles", "acr": ["gold"], "id_jag": True}
    assert native(row) == ({"issuer": "https://a.test", "client_id": "remit", "groups_claim": "roles"},)


def test_an_issuer_whose_client_has_a_secret_is_not_one_for_terminals() -> None:
    assert native({"issuer": "https://a.test", "client_id": "web", "client_secret_file": "/s"}) == ()


def test_without_humans_there_is_no_issuer() -> None:
    assert native() == ()
