"""Class STO: what a stolen, edited or loosely kept state gives away."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import sqlite3
import stat
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from examples.demo import canary
from remit.broker import Broker
from remit.broker.resources import associated
from remit.core.audit import checkpoint, public_bytes
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import Access, Detail
from remit.core.secret import Secret
from remit.core.task import Plan
from remit.core.tree import EMPTY_ROOT
from remit.errors import IntegrityError
from remit.keys.file import FileSealer, load_kek
from remit.keys.signers import FileKeyring
from remit.keys.witness import FileWitness
from remit.ports import Issued, Resource, SealedSecret
from remit.stores.sqlite import SqliteStore
from tests.broker.world import OPERATOR, START, FullEngine, Target, details, search, warehouse
from tests.support.kinds import serving
from tests.uses import permitted_use

TABLE = {"type": "postgres", "resource": "warehouse", "actions": ["select"], "tables": ["sales.revenue"], "ttl": 600}
HTTP = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any", "uses": 10_000}
SEARCH = Access("search", "GET", "/v1/search")


class Minting(FullEngine):
    """An engine whose every credential is a canary."""

    async def issue(self, plan: Plan, _expires_at: object) -> Issued:
        MINTED[plan.name] = f"crd_{len(MINTED)}_Zq9/x+81Lm3vQ"
        return Issued({"user": plan.name, "password": Secret(MINTED[plan.name])})


MINTED: dict[str, str] = {}  # name at the target -> password


def named(name: str) -> Resource:
    """Return the HTTP resource under another name."""
    return replace(search(), name=name, bound=tuple(replace(detail, resource=name) for detail in search().bound))


def broker_on(store: SqliteStore, sealer: FileSealer) -> Broker:
    """Return a broker on a real store under a real key, with a target in memory."""
    ids = itertools.count()
    return Broker(
        store=store,
        **serving(lambda _resource, _secret: Minting(Target())),
        sealer=sealer,
        clock=lambda: START,
        new_id=lambda prefix: f"{prefix}_{next(ids)}",
    )


async def work(broker: Broker, static: Mapping[str, str]) -> None:
    """Store every static secret, issue fifty credentials, and use the gateway's way a thousand times."""
    await broker.start()
    for name, value in static.items():
        await broker.put_resource(OPERATOR, named(name), Secret(value[::-1]))
        await broker.put_secret(OPERATOR, name, Secret(value))
    await broker.put_resource(OPERATOR, search(), Secret(static["canary-0"]))
    await broker.put_resource(OPERATOR, warehouse(), Secret(static["canary-1"]))
    wanted = GrantRequest(details(TABLE, HTTP), Bounds(timedelta(minutes=15), depth=1, fan_out=1))
    grant = (await broker.open(OPERATOR, replace(wanted, purpose="draft the CFO summary"))).grant
    detail: Detail = grant.scope[0]
    for number in range(50):
        await broker.issue(OPERATOR, grant.id, detail, f"key-{number}")
    await asyncio.gather(*(permitted_use(broker, grant.id, SEARCH, f"req_{number}") for number in range(1_000)))
    for name in list(static)[40:]:
        await broker.delete_resource(OPERATOR, name)


