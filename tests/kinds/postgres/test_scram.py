from __future__ import annotations

import base64
import secrets

from remit.core.secret import Secret
from remit.kinds.postgres.engine import ITERATIONS, new_password, scram_verifier


def test_the_verifier_is_what_postgresql_makes_of_the_same_password() -> None:
    # made by PostgreSQL 18.6: SET scram_iterations = 1; CREATE ROLE ... PASSWORD 'correct horse battery staple'
    made = (
        "SCRAM-SHA-256$1:P6Eff2ng5JKHXZXmRMQVeA==$"
        "fEHZ8W8npYW8JgkSlugpW9C3akYIeFAb8koWMfnzRhk=:xrzOcugQCXR/wX6zYiRqia1NAF8Xw19RUmZzsvUCmfk="
    )
    salt = base64.b64decode(made.split(":")[1].split("$", maxsplit=1)[0])
    assert scram_verifier(Secret("correct horse battery staple"), salt) == made


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
    assert scram_verifier(made, b"1" * 16) != scram_verifier(made, b"2" * 16)


def test_one_iteration_is_asked_of_the_server() -> None:
    assert ITERATIONS == 1
    assert scram_verifier(Secret("x"), bytes(16)).startswith("SCRAM-SHA-256$1:")
