"""Resources and their sealed secrets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

import pytest

from remit.broker.resources import ResourceRegistry, associated
from remit.broker.tasks import TaskCache
from remit.core.secret import Secret
from remit.errors import ConflictError, EngineError, InvalidRequestError, NotFoundError
from remit.kinds import http
from remit.ports import Engine, Finding, Resource, SealedSecret
from remit.ports.kind import EngineContext, Kind
from tests.broker.world import (
    OPERATOR,
    SEARCH,
    TABLE,
    ClearSealer,
    FullEngine,
    PlainEngine,
    World,
    details,
    run,
    search,
    warehouse,
)
from tests.support.kinds import NOTHING_LENT, held, simulated
from tests.support.memory_store import MemoryStore

Check = Callable[[Resource, Secret | None, EngineContext], None]


def cache(world: World) -> TaskCache:
    return TaskCache(world.store, lambda: world.now)


def registry(world: World, engine: type[PlainEngine] = FullEngine, check: Check | None = None) -> ResourceRegistry:
    def factory(_: Resource, __: Secret | None) -> Engine:
        return engine(world.target)

    kinds = dict(simulated(factory))
    if check is not None:
        kinds["http"] = replace(kinds["http"], check=check)
    return over(world, kinds)


def over(world: World, kinds: Mapping[str, Kind]) -> ResourceRegistry:
    return ResourceRegistry(
        cache(world), ClearSealer(), kinds, NOTHING_LENT, held(kinds), asyncio.wait_for, lambda prefix: prefix
    )


def test_no_resource_has_the_name_of_the_endpoint_of_all_mcp_servers(world: World) -> None:
    async def body() -> None:
        kept = registry(world)
        bound = tuple(replace(one, resource="mcp") for one in search().bound)
        with pytest.raises(InvalidRequestError, match="give it another name"):
            await kept.put(OPERATOR, replace(search(), name="mcp", bound=bound), None)
        with pytest.raises(NotFoundError):
            kept.resource("mcp")

    run(body())


def test_a_secret_is_sealed_with_its_name_version_resource_and_destination(world: World) -> None:
    async def body() -> None:
        kept = registry(world)
        await kept.put(OPERATOR, search(), Secret("key-1-0123456789ab"))
        sealed = await world.store.secret("search")
        assert (sealed.name, sealed.version, sealed.resource, sealed.destination) == (
            "search",
            1,
            "search",
            "https://search.test",
        )
        await kept.put(OPERATOR, search(), Secret("key-2-0123456789ab"))
        assert (await world.store.secret("search")).version == 2
        assert (await kept.secret("search")).reveal() == "key-2-0123456789ab"

    run(body())


def test_a_secret_moved_to_another_destination_is_not_opened(world: World) -> None:
    async def body() -> None:
        kept = registry(world)
        await kept.put(OPERATOR, search(), Secret("key-1-0123456789ab"))
        fresh = registry(world)
        await fresh.load()
        fresh._resources["search"] = replace(fresh.resource("search"), destination="https://evil.test")
        with pytest.raises(NotFoundError, match="another destination"):
            await fresh.secret("search")

    run(body())


def test_a_resource_without_a_secret_says_how_to_give_it_one(world: World) -> None:
    async def body() -> None:
        kept = registry(world)
        await kept.put(OPERATOR, search())
        with pytest.raises(NotFoundError) as caught:
            await kept.secret("search")
        assert "secret set" in str(caught.value.help)

    run(body())


@pytest.mark.parametrize("text", ["a\nb", "a\r\nX-Evil: 1", "nul\0", "schlüssel"])
def test_a_secret_that_could_break_a_header_is_refused_when_stored(world: World, text: str) -> None:
    async def body() -> None:
        with pytest.raises(InvalidRequestError, match="printable ASCII"):
            await registry(world, check=http.KIND.check).put(OPERATOR, search(), Secret(text))

    run(body())


@pytest.mark.parametrize("text", ["", "x" * 16_385])
def test_a_secret_of_no_or_too_many_bytes_is_refused(world: World, text: str) -> None:
    async def body() -> None:
        with pytest.raises(InvalidRequestError, match="16384 bytes"):
            await registry(world).put(OPERATOR, search(), Secret(text))

    run(body())


PEM = "-----BEGIN PRIVATE KEY-----\nMIGHAgEA\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    "secret",
    [
        Secret(PEM),
        Secret(b"\x00\xff bytes"),
        Secret("{}"),
        Secret({"user": "ann", "password": "s\nü", "key": b"\x00\xff"}),
    ],
    ids=["PEM", "bytes", "JSON", "parts"],
)
def test_a_secret_of_bytes_or_parts_comes_back_as_it_was(world: World, secret: Secret) -> None:
    async def body() -> None:
        kept = registry(world)
        await kept.put(OPERATOR, warehouse(), secret)
        fresh = registry(world)
        await fresh.load()
        assert await fresh.secret("warehouse") == secret

    run(body())


def test_a_text_is_stored_as_it_always_was(world: World) -> None:
    async def body() -> None:
        await registry(world).put(OPERATOR, search(), Secret("key-1-0123456789ab"))
        sealed = await world.store.secret("search")
        assert ClearSealer().open(sealed.sealed, associated(sealed)) == b"key-1-0123456789ab"

    run(body())


@pytest.mark.parametrize("parts", [{"User": "a"}, {"": "a", "b": "c"}, {f"p{n}": "x" for n in range(17)}, {}])
def test_parts_have_plain_names_and_are_few(world: World, parts: dict[str, str]) -> None:
    async def body() -> None:
        with pytest.raises(InvalidRequestError):
            await registry(world).put(OPERATOR, search(), Secret(parts))

    run(body())


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        (replace(search(), name="Bad Name"), "name"),
        (replace(search(), kind="ldap"), "kind"),
        (replace(search(), bound=()), "bound"),
        (replace(search(), bound=details({**SEARCH, "resource": "other"})), "bound"),
        (replace(search(), bound=details({**TABLE, "resource": "search"})), "bound"),
    ],
)
def test_a_resource_that_makes_no_sense_is_refused(world: World, resource: Resource, message: str) -> None:
    async def body() -> None:
        with pytest.raises(InvalidRequestError, match=message):
            await registry(world).put(OPERATOR, resource, None)

    run(body())


def test_a_resource_does_not_change_its_kind(world: World) -> None:
    async def body() -> None:
        kept = registry(world)
        await kept.put(OPERATOR, search())
        other = replace(search(), kind="postgres", bound=details({**TABLE, "resource": "search"}))
        with pytest.raises(ConflictError):
            await kept.put(OPERATOR, other, None)

    run(body())


def test_settings_change_without_the_secret_being_given_again(world: World) -> None:
    async def body() -> None:
        kept = registry(world)
        await kept.put(OPERATOR, warehouse(), Secret("pw"))
        await kept.put(OPERATOR, warehouse(tls="loopback"))
        assert (await kept.secret("warehouse")).reveal() == "pw"
        assert kept.resource("warehouse").settings == {"tls": "loopback"}

    run(body())


def test_an_engine_is_made_once_and_closed_with_its_resource(world: World) -> None:
    async def body() -> None:
        kept = registry(world)
        await kept.put(OPERATOR, warehouse())
        first = await kept.engine("warehouse", "postgres")
        assert await kept.engine("warehouse", "postgres") is first
        closed = world.target.closed
        world.target.fail, world.target.error = {"close"}, EngineError()
        await kept.close()
        assert world.target.closed == closed + 1

    run(body())


def test_an_engine_without_inspection_or_connections_is_fine(world: World) -> None:
    async def body() -> None:
        kept = registry(world, PlainEngine)
        await kept.put(OPERATOR, warehouse(), Secret("pw"))
        await kept.engine("warehouse", "postgres")
        await kept.close()

    run(body())


def test_looking_at_a_resource_tells_what_is_wrong_now_but_not_what_was_accepted(world: World) -> None:
    async def body() -> None:
        kept = registry(world)
        await kept.put(OPERATOR, warehouse(accept=["public-temp"]), Secret("pw"))
        superuser = Finding("login-superuser", "the login is a superuser", acceptable=False)
        world.target.findings = [Finding("public-temp", "everybody may", acceptable=True), superuser]
        assert await kept.findings("warehouse") == [superuser]

    run(body())


def test_what_was_accepted_and_is_loud_is_told_of_for_as_long_as_it_stands(world: World) -> None:
    async def body() -> None:
        kept = registry(world)
        trust = Finding("trust", "anybody gets in", acceptable=True, loud=True)
        world.target.findings = [trust]
        with pytest.raises(ConflictError) as refused:
            await kept.put(OPERATOR, warehouse(), Secret("pw"))
        assert refused.value.help == "fix it, or accept by name: trust"
        await kept.put(OPERATOR, warehouse(accept=["trust"]), Secret("pw"))
        assert await kept.findings("warehouse") == [replace(trust, accepted=True)]
        world.target.findings = []
        assert await kept.findings("warehouse") == []

    run(body())


def test_nothing_that_a_target_says_of_itself_is_accepted_by_that(world: World) -> None:
    async def body() -> None:
        kept = registry(world)
        world.target.findings = [Finding("superuser", "it is one", acceptable=False, accepted=True)]
        with pytest.raises(ConflictError):
            await kept.put(OPERATOR, warehouse(accept=["superuser"]), Secret("pw"))

    run(body())


def test_looking_at_a_resource_without_an_engine_contacts_nothing(world: World) -> None:
    async def body() -> None:
        kept = registry(world)
        await kept.put(OPERATOR, search())
        world.target.findings = [Finding("login-superuser", "the login is a superuser", acceptable=False)]
        assert list(await kept.findings("search")) == []

    run(body())


def test_a_lease_kind_must_fit_its_resource(world: World) -> None:
    async def body() -> None:
        kept = registry(world)
        await kept.put(OPERATOR, search())
        with pytest.raises(InvalidRequestError):
            await kept.engine("search", "http")
        with pytest.raises(NotFoundError, match="no resource `nowhere`"):
            await kept.engine("nowhere", "postgres")

    run(body())


def test_a_kinds_own_check_can_refuse_a_resource(world: World) -> None:
    def check(resource: Resource, _: Secret | None, __: EngineContext) -> None:
        raise InvalidRequestError(f"`{resource.name}` can never work")

    async def body() -> None:
        kinds = simulated()
        kinds = {**kinds, "http": replace(kinds["http"], check=check)}
        kept = over(world, kinds)
        await kept.put(OPERATOR, warehouse(), None)
        with pytest.raises(InvalidRequestError, match="never work"):
            await kept.put(OPERATOR, search(), None)

    run(body())


class SlowStore(MemoryStore):
    """A store in which something happens while a secret is read."""

    happening: Callable[[], Awaitable[None]] | None = None

    async def secret(self, name: str) -> SealedSecret:
        found = await super().secret(name)
        happening, self.happening = self.happening, None
        if happening is not None:
            await happening()
        return found


def test_a_secret_read_while_its_resource_moves_is_not_kept_for_the_new_destination(world: World) -> None:
    async def body() -> None:
        world.store = slow = SlowStore()
        kept = registry(world)
        await kept.put(OPERATOR, search(), Secret("key-1-0123456789ab"))
        moved = replace(search(), destination="https://elsewhere.test")
        slow.happening = lambda: kept.put(OPERATOR, moved, Secret("key-2-0123456789ab"))
        with pytest.raises(ConflictError):
            await kept.secret("search")
        assert (await kept.secret("search")).reveal() == "key-2-0123456789ab"

    run(body())


def test_uses_that_open_a_secret_together_get_the_same(world: World) -> None:
    async def body() -> None:
        world.store = slow = SlowStore()
        kept = registry(world)
        await kept.put(OPERATOR, search(), Secret("key-1-0123456789ab"))
        first: list[Secret] = []

        async def meanwhile() -> None:
            first.append(await kept.secret("search"))

        slow.happening = meanwhile
        assert await kept.secret("search") is first[0]

    run(body())


def test_a_kind_that_plans_nothing_issues_no_leases(world: World) -> None:
    async def body() -> None:
        kinds = simulated(lambda _resource, _secret: FullEngine(world.target))
        kept = over(world, {**kinds, "postgres": replace(kinds["postgres"], plan=None)})
        with pytest.raises(InvalidRequestError, match="kind `postgres` issues no leases"):
            await kept.put(OPERATOR, warehouse(), None)
        assert kept.resources() == []

    run(body())
