"""Passwords that PostgreSQL never sees: a SCRAM-SHA-256 verifier (RFC 5803) made on our side.

One iteration is enough. Iterations slow down guessing of passwords that people choose; a password of 256 random bits
cannot be guessed at any speed, and each iteration costs the client time at every login, and us at every issue.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

from remit.core.secret import Secret

ITERATIONS = 1
PASSWORD_BYTES = 32
SALT_BYTES = 16


def password(random: Callable[[int], bytes]) -> Secret:
    """Return a password of 256 random bits, in letters that SASLprep leaves alone."""
    return Secret(base64.urlsafe_b64encode(random(PASSWORD_BYTES)).rstrip(b"=").decode())


def verifier(secret: Secret, salt: bytes) -> str:
    """Return the text that PostgreSQL stores instead of the password."""
    salted = hashlib.pbkdf2_hmac("sha256", secret.reveal().encode(), salt, ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${ITERATIONS}:{_text(salt)}${_text(stored_key)}:{_text(server_key)}"


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
