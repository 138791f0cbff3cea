"""``[[clients]]`` and ``[client_documents]``, read strictly."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from remit.compose.identities import client_keys, clients, methods, registration
from remit.config.settings import Places, Settings, read
from remit.errors import InvalidRequestError
from remit.identity.fetch import HttpFetch
from tests.identity.issuing import ec, public

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
APP = {"id": "app", "name": "App", "redirect_uris": ["http://127.0.0.1/cb"]}


def settings(**parts: object) -> Settings:
    """Return settings with these parts."""
    return read(Places(Path("/c"), Path("/s"), Path("/r")), parts)


# -- reading ----------------------------------------------------------------------------------------------------------


def test_clients_are_read_with_their_redirects() -> None:
    found = clients(settings(clients=[APP, {"id": "tv"}]), lambda: NOW)
    app, tv = asyncio.run(found.get("app")), asyncio.run(found.get("tv"))
    assert (app.name, app.redirect_uris, app.vouched) == ("App", ("http://127.0.0.1/cb",), None)
    assert (tv.name, tv.redirect_uris) == ("tv", ())
    assert not found.documents
    assert not clients(settings(), lambda: NOW).documents


JWKS = {"keys": [public(ec())]}


def test_a_client_with_keys_is_one_that_has_to_authenticate(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(JWKS))
    for where in ({"jwks": JWKS}, {"jwks_file": str(file)}, {"jwks_uri": "https://app.test/jwks"}):
        found = settings(clients=[{**APP, **where}])
        assert asyncio.run(clients(found, lambda: NOW).get("app")).keyed
        assert client_keys(found, lambda: NOW, HttpFetch()).keys() == {"app"}
        assert methods(found) == ("private_key_jwt",)
    assert not asyncio.run(clients(settings(clients=[APP]), lambda: NOW).get("app")).keyed
    assert methods(settings(clients=[APP])) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"jwks": {}},
        {"jwks": {"keys": []}},
        {"jwks": {"keys": [ec().as_dict(private=True)]}},
        {"jwks": "x"},
        {"jwks_uri": "http://app.test/jwks"},
        {"jwks_file": "/nowhere/jwks.json"},
        {"jwks": JWKS, "jwks_uri": "https://app.test/jwks"},
        {"id": "spiffe://prod.test/app", "jwks": JWKS},
        {"id": "https://ci.test#job", "jwks": JWKS},
    ],
    ids=range(9),
)
def test_keys_of_a_client_that_are_no_good_are_refused_at_the_start(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError, match=r"clients|key set"):
        client_keys(settings(clients=[{**APP, **changes}]), lambda: NOW, HttpFetch())


@pytest.mark.parametrize(
    "table",
    [
        {"id": "app"},
        ["app"],
        [{}],
        [{**APP, "secret": "x"}],
        [{**APP, "id": ""}],
        [{**APP, "id": 7}],
        [{**APP, "id": "a" * 513}],
        [{**APP, "id": "a\nb"}],
        [{**APP, "name": "a\nb"}],
        [{**APP, "redirect_uris": "http://127.0.0.1/cb"}],
        [{**APP, "redirect_uris": ["http://app.test/cb"]}],
        [{**APP, "redirect_uris": ["https://app.test/cb#x"]}],
        [{**APP, "redirect_uris": ["https://app.test/cb"] * 21}],
        [APP, APP],
        [{"id": str(number)} for number in range(257)],
    ],
)
def test_a_table_of_clients_that_is_wrong_is_refused(table: object) -> None:
    with pytest.raises(InvalidRequestError, match=r"client|name|redirect"):
        clients(settings(clients=table), lambda: NOW)


@pytest.mark.parametrize(
    "table",
    [
        True,
        {},
        {"hosts": []},
        {"hosts": "app.test"},
        {"hosts": ["https://app.test"]},
        {"hosts": ["App.test"]},
        {"hosts": ["*.*.test"]},
        {"hosts": ["*."]},
        {"hosts": ["app.test:443"]},
        {"hosts": ["app.test"], "private": "yes"},
        {"hosts": ["app.test"], "proxy": "x"},
    ],
)
def test_a_table_of_documents_that_is_wrong_is_refused(table: object) -> None:
    with pytest.raises(InvalidRequestError, match="client_documents"):
        clients(settings(client_documents=table), lambda: NOW)


def test_documents_are_read_where_that_is_configured() -> None:
    assert clients(settings(client_documents={"hosts": ["app.test", "*.corp.test"]}), lambda: NOW).documents


# -- clients that register themselves ---------------------------------------------------------------------------------


async def _mac(statement: str) -> str:
    return statement


def test_nobody_registers_unless_it_is_said_and_a_human_can_decide(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    deciding = [{"issuer": "https://issuer.test", "client_id": "remit", "client_secret_file": str(secret)}]
    public_alone = [{"issuer": "https://issuer.test", "client_id": "remit"}]
    assert registration(settings(humans=deciding), lambda: NOW, _mac) is None
    assert registration(settings(client_registration={}, humans=public_alone), lambda: NOW, _mac) is None
    assert registration(settings(client_registration={}, humans=deciding), lambda: NOW, None) is None
    found = registration(settings(client_registration={}, humans=deciding), lambda: NOW, _mac)
    assert found is not None
    assert [route.path for route in found.routes()] == ["/oauth/register"]


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"redirect_hosts": ["*"]}, "client_registration.redirect_hosts"),
        ({"redirect_hosts": ["https://app.test"]}, "client_registration.redirect_hosts"),
        ({"redirect_hosts": ["App.test"]}, "client_registration.redirect_hosts"),
        ({"redirect_hosts": ["*.test"]}, "client_registration.redirect_hosts"),
        ({"redirect_hosts": ["app.test", "*.app.test"], "loopback": False}, None),
        ({"redirect_hosts": ["test"]}, "client_registration.redirect_hosts"),
        ({"loopback": False}, "lets nobody register"),
        ({"days": 0}, "client_registration.days"),
        ({"per_minute": 10_000}, "client_registration.per_minute"),
        ({"host": []}, "`client_registration.host` is not a setting"),
    ],
)
def test_who_may_register_is_read_strictly(section: dict[str, object], told: str | None) -> None:
    if told is None:
        settings(client_registration=section)
        return
    with pytest.raises(InvalidRequestError, match=told):
        settings(client_registration=section)
