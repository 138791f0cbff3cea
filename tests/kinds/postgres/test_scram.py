from __future__ import annotations

import asyncio
import base64
import secrets
import threading
from collections.abc import Iterable

import pytest

from remit.core.secret import Secret
from remit.errors import InvalidRequestError
from remit.kinds.postgres import scram
from remit.kinds.postgres.scram import READY, PasswordPool, ReadyPassword, iterations, new_password, scram_verifier
from remit.ports import Resource


def test_the_verifier_is_what_postgresql_makes_of_the_same_password() -> None:
    # made by PostgreSQL 18.6: SET scram_iterations = 1; CREATE ROLE ... PASSWORD 'correct horse battery staple'
    made = (
        "SCRAM-SHA-256$1:P6Eff2ng5JKHXZXmRMQVeA==$"
        "fEHZ8W8npYW8JgkSlugpW9C3akYIeFAb8koWMfnzRhk=:xrzOcugQCXR/wX6zYiRqia1NAF8Xw19RUmZzsvUCmfk="
    )
    salt = base64.b64decode(made.split(":")[1].split("$", maxsplit=1)[0])
    assert scram_verifier(Secret("correct horse battery staple"), salt, 1) == made


def test_a_password_has_256_random_bits_in_letters_that_need_no_quoting() -> None:
    counts: list[int] = []

    def random(count: int) -> bytes:
        counts.append(count)
        return bytes(range(count))

    made = new_password(random).reveal()
    assert counts == [32]
    assert base64.urlsafe_b64decode(made + "=") == bytes(range(32))
    assert made.isascii()


def test_two_passwords_differ_and_so_do_two_verifiers_of_one() -> None:
    made = new_password(secrets.token_bytes)
    assert made != new_password(secrets.token_bytes)
    assert scram_verifier(made, b"1" * 16, 1) != scram_verifier(made, b"2" * 16, 1)


def _resource(**settings: object) -> Resource:
    return Resource("warehouse", "postgres", "postgresql://remit@127.0.0.1/shop", (), None, settings)


def test_every_driver_gets_in_unless_the_resource_says_that_its_drivers_take_fewer() -> None:
    assert iterations(_resource()) == 4_096  # RFC 7677 section 4
    assert iterations(_resource(scram_iterations=1)) == 1
    assert iterations(_resource(scram_iterations=100_000)) == 100_000


@pytest.mark.parametrize("count", [0, -1, 100_001, 4_096.0, "4096", True, None, [1]])
def test_iterations_that_make_no_sense_are_refused(count: object) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        iterations(_resource(scram_iterations=count))
    assert refused.value.detail == "`scram_iterations` must be a whole number from 1 to 100,000"


def _fits(ready: ReadyPassword, count: int) -> bool:
    """Whether the verifier is that of the password."""
    salt = base64.b64decode(ready.verifier.split(":")[1].split("$", maxsplit=1)[0])
    return scram_verifier(ready.password, salt, count) == ready.verifier


def _distinct(taken: Iterable[ReadyPassword]) -> bool:
    words, verifiers = zip(*((ready.password.reveal(), ready.verifier) for ready in taken), strict=True)
    return len(set(words)) == len(words) and len(set(verifiers)) == len(verifiers)


@pytest.mark.parametrize("count", [1, 200])
def test_nobody_gets_a_password_that_somebody_else_got(count: int) -> None:
    async def run() -> list[ReadyPassword]:
        pool = PasswordPool(count, secrets.token_bytes)
        taken = list(await asyncio.gather(*(pool.take() for _ in range(40))))
        await _filled(pool)
        taken += await asyncio.gather(*(pool.take() for _ in range(READY + 10)))
        await pool.close()
        return taken

    taken = asyncio.run(run())
    assert len(taken) == 50 + READY
    assert _distinct(taken)
    assert all(_fits(ready, count) for ready in taken)


async def _filled(pool: PasswordPool) -> None:
    if pool._filling is not None:
        await pool._filling


def test_some_are_made_ahead_and_no_more_than_are_needed() -> None:
    async def run() -> None:
        pool = PasswordPool(200, secrets.token_bytes)
        assert not pool._ready  # a resource that is only looked at makes none
        await pool.take()
        await _filled(pool)
        assert len(pool._ready) == READY
        first = pool._ready[0]
        assert await pool.take() is first
        await _filled(pool)
        assert len(pool._ready) == READY
        assert first not in pool._ready
        await pool.close()
        assert not pool._ready

    asyncio.run(run())


def test_what_takes_long_is_never_done_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    where: list[threading.Thread] = []

    def watched(password: Secret, salt: bytes, count: int) -> str:
        where.append(threading.current_thread())
        return scram_verifier(password, salt, count)

    async def run() -> None:
        pool = PasswordPool(4_096, secrets.token_bytes)
        await pool.take()
        await _filled(pool)
        await pool.close()

    monkeypatch.setattr(scram, "scram_verifier", watched)
    asyncio.run(run())
    assert len(where) == READY + 1
    assert threading.main_thread() not in where


def test_a_pool_that_is_closed_while_it_fills_stops() -> None:
    async def run() -> None:
        pool = PasswordPool(4_096, secrets.token_bytes)
        await pool.take()
        await pool.close()
        assert not pool._ready
        assert pool._filling is not None
        assert pool._filling.cancelled()

    asyncio.run(run())


def test_a_password_is_in_no_text_of_the_pool() -> None:
    async def run() -> None:
        pool = PasswordPool(1, secrets.token_bytes)
        ready = await pool.take()
        assert ready.password.reveal() not in repr(ready)

    asyncio.run(run())
