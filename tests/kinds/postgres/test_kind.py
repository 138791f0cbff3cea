from __future__ import annotations

import pytest

from remit.errors import InvalidRequestError
from remit.kinds.postgres import KIND, local
from remit.ports import Resource
from remit.ports.kind import PortAccess


def test_in_a_run_a_database_is_reached_at_the_runs_own_port() -> None:
    values = {"dsn": "postgresql://u:p%40@db.example:5432/sales?sslmode=disable", "host": "db.example", "port": "5432"}
    moved = local(values, 15432)
    assert moved["dsn"] == "postgresql://u:p%40@127.0.0.1:15432/sales?sslmode=disable"
    assert (moved["host"], moved["port"]) == ("127.0.0.1", "15432")


def test_a_server_whose_certificate_is_verified_keeps_its_name() -> None:
    values = {"dsn": "postgresql://u:p@db.example:5432/sales?options=x&sslmode=verify-full", "host": "db.example"}
    moved = local(values, 15432)
    assert moved["dsn"] == ("postgresql://u:p@db.example:15432/sales?options=x&sslmode=verify-full&hostaddr=127.0.0.1")
    assert (moved["host"], moved["hostaddr"], moved["port"]) == ("db.example", "127.0.0.1", "15432")


def test_a_credential_without_a_dsn_is_as_it_came() -> None:
    assert local({"token": "x"}, 1) == {"token": "x"}


@pytest.mark.parametrize(
    ("destination", "address"),
    [
        ("postgresql://remit@db.example/sales", ("db.example", 5432)),
        ("postgresql://remit@[::1]:6000/sales", ("::1", 6000)),
    ],
)
def test_a_port_of_a_run_leads_to_the_database(destination: str, address: tuple[str, int]) -> None:
    assert isinstance(KIND.access, PortAccess)
    assert KIND.access.address(Resource("warehouse", KIND.name, destination, (), None, {})) == address


@pytest.mark.parametrize(
    "destination", ["mysql://remit@db/sales", "postgresql://remit@127.1/sales", "postgresql://remit@db:99999/x"]
)
def test_a_port_of_a_run_leads_nowhere_else(destination: str) -> None:
    assert isinstance(KIND.access, PortAccess)
    with pytest.raises(InvalidRequestError):
        KIND.access.address(Resource("warehouse", KIND.name, destination, (), None, {}))
