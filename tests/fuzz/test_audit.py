"""Hostile bytes where the audit log, its checkpoints and stored rows are read: a value, or an IntegrityError."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.core import audit
from remit.core.audit import Entry, Event
from remit.core.tree import verify_consistency, verify_inclusion
from remit.errors import IntegrityError
from remit.stores import codec
from remit.testing.samples import RESOURCE, lease, opening

NOW = datetime(2026, 11, 25, tzinfo=UTC)
PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")  # RFC 8032 §7.1
LEAF = audit.encode(3, Event("resource.use", NOW, "allow", request="r", lineage=("a", "b")))
NOTE = "log\n5\nAAAA\n\n— log AAAAAAAA\n"
HASHES = st.lists(st.binary(min_size=32, max_size=32), max_size=70)


def bent(whole: bytes) -> st.SearchStrategy[bytes]:
    """Return ``whole`` with a piece of it replaced, and bytes that have nothing to do with it."""
    places = st.integers(0, len(whole))
    pieces = st.binary(max_size=8) | st.sampled_from([b"{", b'"', b"[", b"\\u0000", b"1e999", b"NaN", b"-0", b"null"])
    cut = st.builds(lambda at, size, piece: whole[:at] + piece + whole[at + size :], places, places, pieces)
    return cut | st.binary(max_size=200)


@given(bent(LEAF))
def test_an_entry_is_read_only_if_it_would_be_written_so(leaf: bytes) -> None:
    with suppress(IntegrityError):
        assert audit.encode(3, audit.read(Entry(3, leaf))) == leaf


@given(bent(NOTE.encode()).map(lambda data: data.decode("utf-8", "surrogateescape")) | st.text())
def test_a_note_that_nobody_signed_is_never_opened(text: str) -> None:
    with pytest.raises(IntegrityError):
        audit.read_checkpoint(text, "log", [PUBLIC])
    with pytest.raises(IntegrityError):
        audit.open_note(text, "log", [PUBLIC])


@given(bent(audit.verifier_key("log", PUBLIC).encode()).map(lambda data: data.decode("latin-1")) | st.text())
def test_a_verifier_key_has_one_spelling(text: str) -> None:
    with suppress(IntegrityError):
        assert audit.verifier_key(*audit.read_verifier_key(text)) == text.strip()


@given(st.integers(-5, 2**70), st.integers(-5, 2**70), HASHES, st.binary(min_size=32, max_size=32))
def test_no_made_up_inclusion_proof_holds(seq: int, size: int, proof: list[bytes], root: bytes) -> None:
    with pytest.raises(IntegrityError):
        verify_inclusion(b"l" * 32, seq, size, proof, root)


@given(st.integers(-5, 2**70), st.integers(1, 2**70), HASHES, st.binary(min_size=32, max_size=32))
def test_no_made_up_consistency_proof_holds(old: int, more: int, proof: list[bytes], root: bytes) -> None:
    with pytest.raises(IntegrityError):
        verify_consistency(old, b"o" * 32, old + more, root, proof)


ROWS: list[tuple[Callable[[bytes], object], bytes]] = [
    (codec.read_head, codec.head_bytes(opening().head)),
    (codec.read_grant, codec.grant_bytes(opening().grants[0])),
    (codec.read_lease, codec.lease_bytes(lease("l", "g"))),
    (codec.read_resource, codec.resource_bytes(RESOURCE)),
]


@pytest.mark.parametrize(("read", "row"), ROWS, ids=lambda value: getattr(value, "__name__", ""))
@given(st.data())
def test_a_bent_row_is_read_or_refused(read: Callable[[bytes], object], row: bytes, data: st.DataObject) -> None:
    with suppress(IntegrityError):
        read(data.draw(bent(row)))
