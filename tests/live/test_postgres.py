from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg import sql

from remit.core.task import Plan
from remit.errors import EngineError, EngineRefusedError
from remit.kinds.postgres.engine import PostgresEngine
from tests.live.warehouse import LIFE, WINDOW, Warehouse, dsn, issue, may, now, planned, warehouse

pytestmark = pytest.mark.live

READ = "SELECT quarter FROM sales.revenue"


def _bundles(shop: Warehouse) -> list[str]:
    return sorted(role for role in shop.roles() if role.startswith("remit_b_"))


# -- privileges -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "allowed", "refused"),
    [
        ({"actions": ["select"]}, ["SELECT * FROM sales.revenue"], ["INSERT INTO sales.revenue VALUES ('x')"]),
        (
            {"actions": ["insert"]},
            ["INSERT INTO sales.revenue VALUES ('x')"],
            ["SELECT * FROM sales.revenue", "INSERT INTO sales.cost VALUES ('x')"],
        ),
        (
            {"actions": ["select", "update"], "columns": {"sales.revenue": ["quarter", "amount"]}},
            ["UPDATE sales.revenue SET amount = 1 WHERE quarter = 'x'", "SELECT quarter, amount FROM sales.revenue"],
            [
                "UPDATE sales.revenue SET secret_note = ''",
                "SELECT secret_note FROM sales.revenue",
                "SELECT * FROM sales.revenue",
                "SELECT count(revenue) FROM sales.revenue",
                "DELETE FROM sales.revenue",
            ],
        ),
        (
            {"actions": ["delete", "select"], "tables": ["sales.cost"]},
            ["DELETE FROM sales.cost WHERE quarter = 'x'"],
            ["TRUNCATE sales.cost", "DELETE FROM sales.revenue", "LOCK sales.cost IN ACCESS EXCLUSIVE MODE NOWAIT; x"],
        ),
    ],
)
def test_a_lease_may_do_what_its_detail_says_and_nothing_else(
    fields: dict[str, object], allowed: list[str], refused: list[str]
) -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            _, issued = await issue(engine, shop.detail(**fields))
            assert [text for text in allowed if not may(issued, text)] == []
            assert [text for text in refused if may(issued, text)] == []

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_the_role_has_no_attribute_of_power_and_joins_only_its_bundle() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, _ = await issue(engine, shop.detail())
            with shop.admin() as admin:
                [role] = admin.execute(
                    "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolcanlogin,"
                    " rolconnlimit, rolpassword LIKE 'SCRAM-SHA-256$4096:%%' FROM pg_authid WHERE rolname = %s",
                    (plan.name,),
                ).fetchall()
                joined = admin.execute(
                    "SELECT roleid::regrole::text, inherit_option, set_option, admin_option FROM pg_auth_members"
                    " WHERE member::regrole::text = quote_ident(%s)",
                    (plan.name,),
                ).fetchall()
            assert role == (False, False, False, False, False, True, 10, True)
            assert joined == [(_bundles(shop)[0], True, False, False)]

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_leases_on_the_same_powers_share_a_bundle_and_others_do_not() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            await issue(engine, shop.detail())
            await issue(engine, shop.detail())
            await issue(engine, shop.detail(ttl=60))  # how long is not what
            assert len(_bundles(shop)) == 1
            await issue(engine, shop.detail(actions=["select", "insert"]))
            await issue(engine, shop.detail(columns={"sales.revenue": ["quarter"]}))
            assert len(_bundles(shop)) == 3

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_connect_is_given_where_not_everybody_has_it() -> None:
    async def run(shop: Warehouse) -> None:
        with shop.admin() as admin:
            name, login = sql.Identifier(shop.name), sql.Identifier(shop.login)
            admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
            admin.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {} WITH GRANT OPTION").format(name, login))
        async with shop.engine() as engine:
            _, issued = await issue(engine, shop.detail())
            assert may(issued, READ)
            assert not may(issued, "CREATE TEMP TABLE mine (a int)")

    with warehouse() as shop:
        asyncio.run(run(shop))


