"""Audit: events, their one encoding, signed checkpoints (C2SP tlog-checkpoint) and offline verification. Pure.

- An entry's leaf (``core.tree``) is canonical JSON: keys sorted, no white space, everything outside printable ASCII
  escaped. One event is one line whatever a caller wrote into it.
- Text longer than ``MAX_TEXT`` is cut, and its SHA-256 stands for the rest.
- ``read`` accepts exactly what ``encode`` writes, so a leaf has one reading.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from json.encoder import encode_basestring_ascii as _quote
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from remit.core.tree import Frontier, leaf_hash
from remit.errors import IntegrityError

MAX_TEXT = 256  # characters of one string in an entry
LOUD = 20  # events of one kind that anybody can cause, told in one minute
MAX_NOTE = 16_384  # characters of a checkpoint
_ED25519 = b"\x01"  # signature type, C2SP signed-note
_DASH = "\u2014 "
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_BAD_NOTE = "this is not a signed checkpoint of this log"
_ODD = re.compile("[\x00-\x09\x0b-\x1f\ud800-\udfff]")  # what a note may not hold: controls, and no text at all


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, before it has a place in the log. Digests, never arguments or secrets."""

    event: str  # noun.verb: task.open, grant.delegate, lease.issue, resource.use, ...
    at: datetime
    decision: str  # allow | deny | done | failed
    task: str | None = None
    grant: str | None = None
    lineage: tuple[str, ...] = ()  # grant ids, root first
    subject: str | None = None
    agent: str | None = None
    attested: bool = False
    resource: str | None = None
    action: str | None = None
    code: str | None = None  # error code of a denial or failure
    request: str | None = None  # correlation id
    cause: str | None = None
    client: str | None = None  # the OAuth client that a new grant, a question or a refresh token is of
    detail_s256: str | None = None
    approval: str | None = None  # the human decision it rests on
    key: str | None = None  # thumbprint of the key that a new grant is bound to
    path: str | None = None  # of a request that was refused, without its query
    policy: str | None = None  # version of the policy that decided
    posture: str | None = None  # isolation/custody/at-rest that the decision was made on


