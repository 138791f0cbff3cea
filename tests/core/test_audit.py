from __future__ import annotations

import base64
import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from remit.core import audit
from remit.core.audit import MAX_TEXT, Checkpoint, Entry, Event, Flood, encode, grouped, read, ungrouped
from remit.core.tree import EMPTY_ROOT, leaf_hash, root_of
from remit.errors import IntegrityError

NOW = datetime(2026, 11, 25, 1, 2, 3, 4, tzinfo=UTC)
ORIGIN = "remit.example/log"

TEXT = st.none() | st.text(max_size=40) | st.text(st.characters(), min_size=250, max_size=260)
EVENTS = st.builds(
    Event,
    event=st.text(max_size=20),
    at=st.datetimes(timezones=st.just(UTC)),
    decision=st.sampled_from(["allow", "deny", "done", "failed"]),
    task=TEXT,
    grant=TEXT,
    lineage=st.lists(st.text(max_size=30), max_size=4).map(tuple),
    subject=TEXT,
    agent=TEXT,
    attested=st.booleans(),
    resource=TEXT,
    action=TEXT,
    code=TEXT,
    request=TEXT,
    cause=TEXT,
    detail_s256=TEXT,
)


class Signer:
    """An Ed25519 key in memory."""

    def __init__(self, seed: bytes = b"s" * 32) -> None:
        self.key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self.key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        return self.key.sign(data)

    def public_jwk(self) -> dict[str, str]:
        return {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(self.public).rstrip(b"=").decode()}


def log(size: int) -> list[Entry]:
    return [Entry(seq, encode(seq, Event("resource.use", NOW, "allow", request=f"r{seq}"))) for seq in range(size)]


def signed(entries: list[Entry], size: int | None = None) -> Checkpoint:
    leaves = [leaf_hash(entry.leaf) for entry in entries[:size]]
    return audit.checkpoint(ORIGIN, len(leaves), root_of(leaves), Signer())


# -- entries --------------------------------------------------------------------------------------------------------


def test_an_entry_has_the_fields_of_an_event_and_its_place() -> None:
    more = {"approval": "apr_1", "client": "app", "key": "k", "path": "/v1", "policy": "p"}
    more |= {"posture": "none/holder/none"}
    leaf = json.loads(encode(7, Event("task.open", NOW, "allow", lineage=("grt_a", "grt_b"), attested=True, **more)))
    assert set(leaf) == {field.name for field in fields(Event)} | {"seq"}
    assert (leaf["seq"], leaf["at"], leaf["lineage"]) == (7, "2026-11-25T01:02:03.000004Z", ["grt_a", "grt_b"])
    assert leaf["attested"] is True
    assert leaf["task"] is None