# -- bundles --------------------------------------------------------------------------------------------------------


TAMPERING = [
    "GRANT SELECT ON sales.cost TO {bundle}",
    "GRANT DELETE ON sales.revenue TO {bundle}",
    "GRANT SELECT ON sales.revenue TO {bundle} WITH GRANT OPTION",
    "GRANT INSERT (amount) ON sales.revenue TO {bundle}",
]


def _tamper(shop: Warehouse, statement: str, user: str | None) -> None:
    with shop.admin() as admin:
        bundle = sql.Identifier(_bundles(shop)[0])
        if user is not None:
            admin.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(user)))
        admin.execute(sql.SQL(statement).format(bundle=bundle))


@pytest.mark.parametrize(
    "tampering", [*TAMPERING, "REVOKE SELECT ON sales.revenue FROM {bundle}", "DROP OWNED BY {bundle}"]
)
@pytest.mark.parametrize("restarted", [False, True])
def test_a_bundle_that_the_login_changed_is_mended_before_anyone_joins_it(tampering: str, *, restarted: bool) -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as first, shop.engine() as second:
            await issue(first, shop.detail())
            _tamper(shop, tampering, shop.login)
            _, issued = await issue(second if restarted else first, shop.detail())
            assert may(issued, READ)
            assert not may(issued, "SELECT * FROM sales.cost")
            assert not may(issued, "DELETE FROM sales.revenue")
            assert not may(issued, "INSERT INTO sales.revenue (amount) VALUES (1)")
            assert _grantable(shop) == 0

    with warehouse() as shop:
        asyncio.run(run(shop))


def _grantable(shop: Warehouse) -> int:
    with shop.admin() as admin:
        found = admin.execute(
            "SELECT a.privilege_type FROM pg_class, aclexplode(relacl) a"
            " WHERE a.grantee::regrole::text LIKE 'remit%' AND a.is_grantable"
        )
        return len(found.fetchall())


@pytest.mark.parametrize(
    "tampering",
    [
        *TAMPERING[1:],
        "GRANT CREATE ON SCHEMA sales TO {bundle}",
        "GRANT pg_read_all_data TO {bundle}",
        "ALTER ROLE {bundle} LOGIN",
    ],
)
def test_a_bundle_that_an_administrator_changed_is_replaced_inside_the_issuing_transaction(tampering: str) -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            before, _ = await issue(engine, shop.detail())
            _tamper(shop, tampering, None)
            plan, issued = await issue(engine, shop.detail())
            assert len(_bundles(shop)) == 2
            assert may(issued, READ)
            assert not may(issued, "SELECT * FROM sales.cost")
            assert not may(issued, "DELETE FROM sales.revenue")
            assert not may(issued, "INSERT INTO sales.revenue (amount) VALUES (1)")
            assert not may(issued, "CREATE TABLE sales.mine (a int)")
            assert not may(issued, "SELECT * FROM sales.orders")
            await engine.revoke_many([before, plan])
            assert await engine.clean([before, plan]) == {before.name, plan.name}

    with warehouse() as shop:
        asyncio.run(run(shop))


SPOILING = [
    "ALTER DEFAULT PRIVILEGES FOR ROLE {bundle} GRANT SELECT ON TABLES TO PUBLIC",
    "SELECT lo_create(4711); GRANT SELECT ON LARGE OBJECT 4711 TO {bundle}",
    "CREATE TEMP TABLE mine (a int); GRANT SELECT ON mine TO {bundle}",
]


@pytest.mark.parametrize("spoiling", SPOILING)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_lease_cannot_spoil_the_bundle_for_others(spoiling: str, *, elsewhere: bool) -> None:
    async def run(shop: Warehouse, other: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail())
            text = sql.SQL(spoiling).format(bundle=sql.Identifier(_bundles(shop)[0]))
            with psycopg.connect(
                dsn(issued), dbname=(other if elsewhere else shop).name, autocommit=True
            ) as connection:
                for each in text.as_string(connection).split("; "):
                    connection.execute(each.encode())
                later, fresh = await issue(engine, shop.detail())
                assert may(fresh, READ)
                assert not may(fresh, "DELETE FROM sales.revenue")
            assert await engine.revoke_many([plan, later]) == {plan.name, later.name}
            assert await engine.clean([plan, later]) == {plan.name, later.name}
            await engine.clean([])
        assert shop.roles() == set()

    with warehouse() as other, warehouse() as shop:
        asyncio.run(run(shop, other))


