"""``[services.NAME]``, read strictly: no service can be taken for the broker, nor for another."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.compose.identities import services
from remit.config.settings import Places, Settings, read
from remit.errors import InvalidRequestError
from tests.identity.issuing import ec, public

URI = "https://orders.test"
CLIENTS = [{"id": "orders-api", "jwks": {"keys": [public(ec())]}}, {"id": "app"}]


def _settings(**tables: object) -> Settings:
    return read(Places(Path("/c"), Path("/s"), Path("/r")), {"clients": CLIENTS, "services": tables})


@pytest.mark.parametrize(
    "client",
    ["orders-api", "spiffe://prod.test/orders/*", "https://issuer.test#repo:x", "https://app.test/client.json"],
)
def test_a_service_is_known_by_its_uri_and_served_by_who_can_prove_it(client: str) -> None:
    found = services(_settings(orders={"resource": URI, "client": client}))["orders"]
    assert (found.resource, found.uri, found.client, found.rsa) == ("orders", URI, client, False)
    assert services(_settings(orders={"resource": URI, "signing_alg": "RS256"}))["orders"].rsa


@pytest.mark.parametrize(
    "uri", ["https://orders.test/v1", "urn:example:orders", "api://orders", "http://localhost:9000/"]
)
def test_any_absolute_uri_does(uri: str) -> None:
    found = services(_settings(orders={"resource": uri}))["orders"]
    assert (found.uri, found.client) == (uri, "")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"resource": "orders"}, "absolute URI"),
        ({"resource": "https://a@orders.test"}, "absolute URI"),
        ({"resource": f"{URI}#x"}, "absolute URI"),
        ({"resource": f"{URI}\n"}, "absolute URI"),
        ({"resource": "HTTPS://orders.test"}, "absolute URI"),
        ({"resource": "http://127.0.0.1:8470"}, "the broker's own"),
        ({"resource": "http://127.0.0.1:8470/v1"}, "the broker's own"),
        ({"resource": "http://127.0.0.1:8471/search"}, "the broker's own"),
        ({"resource": "http://localhost:8471"}, "the broker's own"),
        ({"resource": "http://[::1]:8471/orders"}, "the broker's own"),
        ({"resource": "https://other.test/"}, "another's"),
        ({"resource": URI, "client": "app"}, "able to prove who it is"),
        ({"resource": URI, "client": "nobody"}, "able to prove who it is"),
        ({"resource": URI, "client": "*"}, "able to prove who it is"),
        ({"resource": URI, "signing_alg": "HS256"}, "`services.signing_alg`"),
        ({"client": "orders-api"}, "`services.resource` is missing"),
        ({"resource": URI, "clients": "app"}, "`services.clients` is not a setting"),
    ],
)
def test_what_is_wrong_is_told(table: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidRequestError, match=told):
        services(_settings(other={"resource": "https://other.test"}, orders=table))


def test_the_name_is_that_of_a_resource() -> None:
    with pytest.raises(InvalidRequestError, match="a name is"):
        services(_settings(**{"Orders API": {"resource": URI}}))