@given(st.integers(0, 2**53), EVENTS)
def test_a_leaf_is_what_a_json_library_writes_sorted_escaped_and_without_spaces(seq: int, event: Event) -> None:
    leaf = encode(seq, event)
    assert leaf == json.dumps(json.loads(leaf), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    assert all(0x20 <= byte < 0x7F for byte in leaf)


@given(st.integers(0, 2**53), EVENTS)
def test_an_entry_reads_back_as_its_event_with_long_text_shortened(seq: int, event: Event) -> None:
    found = read(Entry(seq, encode(seq, event)))
    for field in fields(Event):
        value = getattr(event, field.name)
        long = isinstance(value, str) and len(value) > audit.MAX_TEXT
        assert getattr(found, field.name) == (audit.shorten(value) if long else value)


def test_long_text_is_cut_and_its_hash_stands_for_the_rest() -> None:
    text = "x" * 1_000_000
    found = read(Entry(0, encode(0, Event("task.open", NOW, "allow", cause=text)))).cause
    assert found is not None
    assert len(found) == audit.MAX_TEXT
    assert found.endswith("...sha256:" + sha256(text.encode()).hexdigest())


def test_text_of_just_the_limit_is_kept_whole() -> None:
    text = "y" * audit.MAX_TEXT
    assert read(Entry(0, encode(0, Event("task.open", NOW, "allow", cause=text)))).cause == text


def test_a_lone_surrogate_is_escaped() -> None:
    for text in ("\ud800", "\ud800" * 300):
        assert encode(0, Event("task.open", NOW, "allow", agent=text)).isascii()


def test_an_instant_is_written_in_utc_to_the_microsecond() -> None:
    east = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert encode(0, Event("a.b", east, "allow")) == encode(0, Event("a.b", NOW, "allow"))
    whole = encode(0, Event("a.b", NOW.replace(microsecond=0), "allow"))
    assert json.loads(whole)["at"] == "2026-11-25T01:02:03.000000Z"


@pytest.mark.parametrize(
    "change",
    [
        lambda leaf: leaf + b"\n",
        lambda leaf: leaf.replace(b":", b": ", 1),
        lambda leaf: leaf.replace(b'"seq":3', b'"seq":4'),
        lambda leaf: leaf.replace(b'"seq":3', b'"seq":3.0'),
        lambda leaf: leaf.replace(b'"seq":3', b'"seq":3,"seq":3'),
        lambda leaf: leaf.replace(b'"seq":3,', b""),
        lambda leaf: leaf.replace(b'"task":null', b'"task":7'),
        lambda leaf: leaf.replace(b'"task":null', b'"task":["a"]'),
        lambda leaf: leaf.replace(b'"task":null', b'"task":null,"x":1'),
        lambda leaf: leaf.replace(b'"lineage":[]', b'"lineage":7'),
        lambda leaf: leaf.replace(b'"attested":false', b'"attested":0'),
        lambda leaf: leaf.replace(b"2026-11-25T01:02:03.000004Z", b"2026-11-25T01:02:03.000004+00:00"),
        lambda leaf: leaf.replace(b"2026-11-25T01:02:03.000004Z", b"2026-11-25T01:02:03.000004"),
        lambda leaf: leaf.replace(b'"2026-11-25T01:02:03.000004Z"', b"7"),
        lambda leaf: leaf.replace(b"2026-11-25T01:02:03.000004Z", b"0001-01-01T00:00:00.000000+23:00"),
        lambda leaf: leaf[:-1],
        lambda _: b"[]",
        lambda _: b"\xff\xfe",
        lambda _: b"[" * 100_000,
        lambda _: b'{"seq":' + b"9" * 10_000 + b"}",
    ],
)
def test_a_leaf_that_encode_does_not_write_is_refused(change: object) -> None:
    assert callable(change)
    leaf = encode(3, Event("task.open", NOW, "allow"))
    read(Entry(3, leaf))
    with pytest.raises(IntegrityError, match="entry 3 is not in canonical form"):
        read(Entry(3, change(leaf)))


# -- checkpoints ----------------------------------------------------------------------------------------------------


def test_the_note_of_the_formats_own_example_opens() -> None:
    name, public = audit.read_verifier_key("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW\n")
    body = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    signature = (
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    assert audit.open_note(f"{body}\n{signature}", name, [public]) == body


def test_a_checkpoint_is_a_signed_note_of_origin_size_and_root() -> None:
    note = signed(log(5))
    body, _, tail = note.text.partition("\n\n")
    assert body.split("\n") == [ORIGIN, "5", base64.b64encode(note.root).decode()]
    assert tail.startswith(f"— {ORIGIN} ")
    assert audit.read_checkpoint(note.text, ORIGIN, [Signer().public]) == note


def test_a_verifier_key_reads_back() -> None:
    public = Signer().public
    assert audit.read_verifier_key(audit.verifier_key(ORIGIN, public)) == (ORIGIN, public)


@pytest.mark.parametrize("text", ["", "a", "a+b", "a+00000000+AAAA", "PeterNeumann+c74f20a3+ARpc2Q==", "a+1+?"])
def test_another_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        audit.read_verifier_key(text)


def test_a_checkpoint_holds_under_the_key_before_the_current_one() -> None:
    note = signed(log(1))
    assert audit.read_checkpoint(note.text, ORIGIN, [Signer(b"t" * 32).public, Signer().public]) == note


def test_the_signatures_of_others_are_ignored() -> None:
    note = signed(log(1))
    more = note.text + "— witness.example AAAAAAA=\n" + f"— {ORIGIN} AAAAAAA=\n"
    assert audit.read_checkpoint(more, ORIGIN, [Signer().public]).size == 1


def test_a_checkpoint_under_an_unknown_key_is_refused() -> None:
    with pytest.raises(IntegrityError, match="not signed by a known key"):
        audit.read_checkpoint(signed(log(1)).text, ORIGIN, [Signer(b"t" * 32).public])


def test_a_checkpoint_of_another_log_is_refused() -> None:
    with pytest.raises(IntegrityError):
        audit.read_checkpoint(signed(log(1)).text, "other.example/log", [Signer().public])


@pytest.mark.parametrize(("old", "new"), [("\n5\n", "\n6\n"), ("\n5\n", "\n5\nextension\n")])
def test_a_changed_checkpoint_is_refused(old: str, new: str) -> None:
    text = signed(log(5)).text.replace(old, new)
    with pytest.raises(IntegrityError, match="signature does not hold"):
        audit.read_checkpoint(text, ORIGIN, [Signer().public])


def note_of(body: str) -> str:
    signer = Signer()
    raw = audit.key_id(ORIGIN, signer.public) + signer.sign(body.encode())
    return f"{body}\n— {ORIGIN} {base64.b64encode(raw).decode()}\n"


ROOT = base64.b64encode(EMPTY_ROOT).decode()


def test_extension_lines_are_signed_with_the_rest() -> None:
    assert audit.read_checkpoint(note_of(f"{ORIGIN}\n0\n{ROOT}\nmore\n"), ORIGIN, [Signer().public]).size == 0


@pytest.mark.parametrize(
    "body",
    [
        f"other\n0\n{ROOT}\n",
        f"{ORIGIN}\n00\n{ROOT}\n",
        f"{ORIGIN}\n-1\n{ROOT}\n",
        f"{ORIGIN}\n²\n{ROOT}\n",
        f"{ORIGIN}\n{'9' * 5000}\n{ROOT}\n",
        f"{ORIGIN}\n0\n{ROOT[:-1]}\n",
        f"{ORIGIN}\n0\n{ROOT[:-2]}B=\n",
        f"{ORIGIN}\n0\nAAAA\n",
        f"{ORIGIN}\n0\n",
        f"{ORIGIN}\n",
    ],
)
def test_a_signed_note_that_is_no_checkpoint_is_refused(body: str) -> None:
    with pytest.raises(IntegrityError, match="not a signed checkpoint"):
        audit.read_checkpoint(note_of(body), ORIGIN, [Signer().public])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no gap\n",
        "body\n\n",
        "body\n\n— name AAAA",
        "body\n\n- name AAAA\n",
        "body\n\n—  AAAA\n",
        "body\n\n— na+me AAAA\n",
        "body\n\n— name\n",
        "body\n\n— name ?\n",
        "bo\x07dy\n\n— name AAAA\n",
        "bo\r\ndy\n\n— name AAAA\n",
        "bo\ud800dy\n\n— name AAAA\n",
        "x" * 20_000 + "\n\n— name AAAA\n",
    ],
)
def test_what_is_no_note_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        audit.open_note(text, "name", [Signer().public])