@pytest.mark.attack("STO-01")
def test_a_stolen_state_holds_no_secret_in_any_encoding(tmp_path: Path) -> None:
    static = {f"canary-{number}": f"sk_{number}_Kq9.Zx/81Lm+3vQ{number * 7919:x}" for number in range(50)}
    MINTED.clear()
    copies: dict[str, bytes] = {}

    async def steal() -> None:
        sealer = FileSealer(load_kek(tmp_path / "kek", create=True))
        store = SqliteStore(tmp_path / "state", sealer)
        broker = broker_on(store, sealer)
        await work(broker, static)
        copies.update({path.name: path.read_bytes() for path in (tmp_path / "state").iterdir()})
        reader = sqlite3.connect(tmp_path / "state" / "remit.db")
        reader.execute("VACUUM INTO ?", (str(tmp_path / "vacuum.db"),))
        with sqlite3.connect(tmp_path / "backup.db") as backup:
            reader.backup(backup)
        reader.close()
        backup.close()
        await broker.stop()
        copies["closed.db"] = (tmp_path / "state" / "remit.db").read_bytes()

    asyncio.run(steal())
    copies |= {name: (tmp_path / name).read_bytes() for name in ("vacuum.db", "backup.db")}
    assert {"remit.db", "remit.db-wal", "remit.db-shm", "vacuum.db", "backup.db", "closed.db"} <= copies.keys()
    assert len(MINTED) == 50
    assert canary.leaked(static | MINTED, copies.values()) == {}
    assert canary.leaked(static | MINTED, [b" ".join(map(str.encode, MINTED.values()))]) == dict.fromkeys(MINTED, 1)
    assert not any(re.search(rb"eyJ[A-Za-z0-9_-]{10,}\.", content) for content in copies.values())


@pytest.mark.attack("STO-01")
def test_a_stolen_state_tells_neither_what_a_task_is_for_nor_what_it_may_do(tmp_path: Path) -> None:
    word = "canary-7f3a91"

    async def steal() -> None:
        sealer = FileSealer(load_kek(tmp_path / "kek", create=True))
        broker = broker_on(SqliteStore(tmp_path / "state", sealer), sealer)
        await broker.start()
        await broker.put_resource(OPERATOR, search(), Secret("sk-0123456789abcdefg"))
        await broker.put_resource(OPERATOR, warehouse(), Secret("admin-pw-0123456789"))
        asked = GrantRequest(
            details({**HTTP, "paths": [f"/v1/{word}"]}, TABLE), Bounds(timedelta(minutes=15), depth=1, fan_out=2)
        )
        root = (await broker.open(OPERATOR, replace(asked, purpose=word))).grant
        child = replace(asked, bounds=Bounds(timedelta(minutes=5)), label=word)
        await broker.delegate(OPERATOR, root.id, child)
        await broker.issue(OPERATOR, root.id, root.scope[1])
        wider = replace(child, scope=details({**HTTP, "paths": ["/v1/**"]}), label=word)
        await broker.ask(OPERATOR, root.id, wider)
        await broker.close(OPERATOR, broker._tasks.task_of(root.id).id)
        found = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
        await broker.stop()
        found += b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
        assert word.encode() not in found
        assert root.id.encode() in found  # the audit log is to be read

    asyncio.run(steal())


BLANK = SealedSecret("search", 1, "search", "https://search.test", b"")
ELSEWHERE = {
    "another name": replace(BLANK, name="mail"),
    "another version": replace(BLANK, version=2),
    "another resource": replace(BLANK, resource="mail"),
    "another destination": replace(BLANK, destination="https://evil.test"),
    "name and resource run together": replace(BLANK, name="search1", version=1),
}


@pytest.mark.attack("STO-02")
@pytest.mark.parametrize("where", ELSEWHERE)
def test_a_sealed_secret_opens_nowhere_but_where_it_was_sealed(where: str) -> None:
    sealer = FileSealer(b"k" * 32)
    sealed = sealer.seal(b"static", associated(BLANK))
    assert sealer.open(sealed, associated(BLANK)) == b"static"
    with pytest.raises(IntegrityError):
        sealer.open(sealed, associated(ELSEWHERE[where]))


SWAPS = {
    "between two names": "SET sealed = (SELECT sealed FROM secrets WHERE name = 'mail')",
    "old over new": "SET sealed = (SELECT sealed FROM old.secrets WHERE name = 'search')",
    "old row over new": "SET (sealed, version, tag) = (SELECT sealed, 1, tag FROM old.secrets WHERE name = 'search')",
    "version alone": "SET version = 1",
    "destination alone": "SET destination = 'https://evil.test'",
}


