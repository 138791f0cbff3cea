"""Class AUD: what somebody with the log, or with a say in what is logged, can do to it."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from examples.demo import canary
from remit.broker import Broker
from remit.compose import wiring
from remit.config.settings import Places, read
from remit.core import audit
from remit.core.audit import Checkpoint, Entry, Event, checkpoint, public_bytes
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.errors import IntegrityError, RemitError, ScopeError
from remit.keys.file import FileSealer
from remit.keys.signers import FileKeyring
from remit.keys.witness import FileWitness, WitnessThread
from remit.stores.sqlite import SqliteStore
from tests.broker.world import OPERATOR, START, FullEngine, Target, details, search, warehouse
from tests.support.kinds import serving
from tests.support.memory_store import MemoryStore
from tests.uses import permitted_use

ORIGIN = "remit.test/log"
SEALER = FileSealer(b"k" * 32)
TABLE = {"type": "postgres", "resource": "warehouse", "actions": ["select"], "tables": ["sales.revenue"], "ttl": 600}
HTTP = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any", "uses": 10_000}


class House:
    """A state with a broker on it, and a second place that keeps checkpoints."""

    def __init__(self, place: Path) -> None:
        self.state, self.second = place / "state", place / "second"
        self.second.mkdir()
        self.ring = FileKeyring(place / "keys", SEALER, "audit", "Ed25519")
        publics = [public_bytes(jwk) for jwk in self.ring.public_jwks()]
        self.witness = FileWitness(self.second, ORIGIN, publics)

    def broker(self, store: SqliteStore | MemoryStore) -> Broker:
        ids = itertools.count()
        return Broker(
            store=store,
            **serving(lambda _resource, _secret: FullEngine(Target())),
            sealer=SEALER,
            clock=lambda: START,
            new_id=lambda prefix: f"{prefix}_{next(ids)}",
            witness=WitnessThread(
                self.witness, lambda size, root, epoch: checkpoint(ORIGIN, size, root, self.ring.signer, epoch)
            ),
        )

    async def witnessed(self, store: SqliteStore) -> Checkpoint:
        note = checkpoint(ORIGIN, *await store.root(), self.ring.signer)
        self.witness.keep(note)
        return note

    def log(self) -> list[Entry]:
        """Read the entries as an auditor does, with plain SQL and no key."""
        reader = sqlite3.connect(self.state / "remit.db")
        found = reader.execute("SELECT seq, leaf FROM entries ORDER BY seq").fetchall()
        reader.close()
        return [Entry(seq, leaf.encode()) for seq, leaf in found]

    def edit(self, *statements: str) -> None:
        thief = sqlite3.connect(self.state / "remit.db", isolation_level=None)
        for statement in statements:
            assert thief.execute(statement).rowcount, statement
        thief.close()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def thousand(house: House) -> Checkpoint:
    """Record a thousand events, with a copy of the state half way and a checkpoint in the second place at the end."""
    store = SqliteStore(house.state, SEALER)
    for half in range(2):
        await asyncio.gather(
            *(store.commit([], [Event("resource.use", START, "allow", request=f"{half}.{n}")]) for n in range(500))
        )
        if not half:
            await store.close()
            shutil.copy(house.state / "remit.db", house.state / "older.db")
            store = SqliteStore(house.state, SEALER)
    note = await house.witnessed(store)
    await store.close()
    return note


CUTS = {
    "the last one": (["DELETE FROM entries WHERE seq >= 999"], "holds 999 entries, but a checkpoint was kept of 1000"),
    "the last hundred": (["DELETE FROM entries WHERE seq >= 900"], "holds 900 entries"),
    "all": (["DELETE FROM entries"], "holds 0 entries"),
    "some in the middle": (["DELETE FROM entries WHERE seq BETWEEN 256 AND 511"], "entry 256 is missing"),
    "the first": (["DELETE FROM entries WHERE seq = 0"], "entry 0 is missing"),
    "one, and the others moved up": (
        ["DELETE FROM entries WHERE seq = 7", "UPDATE entries SET seq = seq - 1 WHERE seq > 7"],
        "entry 7 is not in canonical form",
    ),
    "one, and the last in its place": (
        ["DELETE FROM entries WHERE seq = 7", "UPDATE entries SET seq = 7 WHERE seq = 999"],
        "entry 7 is not in canonical form",
    ),
    "what one says": (
        ["UPDATE entries SET leaf = replace(leaf, 'allow', 'deny') WHERE seq = 7"],
        "the first 1000 entries of the log are not those",
    ),
}


@pytest.mark.attack("AUD-01")
@pytest.mark.parametrize("cut", CUTS)
def test_an_auditor_with_the_checkpoint_sees_what_was_cut(house: House, cut: str) -> None:
    note = asyncio.run(thousand(house))
    audit.verify(house.log(), [note])
    statements, said = CUTS[cut]
    house.edit(*statements)
    with pytest.raises(IntegrityError, match=said):
        audit.verify(house.log(), [note])


@pytest.mark.attack("AUD-01")
@pytest.mark.parametrize("cut", CUTS)
def test_a_broker_does_not_open_a_log_that_was_cut(house: House, cut: str) -> None:
    asyncio.run(thousand(house))
    house.edit(*CUTS[cut][0])

    async def read_all() -> None:
        store = SqliteStore(house.state, SEALER)
        try:
            audit.verify(await store.entries(0, 2_000))
        finally:
            await store.close()

    with pytest.raises(IntegrityError):
        asyncio.run(read_all())


@pytest.mark.attack("AUD-01")
def test_an_older_copy_in_place_of_the_state_is_seen_in_the_second_place(house: House) -> None:
    note = asyncio.run(thousand(house))
    (house.state / "older.db").replace(house.state / "remit.db")
    audit.verify(house.log())  # by itself it is a perfect log
    with pytest.raises(IntegrityError, match="holds 500 entries, but a checkpoint was kept of 1000"):
        audit.verify(house.log(), [note])


@pytest.mark.attack("AUD-01")
def test_a_broker_on_an_older_copy_ends_every_task_and_serves_nothing(house: House) -> None:
    wanted = GrantRequest(details(TABLE, HTTP), Bounds(timedelta(minutes=15), depth=1, fan_out=1))

    async def live() -> tuple[str, str]:
        store = SqliteStore(house.state, SEALER)
        broker = house.broker(store)
        await broker.start()
        await broker.put_resource(OPERATOR, warehouse(), Secret("one"))
        await broker.put_resource(OPERATOR, search(), Secret("two-0123456789ab"))
        grant = (await broker.open(OPERATOR, replace(wanted, purpose="draft the CFO summary"))).grant
        task = broker._tasks.task_of(grant.id).id
        await store._read(lambda rows: rows.all("head", task))  # a reader that is open does not hide what follows
        await store.close()
        shutil.copy(house.state / "remit.db", house.state / "older.db")
        return grant.id, task

    async def go_on(task: str) -> None:
        store = SqliteStore(house.state, SEALER)
        broker = house.broker(store)
        await broker.start()
        await broker.close(OPERATOR, task)
        await house.witnessed(store)
        await broker.stop()

    async def restored(grant: str, task: str) -> None:
        store = SqliteStore(house.state, SEALER)
        broker = house.broker(store)
        await broker.start()
        assert (await store.load(task)).head.closed
        with pytest.raises(RemitError):
            await permitted_use(broker, grant, Access("search", "GET", "/v1/search"), "req")
        with pytest.raises(IntegrityError, match="rolled back"):
            await broker.open(OPERATOR, replace(wanted, purpose="again"))
        await broker.stop()

    grant, task = asyncio.run(live())
    asyncio.run(go_on(task))
    (house.state / "older.db").replace(house.state / "remit.db")
    asyncio.run(restored(grant, task))


@pytest.mark.attack("AUD-01")
def test_a_log_that_was_rolled_back_does_not_cover_it_up_by_growing(tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    where = Places(tmp_path / "config.toml", tmp_path / "state", tmp_path / "run")
    made = read(where, {"listen": {"api": "off", "gateway": "off"}, "audit": {"witness": str(second)}})

    async def record(count: int, cause: str) -> None:
        house = wiring.build(made)
        store = house.broker._store
        await store.commit([], [Event("task.close", START, "done", cause=cause)] * count)
        try:
            await house.broker.checkpoints.look()
        finally:
            await store.close()

    asyncio.run(record(5, "before"))
    shutil.copy(where.state / "remit.db", tmp_path / "older.db")
    asyncio.run(record(5, "lost"))
    kept = (second / "checkpoint").read_text()
    shutil.copy(tmp_path / "older.db", where.state / "remit.db")
    for count in (1, 4, 50):  # below what was kept, as many, more
        with pytest.raises(IntegrityError):
            asyncio.run(record(count, "after"))
        assert (second / "checkpoint").read_text() == kept


NASTY = [
    '\r\n{"event":"admin_login"}',
    "\x1b[2J\x1b]8;;https://evil.test\x07click\x1b]8;;\x07",
    "a\u2028b\u2029c",
    "\u202egnp.exe",
    "\x00",
    "x" * 1_000_000,
    b"\xff\xfe\xc0\x80".decode("utf-8", "surrogateescape"),
    "%00%0d%0a",
    "</script><img src=x onerror=alert(1)>",
    "=cmd|' /C calc'!A0",
    "{{7*7}}${7*7}",
    '","decision":"allow","x":"',
    "\\",
    "\x7f\x9b31m",
]


def texts() -> Sequence[str]:
    """Return the names of the fields of an event that hold text."""
    return [field.name for field in fields(Event) if field.name not in {"at", "lineage", "attested"}]


@pytest.mark.attack("AUD-02")
@pytest.mark.parametrize("nasty", NASTY, ids=range(len(NASTY)))
def test_one_event_is_one_printable_record_whatever_it_says(house: House, nasty: str) -> None:
    blank: dict[str, Any] = {"event": "resource.use", "at": START, "decision": "deny"}
    events = [Event(**blank | {name: nasty}) for name in texts()]
    events.append(Event("resource.use", START, "deny", lineage=(nasty, nasty)))

    async def record() -> None:
        store = SqliteStore(house.state, SEALER)
        await store.commit([], events)
        await store.close()

    asyncio.run(record())
    entries = house.log()
    audit.verify(entries)
    assert len(entries) == len(events)
    lines = b"\n".join(entry.leaf for entry in entries).split(b"\n")
    assert [json.loads(line)["seq"] for line in lines] == list(range(len(events)))
    assert all(0x20 <= byte < 0x7F for line in lines for byte in line)
    assert max(map(len, lines)) < 5_000
    kept = nasty if len(nasty) <= audit.MAX_TEXT else audit.shorten(nasty)
    told = {"approval", "client", "key", "path", "policy", "posture"}  # where there is something to say
    always = {field.name for field in fields(Event)} - told | {"seq"}
    for name, line in zip(texts(), lines, strict=False):
        assert json.loads(line)[name] == kept
        assert set(json.loads(line)) == always | {name}


@pytest.mark.attack("AUD-04")
def test_no_secret_reaches_the_audit_of_a_run_that_puts_them_everywhere(house: House) -> None:
    static = {"warehouse": "whs_7f1-Kq9.Zx/81Lm+3vQ", "search": "srch_7f1-Kq9.Zx/81Lm+3vQ"}
    body = {"argument": "4111 1111 1111 1111", "token": "tok_Zq9/x+81Lm3vQ.aB"}

    async def run() -> list[bytes]:
        store = MemoryStore()
        broker = house.broker(store)
        await broker.start()
        await broker.put_resource(OPERATOR, warehouse(), Secret(static["warehouse"]))
        await broker.put_resource(OPERATOR, search(), Secret(static["search"]))
        wanted = GrantRequest(details(TABLE, HTTP), Bounds(timedelta(minutes=15), depth=1, fan_out=1))
        grant = (await broker.open(OPERATOR, replace(wanted, purpose="draft the CFO summary"))).grant
        lease = await broker.issue(OPERATOR, grant.id, grant.scope[0], "key")
        args = {f"query.{name}": json.dumps(value) for name, value in body.items()}
        await permitted_use(broker, grant.id, Access("search", "GET", "/v1/search", args=args), "req_1")
        refused = Access("search", "POST", "/v1/search", args=args)
        with pytest.raises(ScopeError):
            await permitted_use(broker, grant.id, refused, "req_2")
        await broker.deny(grant.id, refused, ScopeError(f"`{body['token']}` is not granted"), "req_2")
        await broker.revoke_lease(OPERATOR, lease.lease.id)
        await broker.put_secret(OPERATOR, "search", Secret(static["search"]))
        await broker.close(OPERATOR, broker._tasks.task_of(grant.id).id)
        handed = {name: value.reveal() for name, value in lease.credential.items() if isinstance(value, Secret)}
        static.update(handed)
        return [entry.leaf for entry in await store.entries(0, 1_000)]

    leaves = asyncio.run(run())
    assert len(leaves) >= 8
    assert canary.leaked(static | body, leaves) == {}