def test_a_table_that_took_the_name_of_another_is_not_confused_with_it() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            _, before = await issue(engine, shop.detail())
            with shop.admin() as admin:
                admin.execute("ALTER TABLE sales.revenue RENAME TO old; ALTER TABLE sales.cost RENAME TO revenue")
            _, after = await issue(engine, shop.detail())
            assert may(before, "SELECT * FROM sales.old")
            assert may(after, "SELECT * FROM sales.revenue")
            assert not may(after, "SELECT * FROM sales.old")
            assert len(_bundles(shop)) == 2

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_nothing_of_ours_is_left_when_all_leases_are_cleaned() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plans = [(await issue(engine, shop.detail(actions=[verb])))[0] for verb in ("select", "insert", "update")]
            plans += [(await issue(engine, shop.detail()))[0]]
            assert len(shop.roles()) == 4 + 3 + 1  # leases, bundles, the creator
            await engine.revoke_many(plans[:2])
            await engine.clean(plans[:2])
            assert len(shop.roles()) == 2 + 2 + 1
            await engine.revoke_many(plans[2:])
            await engine.clean(plans[2:])
            assert shop.roles() == set()
            await issue(engine, shop.detail())  # and it goes on

    with warehouse() as shop:
        asyncio.run(run(shop))


# -- several brokers, many leases -----------------------------------------------------------------------------------


def test_two_brokers_issue_revoke_and_clean_beside_each_other() -> None:
    late: list[Plan] = []  # what somebody else's lock kept from being dropped at once

    async def cycle(engine: PostgresEngine, shop: Warehouse, verb: str) -> int:
        done = 0
        for _ in range(15):
            plan, issued = await issue(engine, shop.detail(actions=[verb]))
            done += may(issued, "SELECT 1")
            await engine.revoke(plan, None)
            late.extend([plan] if plan.name not in await engine.clean([plan]) else [])
        return done

    async def run(shop: Warehouse) -> None:
        async with shop.engine() as one, shop.engine() as two:
            done = await asyncio.gather(
                cycle(one, shop, "select"), cycle(two, shop, "select"), cycle(one, shop, "insert")
            )
            assert list(done) == [15, 15, 15]
            assert await one.clean(late) == {plan.name for plan in late}
            await two.clean([])
        assert shop.roles() == set()

    with warehouse() as shop:
        asyncio.run(run(shop))


@pytest.mark.slow
def test_three_thousand_leases_live_on_one_table() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine(scram_iterations=1) as engine:
            made = await asyncio.gather(*(issue(engine, shop.detail()) for _ in range(3_000)))
            assert len([role for role in shop.roles() if role.startswith("remit_lse_")]) == 3_000
            assert may(made[-1][1], READ)
            plans = [plan for plan, _ in made]
            assert len(await engine.revoke_many(plans)) == 3_000
            assert not may(made[0][1], READ)
            assert len(await engine.clean(plans)) == 3_000
        assert shop.roles() == set()

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_one_bad_lease_in_a_batch_fails_alone() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            taken, _ = await issue(engine, shop.detail())
            fresh = [planned(engine, shop.detail()) for _ in range(5)]
            done = await asyncio.gather(
                *(engine.issue(plan, now() + LIFE) for plan in [*fresh[:2], taken, *fresh[2:]]), return_exceptions=True
            )
            assert [isinstance(each, EngineError) for each in done] == [False, False, True, False, False, False]
            assert {plan.name for plan in fresh} <= shop.roles()

    with warehouse() as shop:
        asyncio.run(run(shop))


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"tables": ["sales.nothing"]}, "there is no table `sales.nothing`"),
        ({"columns": {"sales.revenue": ["nothing"]}}, "`sales.revenue` has no column `nothing`"),
        ({"tables": ["sales.orders"]}, "the database refused"),
        ({"tables": ["pg_catalog.pg_authid"]}, "the database refused"),
    ],
)
def test_what_cannot_be_granted_is_refused_and_leaves_nothing(fields: dict[str, object], text: str) -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            with pytest.raises(EngineRefusedError) as refused:
                await issue(engine, shop.detail(**fields))
            assert text in refused.value.detail
        assert shop.roles() == set()

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_a_plan_for_another_destination_is_never_taken_for_revoked() -> None:
    async def run(shop: Warehouse, other: Warehouse) -> None:
        async with shop.engine() as engine, other.engine() as wrong:
            plan, issued = await issue(engine, shop.detail())
            with pytest.raises(EngineRefusedError):
                await wrong.revoke(plan, None)
            assert await wrong.revoke_many([plan]) == frozenset()
            assert await wrong.clean([plan]) == frozenset()
            assert may(issued, READ)

    with warehouse() as shop, warehouse() as other:
        asyncio.run(run(shop, other))