# -- verification ---------------------------------------------------------------------------------------------------


def test_a_whole_log_verifies_against_its_checkpoints() -> None:
    entries = log(300)
    notes = [signed(entries, size) for size in (300, 0, 1, 256)]
    tree = audit.verify(entries, notes)
    assert (tree.size, tree.root()) == (300, notes[0].root)


def test_an_empty_log_verifies() -> None:
    assert audit.verify([]).root() == EMPTY_ROOT


def test_a_log_may_go_on_past_its_last_checkpoint() -> None:
    entries = log(9)
    assert audit.verify(entries, [signed(entries, 7)]).size == 9


@pytest.mark.parametrize("kept", [0, 1, 299])
def test_a_log_cut_below_a_checkpoint_names_the_gap(kept: int) -> None:
    entries = log(300)
    with pytest.raises(IntegrityError, match=f"holds {kept} entries, but a checkpoint was kept of 300"):
        audit.verify(entries[:kept], [signed(entries)])


def test_a_missing_entry_is_named() -> None:
    entries = log(20)
    with pytest.raises(IntegrityError, match="entry 7 is missing"):
        audit.verify(entries[:7] + entries[8:])


def test_an_entry_put_in_twice_is_found() -> None:
    entries = log(20)
    with pytest.raises(IntegrityError, match="entry 8 is missing"):
        audit.verify(entries[:8] + entries[7:])


