"""What leases leave behind on a real server is cleaned, or is residue that holds up nobody."""

from __future__ import annotations

import asyncio

import pytest
from psycopg import sql

from remit.errors import EngineError
from tests.live.warehouse import Warehouse, issue, may, warehouse

pytestmark = pytest.mark.live

# -- cleaning -------------------------------------------------------------------------------------------------------


def test_a_role_that_owns_something_in_another_database_is_residue_and_holds_up_nobody() -> None:
    async def run(shop: Warehouse, other: Warehouse) -> None:
        async with shop.engine() as engine:
            made = await asyncio.gather(*(issue(engine, shop.detail()) for _ in range(200)))
            plans = [plan for plan, _ in made]
            poisoned = plans[77]
            with other.admin() as admin:
                role = sql.Identifier(poisoned.name)
                admin.execute(
                    sql.SQL("CREATE TABLE public.mine (a int); ALTER TABLE public.mine OWNER TO {}").format(role)
                )
                login = sql.Identifier(other.name)
                admin.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(login))
            names = {plan.name for plan in plans}
            assert await engine.revoke_many(plans) == names
            assert await engine.clean(plans) == names - {poisoned.name}
            assert not may(made[77][1], "SELECT 1")
            with other.admin() as admin:
                admin.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO PUBLIC").format(sql.Identifier(other.name)))
            assert await engine.clean([poisoned]) == {poisoned.name}
            with other.admin() as admin:
                assert admin.execute("SELECT to_regclass('public.mine')").fetchone() == (None,)
        assert shop.roles() == set()

    with warehouse() as other, warehouse() as shop:
        asyncio.run(run(shop, other))


def test_what_a_lease_made_is_dropped_with_it() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail())
            assert may(issued, "SELECT lo_create(0)")  # PostgreSQL lets everybody
            with shop.admin() as admin:
                assert len(admin.execute("SELECT FROM pg_largeobject_metadata").fetchall()) == 1
            await engine.revoke(plan, None)
            assert await engine.clean([plan]) == {plan.name}
            with shop.admin() as admin:
                assert admin.execute("SELECT FROM pg_largeobject_metadata").fetchall() == []
        assert shop.roles() == set()

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_what_others_built_upon_is_left_standing_as_residue() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, _ = await issue(engine, shop.detail())
            await engine.revoke(plan, None)
            with shop.admin() as admin:
                role = sql.Identifier(plan.name)
                admin.execute("CREATE TABLE sales.made (a int); CREATE VIEW sales.over AS SELECT * FROM sales.made")
                admin.execute(sql.SQL("ALTER TABLE sales.made OWNER TO {}").format(role))
            assert await engine.clean([plan]) == frozenset()
            with shop.admin() as admin:
                admin.execute("SELECT * FROM sales.over")
                admin.execute("DROP VIEW sales.over")
            assert await engine.clean([plan]) == {plan.name}

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_a_role_that_the_login_may_not_touch_does_not_hold_up_the_others() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            made = [await issue(engine, shop.detail()) for _ in range(5)]
            plans = [plan for plan, _ in made]
            stranger = plans[2]
            with shop.admin() as admin:
                role = sql.Identifier(stranger.name)
                admin.execute(sql.SQL("ALTER ROLE {} SUPERUSER").format(role))
            names = {plan.name for plan in plans}
            assert await engine.revoke_many(plans) == names - {stranger.name}
            assert [may(issued, "SELECT 1") for _, issued in made] == [False, False, True, False, False]
            with pytest.raises(EngineError):
                await engine.revoke(stranger, None)
            assert await engine.clean(plans) == names - {stranger.name}
            with shop.admin() as admin:
                admin.execute(sql.SQL("ALTER ROLE {} NOSUPERUSER").format(role))
            assert await engine.revoke_many(plans) == names
            assert await engine.clean(plans) == names

    with warehouse() as shop:
        asyncio.run(run(shop))