@dataclass(frozen=True, slots=True)
class Entry:
    """An event at its place: ``seq`` counts from 0; ``leaf`` is its canonical JSON, exactly as hashed."""

    seq: int
    leaf: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed tree head. ``text`` is the C2SP signed note."""

    origin: str
    size: int
    root: bytes
    text: str
    epoch: int = 0  # of the broker that kept it: which start over this state it was; 0: it is not said


def encode(seq: int, event: Event) -> bytes:
    """Return the leaf of ``event`` at place ``seq``. The only place where an entry is written."""
    # A hand-written template, as every request through the gateway passes twice: a fifth of the time of json.dumps.
    lineage = ",".join(map(_text, event.lineage))
    utc = event.at if event.at.tzinfo is UTC else event.at.astimezone(UTC)
    return (
        f'{{"action":{_text(event.action)},"agent":{_text(event.agent)},{_known("approval", event.approval)}'
        f'"at":"{utc.isoformat(timespec="microseconds")[:-6]}Z",'
        f'"attested":{"true" if event.attested else "false"},"cause":{_text(event.cause)},'
        f'{_known("client", event.client)}"code":{_text(event.code)},'
        f'"decision":{_text(event.decision)},"detail_s256":{_text(event.detail_s256)},"event":{_text(event.event)},'
        f'"grant":{_text(event.grant)},{_known("key", event.key)}"lineage":[{lineage}],'
        f"{_known('path', event.path)}{_known('policy', event.policy)}{_known('posture', event.posture)}"
        f'"request":{_text(event.request)},'
        f'"resource":{_text(event.resource)},"seq":{seq:d},"subject":{_text(event.subject)},'
        f'"task":{_text(event.task)}}}'
    ).encode("ascii")


def _known(name: str, value: str | None) -> str:
    """Write a member that is left out where there is nothing to say, as in all entries of earlier versions."""
    return "" if value is None else f'"{name}":{_text(value)},'


def _text(value: str | None) -> str:
    if value is None:
        return "null"
    return _quote(value if len(value) <= MAX_TEXT else shorten(value))


def shorten(value: str) -> str:
    """Return text cut to ``MAX_TEXT`` characters, ending in the SHA-256 (hex) of the whole."""
    digest = sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
    mark = f"...sha256:{digest}"
    return value[: MAX_TEXT - len(mark)] + mark


def read(entry: Entry) -> Event:
    """Return the event of an entry, or raise IntegrityError unless its leaf is exactly what ``encode`` writes."""
    odd = f"audit entry {entry.seq} is not in canonical form"
    try:
        fields = json.loads(entry.leaf)
        del fields["seq"]
        fields["at"] = datetime.fromisoformat(fields["at"])
        fields["lineage"] = tuple(fields["lineage"])
        event = Event(**fields)
        same = encode(entry.seq, event) == entry.leaf
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise IntegrityError(odd) from error
    if not same:
        raise IntegrityError(odd)
    return event


def read_log(text: str) -> Iterator[Entry]:
    """Yield the entries of a log, one a line, each with its own number: a missing one is told from a changed one."""
    for place, line in enumerate(text.removesuffix("\n").split("\n") if text else ()):
        try:
            seq = json.loads(line)["seq"]
        except (ValueError, TypeError, KeyError, RecursionError):
            seq = place
        yield Entry(seq if type(seq) is int else place, line.encode())


def grouped(requests: Iterable[str]) -> list[str]:
    """Write ids of requests as few texts as have room for them: `req_x.1,2,3`, where they begin alike."""
    texts = list[str]()
    known, text = "", ""
    for request in requests:
        start, dot, end = request.rpartition(".")
        if text and dot and start == known and len(text) + len(end) < MAX_TEXT:
            text += f",{end}"
            continue
        if text:
            texts.append(text)
        known, text = start, request
    return [*texts, text] if text else texts


def ungrouped(text: str) -> list[str]:
    """Return the ids of requests that ``grouped`` has written as one text."""
    first, *others = text.split(",")
    return [first, *(f"{first.rpartition('.')[0]}.{end}" for end in others)]


class Flood:
    """What anybody can cause is told one by one so often a minute, then at each power of two, with the count."""

    def __init__(self) -> None:
        self._minute = 0
        self._counts: dict[Hashable, int] = {}

    def told(self, kind: Hashable, now: datetime, times: int = 1) -> int | None:
        """Count so many more of ``kind``; return how many it is this minute if it is to be told of, else None."""
        minute = int(now.timestamp() // 60)
        if minute != self._minute:
            self._minute, self._counts = minute, {}
        before = self._counts.get(kind, 0)
        count = self._counts[kind] = before + times
        return None if count > LOUD and count.bit_length() == before.bit_length() else count


class NoteSigner(Protocol):
    """An Ed25519 key that signs checkpoints; ``ports.Signer`` is one."""

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte signature."""

    def public_jwk(self) -> Mapping[str, str]:
        """Return the public key as an OKP JWK (RFC 8037)."""


def public_bytes(jwk: Mapping[str, str]) -> bytes:
    """Return the 32 bytes of an Ed25519 public JWK."""
    return base64.urlsafe_b64decode(jwk["x"] + "=")


def key_id(origin: str, public: bytes) -> bytes:
    """Return the 4-byte key id of an Ed25519 key (C2SP signed-note)."""
    return sha256(origin.encode() + b"\n" + _ED25519 + public).digest()[:4]


def verifier_key(origin: str, public: bytes) -> str:
    """Return the text form of a public key (C2SP signed-note), as given to an auditor."""
    return f"{origin}+{key_id(origin, public).hex()}+{_base64(_ED25519 + public)}"


def read_verifier_key(text: str) -> tuple[str, bytes]:
    """Return origin and public key of a verifier key, or raise IntegrityError."""
    origin, _, rest = text.strip().partition("+")
    _, _, key = rest.partition("+")
    public = _unbase64(key)[1:]
    if verifier_key(origin, public) != text.strip() or len(public) != 32:  # noqa: PLR2004 - RFC 8032: 32 octets
        raise IntegrityError("this is not an Ed25519 verifier key")
    return origin, public


def checkpoint(origin: str, size: int, root: bytes, signer: NoteSigner, epoch: int = 0) -> Checkpoint:
    """Sign the head of a tree (C2SP tlog-checkpoint); an epoch is an extension line."""
    body = f"{origin}\n{size}\n{_base64(root)}\n" + (f"epoch {epoch}\n" if epoch else "")
    signature = key_id(origin, public_bytes(signer.public_jwk())) + signer.sign(body.encode())
    return Checkpoint(origin, size, root, f"{body}\n{_DASH}{origin} {_base64(signature)}\n", epoch)


