"""What a lease's holder can do, within the database, against the end of the lease and against other leases."""

from __future__ import annotations

import asyncio
import multiprocessing
from contextlib import suppress
from multiprocessing.synchronize import Event

import psycopg
import pytest
from psycopg import sql

from remit.core.secret import Secret
from tests.live.warehouse import Warehouse, dsn, issue, may, now, warehouse

pytestmark = pytest.mark.live


def test_an_open_transaction_that_changed_the_role_does_not_hold_up_the_revoke() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail())
            with suppress(psycopg.OperationalError), psycopg.connect(dsn(issued)) as holder:
                holder.execute(sql.SQL("ALTER ROLE {} PASSWORD 'mine'").format(sql.Identifier(plan.name)))
                started = now()
                await engine.revoke(plan, None)
                assert (now() - started).total_seconds() < 2
                assert shop.sessions(plan.name) == 0
            assert not may(issued, "SELECT 1")

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_one_lease_that_resists_does_not_hold_up_two_hundred_others() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            made = await asyncio.gather(*(issue(engine, shop.detail()) for _ in range(200)))
            plan, issued = made[99]
            with suppress(psycopg.OperationalError), psycopg.connect(dsn(issued)) as holder:
                holder.execute(sql.SQL("ALTER ROLE {} PASSWORD 'mine'").format(sql.Identifier(plan.name)))
                started = now()
                names = {each.name for each, _ in made}
                assert await engine.revoke_many([each for each, _ in made]) == names
                assert (now() - started).total_seconds() < 3

    with warehouse() as shop:
        asyncio.run(run(shop))


def _change_password(dsn_: str, role: str, password: str, ready: Event, stop: Event) -> None:
    """Set one's own password again and again, over as many sessions as it takes."""
    text = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
    while not stop.is_set():
        try:
            with psycopg.connect(dsn_, autocommit=True) as connection:
                ready.set()
                while not stop.is_set():
                    connection.execute(text)
        except psycopg.Error:
            continue


@pytest.mark.slow
def test_a_role_that_changes_itself_without_pause_is_revoked() -> None:
    spawn = multiprocessing.get_context("spawn")

    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail())
            stop = spawn.Event()
            readies = [spawn.Event() for _ in range(3)]
            password = issued.credential["password"]
            assert isinstance(password, Secret)
            args = [(dsn(issued), plan.name, password.reveal(), ready, stop) for ready in readies]
            hostile = [spawn.Process(target=_change_password, args=each, daemon=True) for each in args]
            for process in hostile:
                process.start()
            try:
                for ready in readies:
                    assert ready.wait(30)
                started = now()
                await engine.revoke(plan, None)
                assert (now() - started).total_seconds() < 5
                assert shop.sessions(plan.name) == 0
            finally:
                stop.set()
                for process in hostile:
                    process.join(10)

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_a_lease_that_takes_every_advisory_lock_it_sees_stops_nobody() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine, shop.engine() as second:
            _, issued = await issue(engine, shop.detail())
            with psycopg.connect(dsn(issued), autocommit=True) as holder:
                holder.execute("SELECT pg_advisory_lock(x'72656d69'::int, 0)")
                holder.execute(
                    "SELECT pg_try_advisory_lock(classid::int, objid::int) FROM pg_locks WHERE locktype = 'advisory'"
                )
                started = now()
                plans = [(await issue(each, shop.detail()))[0] for each in (engine, second)]
                plans.append((await issue(second, shop.detail(actions=["insert"])))[0])
                assert await engine.revoke_many(plans) == {plan.name for plan in plans}
                assert await engine.clean(plans) == {plan.name for plan in plans}
                assert (now() - started).total_seconds() < 5

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_a_lease_that_locks_the_roles_of_others_leaves_them_as_residue_at_most() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            made = await asyncio.gather(*(issue(engine, shop.detail(actions=["insert"])) for _ in range(50)))
            hostile, issued = await issue(engine, shop.detail())
            plans = [plan for plan, _ in made]
            victims = [plan.name for plan in plans[10:12]]
            bundles = [role for role in shop.roles() if role.startswith("remit_b_")]
            with psycopg.connect(dsn(issued)) as holder:
                holder.execute("SELECT lo_create(4711)")
                for role in [*victims, *bundles]:
                    holder.execute(sql.SQL("GRANT SELECT ON LARGE OBJECT 4711 TO {}").format(sql.Identifier(role)))
                assert await engine.revoke_many(plans) == {plan.name for plan in plans}
                started = now()
                assert await engine.clean(plans) == {plan.name for plan in plans} - set(victims)
                assert (now() - started).total_seconds() < 4
                _, fresh = await issue(engine, shop.detail(actions=["insert"]))
                assert may(fresh, "INSERT INTO sales.revenue VALUES ('x')")
                holder.commit()
            assert set(victims) <= shop.roles()
            await engine.revoke(hostile, None)
            assert await engine.clean([hostile, *plans[10:12]]) == {hostile.name, *victims}

    with warehouse() as shop:
        asyncio.run(run(shop))
