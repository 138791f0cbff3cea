"""What edges keep: found by its name, for its time, never more than there is room for; and a proof passes once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from remit.broker import pending
from remit.broker.pending import OVERHEAD, PendingMemory
from remit.errors import InvalidRequestError, LimitError, ProofError
from remit.jose.proof import MAX_AGE, SKEW, Proof
from remit.ports.pending import AuthorizationCode, PendingKind, PendingStore, Poll

MINUTE = timedelta(minutes=1)
START = datetime(2026, 11, 25, 12, tzinfo=UTC)
NOW = int(START.timestamp())


@dataclass
class Clock:
    """A time that tests turn."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Kept:
    """What is kept of one kind, for a test without a loop of its own."""

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.memory = PendingMemory(self.clock)
        self._store = PendingStore(self.memory, PendingKind.PUSHED, str)

    def keep(
        self, value: str, life: timedelta, name: str | None = None, room: str = "", most: int | None = None
    ) -> str:
        return asyncio.run(self._store.keep(value, life, name, room=room, most=most))

    def find(self, name: str) -> str | None:
        return asyncio.run(self._store.find(name))

    def take(self, name: str) -> str | None:
        return asyncio.run(self._store.take(name))

    def swap(self, name: str, before: str, after: str) -> bool:
        return asyncio.run(self._store.swap(name, before, after))


def test_a_thing_is_found_by_its_name_until_its_time_is_up() -> None:
    kept = Kept()
    name, own = kept.keep("a", MINUTE), kept.keep("b", MINUTE, "own")
    assert (kept.find(name), kept.find(own), own) == ("a", "b", "own")
    assert kept.find("other") is None
    assert (kept.take(name), kept.take(name)) == ("a", None)
    kept.clock.now += MINUTE
    assert kept.find("own") is None
    assert len({kept.keep("c", MINUTE) for _ in range(10)}) == 10


def test_what_is_of_one_room_takes_no_place_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MOST", 1)
    kept = Kept()
    name, other = kept.keep("1", MINUTE, room="a"), kept.keep("2", MINUTE, room="b")
    for room in "ab":
        with pytest.raises(LimitError):
            kept.keep("3", MINUTE, room=room)
    assert (kept.find(name), kept.take(other)) == ("1", "2")
    kept.keep("4", MINUTE, room="b")
    with pytest.raises(LimitError):
        kept.keep("5", MINUTE, room="a")


def test_what_is_of_one_kind_is_nothing_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MOST", 1)
    kept = Kept()
    kept.keep("1", MINUTE, "name")
    polls = PendingStore(kept.memory, PendingKind.POLL, str)
    assert asyncio.run(polls.find("name")) is None
    assert asyncio.run(polls.keep("2", MINUTE, "name")) == "name"
    assert kept.find("name") == "1"


def test_no_name_leaves_its_edge() -> None:
    kept = Kept()
    name = kept.keep("it", MINUTE)
    assert len(name) == 43
    [entries] = [each for each in kept.memory._kinds.values() if each]
    assert name not in repr(entries)


@pytest.mark.parametrize(("most", "size"), [(2, 1), (99, 50)])
def test_there_is_room_for_so_many_and_so_much_until_some_are_over(
    monkeypatch: pytest.MonkeyPatch, most: int, size: int
) -> None:
    monkeypatch.setattr(pending, "MOST", most)
    monkeypatch.setattr(pending, "MAX_BYTES", 2 * OVERHEAD + 100 + 100)
    kept, value = Kept(), "x" * size
    first = kept.keep(value, MINUTE)
    kept.keep(value, 2 * MINUTE, "second")
    with pytest.raises(LimitError):
        kept.keep(value, MINUTE)
    kept.keep(value, 2 * MINUTE, "second")  # in place of the other
    kept.take(first)
    kept.keep(value, 3 * MINUTE)
    with pytest.raises(LimitError):
        kept.keep(value, MINUTE)
    kept.clock.now += 2 * MINUTE
    kept.keep(value, MINUTE)
    assert kept.find("second") is None


