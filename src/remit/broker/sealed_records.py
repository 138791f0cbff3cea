"""Records whose body is sealed: each is bound to its kind, its id and its revision."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import msgspec

from remit.core.secret import Secret
from remit.errors import IntegrityError
from remit.ports import PutRecord, Record, Sealer

T = TypeVar("T")


def sealed(sealer: Sealer, kind: str, key: tuple[str, int], value: object, until: datetime) -> PutRecord:
    """Return the write of a value under its id, at its revision."""
    name, rev = key
    body = sealer.seal(msgspec.json.encode(value, enc_hook=Secret.reveal), _bound(kind, name, rev))
    return PutRecord(Record(kind, name, rev, msgspec.json.encode(body), until))


def opened(sealer: Sealer, record: Record, kind: type[T], what: str) -> T:
    """Return the value of a record, or raise IntegrityError: ``what`` was kept cannot be read."""
    try:
        body = sealer.open(msgspec.json.decode(record.body, type=bytes), _bound(record.kind, record.id, record.rev))
        return msgspec.json.decode(body, type=kind, dec_hook=lambda _, text: Secret(text))
    except msgspec.MsgspecError as error:
        raise IntegrityError(f"{what} that was kept cannot be read") from error


def _bound(kind: str, name: str, rev: int) -> bytes:
    return f"{kind} {name} {rev}".encode()