def read_checkpoint(text: str, origin: str, publics: Sequence[bytes]) -> Checkpoint:
    """Return a checkpoint signed for ``origin`` by one of the raw Ed25519 keys, or raise IntegrityError."""
    lines = open_note(text, origin, publics).split("\n")
    if len(lines) < 4 or lines[0] != origin or not _DECIMAL.fullmatch(lines[1]):  # noqa: PLR2004 - and a last, empty one
        raise IntegrityError(_BAD_NOTE)
    root = _unbase64(lines[2])
    if len(root) != 32:  # noqa: PLR2004 - SHA-256
        raise IntegrityError(_BAD_NOTE)
    epochs = [int(line[6:]) for line in lines[3:] if line.startswith("epoch ") and _DECIMAL.fullmatch(line[6:])]
    return Checkpoint(origin, int(lines[1]), root, text, epochs[0] if epochs else 0)


def read_unsigned(text: str) -> Checkpoint:
    """Return a checkpoint whose signature is not checked, for want of a key, or raise IntegrityError."""
    try:
        origin, size, root = text.split("\n")[:3]
        return Checkpoint(origin, int(size), base64.b64decode(root, validate=True), text)
    except ValueError as error:
        raise IntegrityError("this is not a checkpoint") from error


def open_note(text: str, name: str, publics: Sequence[bytes]) -> str:
    """Return the body of a note (C2SP signed-note) signed as ``name`` by one of the keys, or raise IntegrityError."""
    body, gap, tail = text.rpartition("\n\n")
    if len(text) > MAX_NOTE or not gap or not tail.endswith("\n") or _ODD.search(text):
        raise IntegrityError(_BAD_NOTE)
    body, signatures = body + "\n", list[tuple[str, bytes]]()
    for line in tail[:-1].split("\n"):
        signer, _, value = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not signer or "+" in signer:
            raise IntegrityError(_BAD_NOTE)
        signatures.append((signer, _unbase64(value)))
    # signatures of others are ignored, as the format asks; one under a known key that does not hold is an error
    known = {key_id(name, public): public for public in publics}
    found = [(known[raw[:4]], raw[4:]) for signer, raw in signatures if signer == name and raw[:4] in known]
    if not found:
        raise IntegrityError("the checkpoint is not signed by a known key")
    for public, signature in found:
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, body.encode())
        except (InvalidSignature, ValueError) as error:
            raise IntegrityError("the checkpoint's signature does not hold") from error
    return body


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unbase64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise IntegrityError(_BAD_NOTE) from error
    if _base64(data) != text:
        raise IntegrityError(_BAD_NOTE)
    return data


def extends(last: Checkpoint, size: int, root_at: Callable[[int], bytes]) -> None:
    """Raise IntegrityError unless a tree (``size``, and its root at any size) extends a checkpoint kept elsewhere."""
    if last.size > size:
        raise IntegrityError(
            f"the log holds {size} entries, but a checkpoint was kept of {last.size}: it was rolled back or cut",
            help="restore the newest state, or have remit close every task of this one",
        )
    if root_at(last.size) != last.root:
        raise IntegrityError(f"the first {last.size} entries of the log are not those a checkpoint was kept of")


def verify(entries: Iterable[Entry], checkpoints: Sequence[Checkpoint] = ()) -> Frontier:
    """Check a whole log offline: no gap, canonical entries, every checkpoint reached; return its frontier.

    Without a checkpoint from another custody it is only shown to be consistent with itself.
    """
    tree, due = Frontier(), sorted(checkpoints, key=lambda note: note.size)
    due = _passed(tree, due)
    for entry in entries:
        if entry.seq != tree.size:
            raise IntegrityError(f"audit entry {tree.size} is missing")
        read(entry)
        tree, _ = tree.grow((leaf_hash(entry.leaf),))
        due = _passed(tree, due)
    if due:
        extends(due[-1], tree.size, lambda _: b"")
    return tree


def _passed(tree: Frontier, due: list[Checkpoint]) -> list[Checkpoint]:
    while due and due[0].size == tree.size:
        extends(due[0], tree.size, lambda _: tree.root())
        due = due[1:]
    return due