def test_what_is_over_makes_room_also_where_older_things_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MOST", 3)
    kept = Kept()
    names = [kept.keep(str(number), number * MINUTE) for number in (3, 2, 1)]
    kept.clock.now += MINUTE
    kept.keep("4", MINUTE)
    assert [kept.find(name) for name in names] == ["3", "2", None]


def test_in_a_small_room_the_oldest_makes_way_and_no_other_room_is_touched() -> None:
    kept = Kept()
    other, names = kept.keep("0", MINUTE, room="b"), [kept.keep(digit, MINUTE, room="a", most=3) for digit in "01234"]
    assert [kept.find(name) for name in names] == [None, None, "2", "3", "4"]
    assert kept.find(other) == "0"


def test_rooms_that_nobody_comes_to_any_more_are_cleared() -> None:
    kept = Kept()
    for number in range(100):
        kept.keep("x", MINUTE, room=f"room-{number}", most=3)
    kept.clock.now += MINUTE
    for _ in range(50):
        kept.keep("x", MINUTE, room="a", most=3)
    entries = kept.memory._kinds[PendingKind.PUSHED]
    assert len(entries) == 3
    assert set(entries.count) == {"a"}


def test_a_value_is_changed_only_by_who_knows_what_it_is() -> None:
    kept = Kept()
    name = kept.keep("a", MINUTE)
    assert not kept.swap("other", "a", "b")
    assert kept.swap(name, "a", "b")
    assert not kept.swap(name, "a", "c")
    assert kept.find(name) == "b"
    kept.clock.now += MINUTE
    assert not kept.swap(name, "b", "c")  # it got no more time


def test_a_value_grows_only_as_far_as_its_room_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_BYTES", OVERHEAD + 100)
    kept = Kept()
    name = kept.keep("a", MINUTE)
    with pytest.raises(LimitError):
        kept.swap(name, "a", "b" * 200)
    assert kept.swap(name, "a", "b" * 90)
    assert kept.swap(name, "b" * 90, "c")
    assert kept.swap(name, "c", "d" * 90)


def test_what_was_decoded_is_what_was_encoded_so_that_it_can_be_changed() -> None:
    async def main() -> None:
        memory = PendingMemory(Clock())
        codes, polls = (
            PendingStore(memory, PendingKind.CODE, AuthorizationCode),
            PendingStore(memory, PendingKind.POLL, Poll),
        )
        code = AuthorizationCode("apr_1", "client", "http://x/", "c", START, None, 1)
        poll = Poll("apr_1", "client", START + timedelta(microseconds=7), timedelta(seconds=10))
        name, other = await codes.keep(code, MINUTE), await polls.keep(poll, MINUTE)
        found, asked = await codes.find(name), await polls.find(other)
        assert (found, asked) == (code, poll)
        assert found is not None
        assert asked is not None
        assert await codes.swap(name, found, code)
        assert await polls.swap(other, asked, poll)

    asyncio.run(main())


def test_all_rooms_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_ALL", 3 * OVERHEAD)
    kept = Kept()
    names = [kept.keep("a", MINUTE, room=room) for room in "xy"]
    with pytest.raises(LimitError):
        kept.keep("a", MINUTE, room="z")
    with pytest.raises(LimitError):
        kept.swap(names[0], "a", "b" * OVERHEAD)
    kept.take(names[0])
    kept.keep("a", MINUTE, room="z")


@pytest.mark.parametrize(
    ("life", "room", "digest"),
    [
        (timedelta.max, "", "d"),
        (timedelta(days=2), "", "d"),
        (-MINUTE, "", "d"),
        (MINUTE, "r" * 3_000, "d"),
        (MINUTE, "", "d" * 257),
    ],
)
def test_what_no_edge_keeps_is_refused(life: timedelta, room: str, digest: str) -> None:
    memory = PendingMemory(Clock())
    with pytest.raises(InvalidRequestError):
        asyncio.run(memory.keep(PendingKind.POLL, digest, b"v", life, room))