@pytest.mark.attack("STO-02")
@pytest.mark.parametrize("swap", SWAPS)
def test_a_state_with_a_swapped_ciphertext_is_not_served(tmp_path: Path, swap: str) -> None:
    sealer = FileSealer(b"k" * 32)

    async def put(*values: str) -> None:
        broker = broker_on(SqliteStore(tmp_path / "state", sealer), sealer)
        await broker.start()
        for value in values:
            await broker.put_resource(OPERATOR, search(), Secret(value))
            await broker.put_resource(OPERATOR, named("mail"), Secret(value))
        await broker.stop()

    asyncio.run(put("one-0123456789ab"))
    shutil.copy(tmp_path / "state" / "remit.db", tmp_path / "old.db")
    asyncio.run(put("two-0123456789ab"))
    thief = sqlite3.connect(tmp_path / "state" / "remit.db", isolation_level=None)
    thief.execute("ATTACH ? AS old", (str(tmp_path / "old.db"),))
    assert thief.execute(f"UPDATE secrets {SWAPS[swap]} WHERE name = 'search'").rowcount == 1
    thief.close()
    with pytest.raises(IntegrityError):
        asyncio.run(put())


@pytest.mark.slow
@pytest.mark.attack("STO-02")
def test_no_nonce_repeats_in_a_million_seals() -> None:
    sealer = FileSealer(b"k" * 32)
    assert len({sealer.seal(b"", b"")[1:13] for _ in range(1_000_000)}) == 1_000_000


@pytest.mark.attack("STO-03")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_everything_made_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    state, second = tmp_path / "state", tmp_path / "second"
    second.mkdir(mode=0o700)
    seen: dict[str, int] = {}

    def look() -> None:
        for path in (state, *state.rglob("*"), *second.rglob("*")):
            seen[path.relative_to(tmp_path).as_posix()] = stat.S_IMODE(path.stat().st_mode)

    async def first_start() -> None:
        state.mkdir(mode=0o700)
        sealer = FileSealer(load_kek(state / "kek", create=True))
        store = SqliteStore(state, sealer)
        ring = FileKeyring(state / "keys", sealer, "audit", "Ed25519")
        FileKeyring(state / "keys", sealer, "token", "ES256").rotate()
        broker = broker_on(store, sealer)
        await work(broker, {"canary-0": "sk_0_Kq9Zx81Lm3vQ", "canary-1": "sk_1_Kq9Zx81Lm3vQ"})
        look()
        store._writer.connection.execute("PRAGMA wal_checkpoint(RESTART)")
        note = checkpoint("log", 0, EMPTY_ROOT, ring.signer)
        FileWitness(second, "log", [public_bytes(ring.signer.public_jwk())]).keep(note)
        look()
        await broker.stop()
        look()

    before = os.umask(umask)
    try:
        asyncio.run(first_start())
    finally:
        os.umask(before)
    directories = {"state", "state/keys"}
    assert {
        "state/remit.db",
        "state/remit.db-wal",
        "state/remit.db-shm",
        "state/kek",
        "second/checkpoint",
    } <= seen.keys()
    assert {name: mode for name, mode in seen.items() if mode != (0o700 if name in directories else 0o600)} == {}


@pytest.mark.attack("STO-03")
def test_a_state_restored_with_loose_modes_is_not_served(tmp_path: Path) -> None:
    sealer = FileSealer(b"k" * 32)
    asyncio.run(SqliteStore(tmp_path / "state", sealer).close())
    content = (tmp_path / "state" / "remit.db").read_bytes()
    (tmp_path / "state" / "remit.db").unlink()
    (tmp_path / "state" / "remit.db").write_bytes(content)
    (tmp_path / "state" / "remit.db").chmod(0o644)
    with pytest.raises(IntegrityError, match="others may open the state"):
        SqliteStore(tmp_path / "state", sealer)
