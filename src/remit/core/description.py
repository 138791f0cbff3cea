"""What a server says of itself to a model (tools, prompts, resources, instructions), pinned; each step of a pin. Pure.

What a pin holds to is text that a human has accepted, or the first that was seen where the resource's ``descriptions``
say so. Any other text has the item held: it is shown to nobody and cannot be used until a human has decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from remit.core.orders import digest
from remit.errors import ConflictError, InvalidRequestError, NotFoundError

What = Annotated[str, Meta(pattern=r"\A(?:instructions|prompt|resource|template|tool)\Z")]
Key = tuple[What, str]  # what, and its name
MAX_NAME = 1_024  # characters
MAX_TEXT = 32_768  # of a description
MOST = 512  # items of one resource
ROOM = 1 << 20  # characters of all texts that are kept of one resource
ACCEPTED = 4  # texts of one item that count: a server is not replaced everywhere at once
PAUSE = timedelta(minutes=1)  # in which one that is held takes no other text: whoever flips it fills no log
FIRST, STRICT, OPEN = "first", "accepted", "any"
USED_BY_NAME = frozenset({"prompt", "tool"})  # strictly, what was never listed is not used either

Name = Annotated[str, Meta(max_length=MAX_NAME)]
Digest = Annotated[str, Meta(max_length=43)]


def policy(settings: Mapping[str, object]) -> str:
    """Return which descriptions of a resource count: the first ones, those that a human accepted, or any."""
    found = settings.get("descriptions", FIRST)
    if found not in (FIRST, STRICT, OPEN):
        raise InvalidRequestError(f'`descriptions` is "{FIRST}", "{STRICT}" or "{OPEN}"')
    return str(found)


class Described(Struct, frozen=True):
    """One item as a server describes it: ``text`` is canonical JSON of all that it says, but for what is volatile.

    It is empty where that is more than a human would look at.
    """

    what: What
    name: Name
    text: Annotated[str, Meta(max_length=MAX_TEXT)]

    @property
    def key(self) -> Key:
        return self.what, self.name


class DescriptionChoice(Struct, frozen=True):
    """What a human accepts: the text of this digest, which they have seen."""

    what: What
    name: Name
    s256: Digest


class DescriptionPin(Struct, frozen=True):
    """What counts of one item, as its users have to know it. ``open``: anything does."""

    accepted: tuple[str, ...] = ()  # digests
    held: bool = False
    open: bool = False

    def shows(self, s256: str) -> bool:
        return self.open or (s256 in self.accepted and not self.held)


class KeptDescription(Struct, frozen=True):
    """One item of a resource as it is on record. ``accepted`` and ``pending`` are digests, the newest is last."""

    id: str
    rev: int
    resource: str
    what: What
    name: str
    at: datetime  # of the last change
    accepted: tuple[str, ...] = ()
    text: str = ""  # the newest that is accepted
    pending: str = ""
    pending_text: str = ""  # empty where there was no room for it

    @property
    def key(self) -> Key:
        return self.what, self.name

    @property
    def size(self) -> int:
        return len(self.text) + len(self.pending_text)

    @property
    def pin(self) -> DescriptionPin:
        return DescriptionPin(self.accepted, held=bool(self.pending))

    def seen(self, text: str, now: datetime, room: int) -> KeptDescription:
        """Return it after its server said ``text``: it stays as it is, or is held from now on.

        One that is held stays so also where its server goes back to what was accepted.
        """
        s256 = digest(text)
        room += len(self.pending_text)
        if s256 in self.accepted or (s256 == self.pending and self.pending_text):
            return self
        if self.pending and now - self.at < PAUSE:
            return self
        return replace(self, at=now, pending=s256, pending_text=text if len(text) <= room else "")

    def accept(self, s256: str, now: datetime) -> KeptDescription:
        """Return it as a human accepts it: with the new text, or as before where the digest is of one that counted."""
        if s256 in self.accepted:
            return replace(self, at=now, pending="", pending_text="")
        if s256 != self.pending:
            raise ConflictError(f"the {self.what} `{self.name}` is described otherwise now", help="look at it anew")
        if not self.pending_text:
            raise ConflictError(
                f"there was no room for the text of the {self.what} `{self.name}`, which nobody can have seen",
                help="remove the resource and add it again: what it had accepted is forgotten",
            )
        accepted = (*self.accepted, s256)[-ACCEPTED:]
        return replace(self, at=now, accepted=accepted, text=self.pending_text, pending="", pending_text="")


def first(blank: KeptDescription, text: str, rule: str, room: int) -> KeptDescription | None:
    """Return an item that was never seen, as its first text leaves it; None where there is no room for that."""
    if not 0 < len(text) <= room:
        return None
    if rule == FIRST:
        return replace(blank, accepted=(digest(text),), text=text)
    return replace(blank, pending=digest(text), pending_text=text)


def unseen(key: Key, rule: str) -> DescriptionPin:
    """Return what counts of an item that was never seen."""
    return DescriptionPin(held=rule == STRICT and key[0] in USED_BY_NAME, open=rule == OPEN)


def text_of(kept: Iterable[KeptDescription], s256: str) -> str:
    """Return a text that is kept, by its digest."""
    for each in kept:
        for text in (each.text, each.pending_text):
            if text and digest(text) == s256:
                return text
    raise NotFoundError("no text of this digest is kept")
