from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from psycopg import sql

from remit.core.secret import Secret
from remit.kinds.postgres.inspect import setup_sql
from remit.ports import Finding
from tests.live.warehouse import Warehouse, issue, may, warehouse
from tests.support.postgres_server import bin_folder

pytestmark = pytest.mark.live

CLOSED = [  # what a careful administrator closes, and what the server's other databases leave open
    "REVOKE ALL ON DATABASE {name} FROM PUBLIC",
    "GRANT CONNECT ON DATABASE {name} TO {login} WITH GRANT OPTION",
]
ELSEWHERE = "public-connect"


def _inspect(shop: Warehouse) -> Sequence[Finding]:
    async def run() -> Sequence[Finding]:
        async with shop.engine() as engine:
            return await engine.inspect()

    return asyncio.run(run())


def _names(shop: Warehouse) -> set[str]:
    return {finding.name for finding in _inspect(shop)} - {ELSEWHERE}


def _run(shop: Warehouse, *statements: str) -> None:
    with shop.admin() as admin:
        for statement in statements:
            named = {"login": sql.Identifier(shop.login), "name": sql.Identifier(shop.name)}
            admin.execute(sql.SQL(statement).format(**named))


def test_a_well_kept_database_has_nothing_to_report() -> None:
    with warehouse() as shop:
        _run(shop, *CLOSED)
        assert _names(shop) == set()


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("ALTER ROLE {login} SUPERUSER", "login-superuser"),
        ("ALTER ROLE {login} BYPASSRLS", "login-bypassrls"),
        ("ALTER ROLE {login} REPLICATION", "login-replication"),
        ("ALTER ROLE {login} NOCREATEROLE", "login-createrole"),
        ("ALTER ROLE {login} RESET createrole_self_grant", "login-self-grant"),
        ("ALTER ROLE {login} SET createrole_self_grant = 'set'", "login-self-grant"),
        ("REVOKE pg_signal_backend FROM {login}", "login-signal"),
        ("REVOKE GRANT OPTION FOR SELECT ON sales.revenue FROM {login}", "login-grants"),
        ("REVOKE ALL ON SCHEMA sales FROM {login}", "login-grants"),
        ("REVOKE GRANT OPTION FOR ALL ON DATABASE {name} FROM {login}", "login-grants"),
        ("DROP TABLE sales.cost", "login-grants"),
    ],
)
def test_a_login_that_is_not_fit_is_found_and_cannot_be_accepted(statement: str, name: str) -> None:
    with warehouse() as shop:
        _run(shop, *CLOSED, statement)
        found = [finding for finding in _inspect(shop) if not finding.acceptable]
        assert name in {finding.name for finding in found}


@pytest.mark.parametrize(
    ("statements", "name", "text"),
    [
        (
            ["CREATE FUNCTION sales.wipe() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'TRUNCATE sales.cost'"],
            "public-functions",
            "sales.wipe",
        ),
        (["GRANT CREATE ON SCHEMA sales TO PUBLIC"], "public-create", "sales"),
        (["GRANT CREATE ON DATABASE {name} TO PUBLIC"], "public-create", "database shop_"),
        (["GRANT SELECT ON sales.orders TO PUBLIC"], "public-tables", "sales.orders"),
        (["GRANT SELECT (id) ON sales.orders TO PUBLIC"], "public-tables", "sales.orders"),
        (["GRANT TEMPORARY ON DATABASE {name} TO PUBLIC"], "public-temp", "shop_"),
    ],
)
def test_what_everybody_may_do_is_listed_by_name(statements: list[str], name: str, text: str) -> None:
    with warehouse() as shop:
        _run(shop, *CLOSED, *statements)
        [finding] = [finding for finding in _inspect(shop) if finding.name == name]
        assert finding.acceptable
        assert text in finding.text


@contextmanager
def _trusting(shop: Warehouse, user: str) -> Iterator[None]:
    """Have the server let this machine in as a user, in the shop's database."""
    rules = shop.server.folder / "data" / "pg_hba.conf"
    before = rules.read_text()

    def reload(text: str, count: int) -> None:
        rules.write_text(text)
        with shop.admin() as admin:
            admin.execute("SELECT pg_reload_conf()")
            trusted = "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'trust' AND database = ARRAY[%s]"
            assert admin.execute(trusted, (shop.name,)).fetchone() == (count,)

    reload(f'host "{shop.name}" "{user}" 127.0.0.1/32 trust\n{before}', 1)
    try:
        yield
    finally:
        reload(before, 0)


@pytest.mark.parametrize("who", ["postgres", None])
def test_a_server_that_asks_for_no_password_is_found_and_told_of_though_it_is_accepted(who: str | None) -> None:
    with warehouse() as shop, _trusting(shop, who or shop.login):
        _run(shop, *CLOSED)
        [finding] = [finding for finding in _inspect(shop) if finding.name == "trust"]
        text = f"the server lets this machine in without a password (pg_hba.conf), as {who or shop.login}"
        assert finding == Finding("trust", text, acceptable=True, loud=True)


def test_a_user_who_is_believed_but_may_not_connect_is_found_as_well() -> None:
    with warehouse() as shop, _trusting(shop, "idle"):
        _run(shop, *CLOSED, "CREATE ROLE idle LOGIN")
        try:
            assert {finding.text[-4:] for finding in _inspect(shop) if finding.name == "trust"} == {"idle"}
        finally:
            _run(shop, "DROP ROLE idle")


def test_a_function_of_its_callers_powers_or_closed_to_everybody_is_no_finding() -> None:
    with warehouse() as shop:
        _run(
            shop,
            *CLOSED,
            "CREATE FUNCTION sales.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE FUNCTION sales.ours() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
            "REVOKE EXECUTE ON FUNCTION sales.ours() FROM PUBLIC",
        )
        assert _names(shop) == set()


def test_databases_that_everybody_may_enter_are_listed() -> None:
    with warehouse() as shop:
        _run(shop, *CLOSED)
        [finding] = _inspect(shop)
        assert finding.name == ELSEWHERE
        assert "postgres" in finding.text


def test_the_printed_setup_makes_a_login_that_passes_and_can_issue() -> None:
    with warehouse() as made:
        shop = Warehouse(made.server, made.name, f'{made.login} "two"', "from a prompt")
        _run(made, "REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        script = setup_sql(shop.resource).replace(
            f"\\password {shop_name(shop)}", f"ALTER ROLE {shop_name(shop)} PASSWORD '{shop.password}';"
        )
        psql = [str(bin_folder() / "psql"), "--no-psqlrc", "-v", "ON_ERROR_STOP=1", made.server.dsn(made.name)]
        done = subprocess.run(psql, input=script, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

        async def run() -> None:
            async with shop.engine() as engine:
                assert {finding.name for finding in await engine.inspect()} <= {ELSEWHERE}
                plan, issued = await issue(engine, shop.detail())
                assert may(issued, "SELECT * FROM sales.revenue")
                await engine.revoke(plan, None)
                await engine.clean([plan])
                assert isinstance(issued.credential["password"], Secret)

        try:
            asyncio.run(run())
        finally:
            with made.admin() as admin:
                admin.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(sql.Identifier(shop.login)))


def shop_name(shop: Warehouse) -> str:
    """Return the login as SQL writes it."""
    return '"' + shop.login.replace('"', '""') + '"'