def test_a_rewritten_entry_is_found_by_the_checkpoint() -> None:
    entries = log(20)
    note = signed(entries)
    entries[7] = Entry(7, encode(7, Event("resource.use", NOW, "deny")))
    audit.verify(entries)
    with pytest.raises(IntegrityError, match="first 20 entries"):
        audit.verify(entries, [note])


def test_an_entry_that_is_no_entry_is_named() -> None:
    entries = log(20)
    entries[7] = replace(entries[7], leaf=entries[7].leaf + b" ")
    with pytest.raises(IntegrityError, match="entry 7 is not in canonical form"):
        audit.verify(entries)


def test_a_tree_extends_the_checkpoint_kept_of_it() -> None:
    entries = log(5)
    note = signed(entries, 3)
    audit.extends(note, 5, lambda size: root_of([leaf_hash(entry.leaf) for entry in entries[:size]]))


def test_a_tree_that_was_rolled_back_does_not_extend_the_checkpoint() -> None:
    with pytest.raises(IntegrityError, match="rolled back") as caught:
        audit.extends(signed(log(5)), 4, lambda _: b"")
    assert caught.value.help


def test_a_tree_that_forked_does_not_extend_the_checkpoint() -> None:
    with pytest.raises(IntegrityError, match="not those a checkpoint was kept of"):
        audit.extends(signed(log(5)), 6, lambda _: EMPTY_ROOT)


def test_a_log_is_read_with_the_numbers_that_its_entries_say() -> None:
    lines = ['{"seq":0}', '{"seq":2}', '{"seq":"x"}', "no JSON", "[]"]
    assert [entry.seq for entry in audit.read_log("\n".join(lines) + "\n")] == [0, 2, 2, 3, 4]
    assert [entry.leaf for entry in audit.read_log("\n".join(lines))] == [line.encode() for line in lines]
    assert list(audit.read_log("")) == []


def test_a_checkpoint_without_a_key_is_read_and_says_nothing_of_who_signed_it() -> None:
    text = f"{ORIGIN}\n7\n{base64.b64encode(EMPTY_ROOT).decode()}\n\n"
    assert audit.read_unsigned(text) == Checkpoint(ORIGIN, 7, EMPTY_ROOT, text)
    with pytest.raises(IntegrityError, match="not a checkpoint"):
        audit.read_unsigned(f"{ORIGIN}\n7\n*\n")


@pytest.mark.parametrize("epoch", [0, 1, 7, 10**18])
def test_a_checkpoint_says_its_epoch_under_the_signature_and_others_read_on(epoch: int) -> None:
    note = audit.checkpoint(ORIGIN, 3, b"r" * 32, Signer(), epoch)
    assert audit.read_checkpoint(note.text, ORIGIN, [Signer().public]) == note
    assert note.text.split("\n")[3:4] == ([f"epoch {epoch}"] if epoch else [""])
    with pytest.raises(IntegrityError):
        audit.read_checkpoint(
            note.text.replace(f"epoch {epoch}", "epoch 9") + " " * (not epoch), ORIGIN, [Signer().public]
        )


IDS = st.builds(".".join, st.lists(st.text("abXY09_-", min_size=1, max_size=12), min_size=1, max_size=3))


@given(st.lists(IDS, max_size=80))
def test_ids_of_requests_that_share_an_entry_are_all_in_it(ids: list[str]) -> None:
    texts = grouped(ids)
    assert [name for text in texts for name in ungrouped(text)] == ids
    assert all(len(text) <= MAX_TEXT for text in texts)


def test_ids_of_one_process_share_entries() -> None:
    ids = [f"req_{'x' * 22}.{i:x}" for i in range(256)]
    assert len(grouped(ids)) <= 4
    assert grouped(["req_x.1", "req_x.2.again", "req_x.3"]) == ["req_x.1", "req_x.2.again", "req_x.3"]


def test_a_flood_that_was_counted_before_is_told_as_often_as_one_that_was_not() -> None:
    now, one, many = datetime(2026, 1, 1, tzinfo=UTC), Flood(), Flood()
    told = [count for _ in range(1_000) if (count := one.told("x", now)) is not None]
    again = [many.told("x", now, count - before) for before, count in pairwise([0, *told])]
    assert again == told
    assert told[-1] == 512