def test_a_wrong_password_is_refused_without_the_drivers_words() -> None:
    async def run(shop: Warehouse) -> None:
        async with Warehouse(shop.server, shop.name, shop.login, "wrong").engine() as engine:
            with pytest.raises(EngineRefusedError) as refused:
                await issue(engine, shop.detail())
            assert shop.login not in str(refused.value)
            assert "password" not in str(refused.value)

    with warehouse() as shop:
        asyncio.run(run(shop))


# -- crashes --------------------------------------------------------------------------------------------------------


def test_a_server_killed_in_the_middle_of_issues_is_an_engine_error_and_leaves_only_what_was_planned() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            await issue(engine, shop.detail())
            plans = [planned(engine, shop.detail()) for _ in range(300)]
            tasks = [asyncio.create_task(engine.issue(plan, now() + LIFE)) for plan in plans]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            shop.server.kill()  # while the loop stands still: nothing more is sent
            done = await asyncio.gather(*tasks, return_exceptions=True)
            shop.server.launch()
            failed = [each for each in done if isinstance(each, BaseException)]
            assert failed
            assert all(isinstance(each, EngineError) for each in failed)
            assert await engine.revoke_many(plans) == {plan.name for plan in plans}
            assert await engine.clean(plans) == {plan.name for plan in plans}
            assert not {plan.name for plan in plans} & shop.roles()

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_issuing_goes_on_after_the_lane_lost_its_connection() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            await issue(engine, shop.detail())
            with shop.admin() as admin:
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (shop.login,)
                )
            done = await asyncio.gather(*(issue(engine, shop.detail()) for _ in range(4)), return_exceptions=True)
            assert all(isinstance(each, EngineError | tuple) for each in done)
            _, issued = await issue(engine, shop.detail())
            assert may(issued, READ)

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_a_lock_that_others_hold_costs_the_deadline_and_no_more() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            await issue(engine, shop.detail())
            with psycopg.connect(shop.server.dsn(shop.name)) as blocker:
                blocker.execute("LOCK pg_catalog.pg_authid IN ACCESS EXCLUSIVE MODE")
                plan = planned(engine, shop.detail(), window=WINDOW / 40)
                with pytest.raises(EngineError):
                    await engine.issue(plan, now() + LIFE)
                assert now() < plan.issue_by + WINDOW / 10
            assert plan.name not in shop.roles()

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_a_credential_names_its_parts_and_hides_what_is_secret() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail())
            shown = {name: str(value) for name, value in issued.credential.items()}
            assert shown == {
                "host": "127.0.0.1",
                "port": str(shop.server.port),
                "dbname": shop.name,
                "user": plan.name,
                "password": "Secret(…)",
                "dsn": "Secret(…)",
            }
            with psycopg.connect(dsn(issued)) as connection:
                assert connection.execute("SHOW search_path").fetchone() == ("pg_catalog",)

    with warehouse() as shop:
        asyncio.run(run(shop))