# -- proofs -----------------------------------------------------------------------------------------------------------


@dataclass
class Proofs:
    """The proofs that were seen."""

    most: int = 9
    most_strange: int = 9
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.memory = PendingMemory(self.clock, self.most, self.most_strange)

    def burn(self, proof: Proof, *, stranger: bool = False, now: int = NOW) -> None:
        self.clock.now = datetime.fromtimestamp(now, UTC)
        asyncio.run(self.memory.burn(proof, stranger=stranger))


def proof(jti: str = "a", iat: int = NOW, jkt: str = "key") -> Proof:
    return Proof(jkt, jti, iat)


def test_a_proof_passes_once() -> None:
    proofs = Proofs()
    proofs.burn(proof())
    with pytest.raises(ProofError, match="used before"):
        proofs.burn(proof())


@pytest.mark.parametrize("other", [proof("b"), proof(jkt="another"), proof(iat=NOW + 1)])
def test_another_proof_passes_too(other: Proof) -> None:
    proofs = Proofs()
    proofs.burn(proof())
    proofs.burn(other)


@pytest.mark.attack("DOS-04")
def test_a_proof_is_remembered_as_long_as_its_window_and_no_longer() -> None:
    proofs = Proofs(most=2)
    proofs.burn(proof())
    last = NOW + MAX_AGE + SKEW
    with pytest.raises(ProofError):
        proofs.burn(proof(), now=last)
    proofs.burn(proof(iat=last + 1), now=last + 1)
    proofs.burn(proof("b", last + 1), now=last + 1)


@pytest.mark.attack("DOS-04")
def test_when_the_memory_is_full_no_proof_passes() -> None:
    proofs = Proofs(most=1)
    proofs.burn(proof())
    with pytest.raises(LimitError) as caught:
        proofs.burn(proof("b"))
    assert caught.value.retry_after == MAX_AGE


@pytest.mark.attack("DOS-04")
def test_strangers_fill_a_memory_of_their_own_and_it_empties_again() -> None:
    proofs = Proofs(most=2, most_strange=1)
    proofs.burn(proof(), stranger=True)
    with pytest.raises(LimitError):
        proofs.burn(proof("b"), stranger=True)
    proofs.burn(proof("b"))
    proofs.burn(proof("c"))
    with pytest.raises(LimitError):
        proofs.burn(proof("d"))
    later = NOW + MAX_AGE + SKEW + 1
    proofs.burn(proof(iat=later), stranger=True, now=later)
    proofs.burn(proof("b", later), now=later)


@pytest.mark.attack("DOS-04")
@pytest.mark.parametrize(
    "never", [proof(iat=2**62), proof(iat=NOW + SKEW + 1), proof("j" * 300), proof(jkt="k" * 300)], ids=range(4)
)
def test_a_proof_that_nobody_can_have_verified_takes_no_room(never: Proof) -> None:
    proofs = Proofs(most=1)
    with pytest.raises(ProofError, match="none that could"):
        proofs.burn(never)
    proofs.burn(proof())


@pytest.mark.parametrize("stranger", [True, False])
def test_what_a_stranger_proved_is_not_proven_again_as_a_holder(stranger: bool) -> None:  # noqa: FBT001 - a parameter
    proofs = Proofs()
    proofs.burn(proof(), stranger=stranger)
    with pytest.raises(ProofError, match="used before"):
        proofs.burn(proof(), stranger=not stranger)


def test_what_is_over_makes_room_where_it_came_after_what_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MOST", 3)
    kept = Kept()
    first, second = kept.keep("a", 3 * MINUTE), kept.keep("b", 3 * MINUTE)
    over = kept.keep("c", MINUTE)
    kept.clock.now += MINUTE
    last = kept.keep("d", MINUTE)
    assert [kept.find(name) for name in (first, second, over, last)] == ["a", "b", None, "d"]
