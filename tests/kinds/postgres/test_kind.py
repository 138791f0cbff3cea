from __future__ import annotations

import pytest

from remit.errors import InvalidRequestError
from remit.kinds.postgres import KIND, local
from remit.ports import Resource
from remit.ports.kind import PortAccess


@pytest.mark.parametrize(
    ("query", "inside"),
    [
        ("", "sslmode=disable"),
        ("?options=x", "options=x&sslmode=disable"),
        ("?options=x&sslmode=verify-full&sslrootcert=/etc/ssl/ca.pem", "options=x&sslmode=disable"),
    ],
)
def test_in_a_run_a_database_is_reached_at_the_runs_own_port_and_the_gateway_speaks_tls(
    query: str, inside: str
) -> None:
    values = {"dsn": f"postgresql://u:p%40@db.example:5432/sales{query}", "host": "db.example", "port": "5432"}
    moved = local(values, 15432)
    assert moved["dsn"] == f"postgresql://u:p%40@127.0.0.1:15432/sales?{inside}"
    assert (moved["host"], moved["port"]) == ("127.0.0.1", "15432")


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
