"""Drivers that are particular about SCRAM, with the credential of a lease at a real database."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from pg8000 import dbapi
from scramp import ScramException

from remit.core.secret import Secret
from tests.live.warehouse import issue, warehouse
from tests.peers import require, require_file

pytestmark = pytest.mark.live
PGJDBC = Path("/usr/share/java/postgresql.jar")
SOURCE = Path(__file__).with_name("Query.java")

Fields = Mapping[str, str]


def pgjdbc(fields: Fields) -> str:
    """Return what a query by pgjdbc is answered; CalledProcessError when it does not log in."""
    classes = require_file(PGJDBC, "libpostgresql-jdbc-java")
    url = f"jdbc:postgresql://{fields['host']}:{fields['port']}/{fields['dbname']}"
    told = {"URL": url, "USER": fields["user"], "PASSWORD": fields["password"], "PATH": os.environ["PATH"]}
    command = [require("java"), "-cp", str(classes), str(SOURCE)]
    return subprocess.run(command, env=told, capture_output=True, text=True, check=True, timeout=60).stdout


def pg8000(fields: Fields) -> str:
    """Return what a query by pg8000 is answered; DatabaseError when it does not log in."""
    told = {"user": fields["user"], "password": fields["password"], "database": fields["dbname"]}
    with closing(dbapi.connect(host=fields["host"], port=int(fields["port"]), **told)) as session:
        cursor = session.cursor()
        cursor.execute("SELECT sum(amount) FROM sales.revenue")
        return str(cursor.fetchone()[0])


def asked(query: Callable[[Fields], str], **settings: object) -> str:
    """Return what a driver is told that logs in with a lease's fields, at a resource with these settings."""

    async def main() -> str:
        with warehouse() as house:
            async with house.engine(**settings) as engine:
                _, issued = await issue(engine, house.detail())
                shown = issued.credential.items()
                fields = {name: value.reveal() if isinstance(value, Secret) else value for name, value in shown}
                return await asyncio.to_thread(query, fields)

    return asyncio.run(main())


@pytest.mark.parametrize("settings", [{}, {"scram_iterations": 1}])
def test_pgjdbc_logs_in_by_the_fields_of_a_lease(settings: dict[str, object]) -> None:
    assert asked(pgjdbc, **settings) == "1600"


def test_a_query_by_pgjdbc_with_another_password_is_refused() -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        asked(lambda fields: pgjdbc({**fields, "password": "another"}))
    assert "password authentication failed" in refused.value.stderr


@pytest.mark.parametrize("settings", [{}, {"scram_iterations": 10_000}])
def test_pg8000_logs_in_by_the_fields_of_a_lease(settings: dict[str, object]) -> None:
    assert asked(pg8000, **settings) == "1600"


def test_pg8000_refuses_fewer_iterations_than_the_standard_asks_for() -> None:
    with pytest.raises(ScramException, match="4096"):
        asked(pg8000, scram_iterations=1)
