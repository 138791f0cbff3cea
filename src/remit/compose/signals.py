"""``[[signals]]``: who says that a login has ended, and who is told that a task has; read strictly, and wired.

A table with ``issuer`` is about what comes in, one with ``receiver`` about what goes out. Issuers of ``[[humans]]`` may
push without being named here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from remit.broker import Broker
from remit.compose.mistakes import unknown
from remit.compose.settings import Settings
from remit.errors import InvalidRequestError
from remit.identity.fetch import Fetch, Web, check_url
from remit.identity.issuers import Issuer, check_issuer
from remit.ports import Clock
from remit.sessions.delivery import Pace, Poller, Pusher, bearer
from remit.sessions.event_stream import EventStream
from remit.sessions.events import EventIssuer, IssuedSignals
from remit.sessions.receiver import Receiver
from remit.sessions.transmitter import EventKeys, StreamReceiver, Transmitter

WELL_KNOWN = "/.well-known/ssf-configuration"
MAX_ENTRIES = 64
MAX_TEXT = 2_048
SHOWN = 32  # characters at least of a token that somebody shows to us: hex of 128 random bits
BATCH = 16  # events pushed before the next are read

_IN = frozenset({"issuer", "about", "audience", "poll", "token_file"})
_OUT = frozenset({"receiver", "audience", "push", "token_file"})
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")

Row = Mapping[str, object]
Round = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Polled:
    """An endpoint to ask for events, and the file with the token that is shown there."""

    url: str
    token: Path | None


@dataclass(frozen=True, slots=True)
class Told:
    """A receiver of our events; ``push`` None: it polls, and shows the token in the file."""

    name: str
    audience: str
    push: str | None
    token: Path | None


@dataclass(frozen=True, slots=True)
class Signals:
    """What is configured. ``sources`` are all issuers of events by URL, those of humans among them."""

    sources: Mapping[str, EventIssuer]
    polled: Sequence[Polled] = ()
    told: Sequence[Told] = ()
    ring: EventKeys | None = field(default=None, repr=False)  # signs what receivers are told

    def verified(self, clock: Clock) -> IssuedSignals | None:
        """Return what verifies events; None where nobody may say anything."""
        return IssuedSignals(self.sources, clock) if self.sources else None


def read(settings: Settings, humans: Mapping[str, EventIssuer], clock: Clock, fetch: Fetch | None = None) -> Signals:
    """Return what is configured, or raise InvalidRequestError. ``humans`` are the issuers of humans, as sources."""
    sources, polled, told = dict(humans), list[Polled](), list[Told]()
    named = set[str]()
    for row in _rows(settings):
        if "receiver" in row:
            told.append(_told(row))
            continue
        url = check_issuer(row.get("issuer"), "`signals.issuer`")
        if url in named:
            raise InvalidRequestError("`signals.issuer` names the same issuer twice")
        named.add(url)
        sources[url] = _source(row, url, humans, lambda url: Issuer(url, fetch or Web(), clock, WELL_KNOWN), settings)
        if "poll" in row:
            polled.append(Polled(check_url(row["poll"], "`signals.poll`"), _file(row)))
        elif "token_file" in row:
            raise InvalidRequestError("`signals.token_file` is shown where events are fetched: with `poll`")
    if len({one.name for one in told}) != len(told):
        raise InvalidRequestError("`signals.receiver` is there twice")
    return Signals(sources, tuple(polled), tuple(told))


def _rows(settings: Settings) -> Sequence[Row]:
    table = settings.parts.get("signals", [])
    if not isinstance(table, list) or not all(isinstance(row, Mapping) for row in table) or len(table) > MAX_ENTRIES:
        raise InvalidRequestError(f"`signals` must be a list of at most {MAX_ENTRIES} tables: [[signals]]")
    for row in table:
        if ("issuer" in row) == ("receiver" in row):
            raise InvalidRequestError("`signals` has either an `issuer` that is heard or a `receiver` that is told")
        side, known = ("issuer", _IN) if "issuer" in row else ("receiver", _OUT)
        for key in row:
            if key not in known:
                raise unknown(f"signals.{key}", known, f"a setting beside `{side}`")
    return table


def _source(
    row: Row, url: str, humans: Mapping[str, EventIssuer], made: Callable[[str], Issuer], settings: Settings
) -> EventIssuer:
    about = check_issuer(row["about"], "`signals.about`") if "about" in row else url
    if about not in humans:
        raise InvalidRequestError(
            "`signals` must be about an issuer of `humans`", help="name that issuer with `about`, or configure it"
        )
    known = humans.get(url)
    if known is not None and about != url:
        raise InvalidRequestError("an issuer of `humans` speaks of its own humans, and of no others")
    audiences = _audiences(row) or ((known.audiences) if known else frozenset({settings.issuer}))
    if known is not None:
        return EventIssuer(known.issuer, known.audiences | audiences, about)
    return EventIssuer(made(url), audiences, about, logouts=False)


def _told(row: Row) -> Told:
    name, audience = row.get("receiver"), _audiences(row)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequestError("`signals.receiver` must be a short name: a-z, 0-9 and -")
    if len(audience) != 1:
        raise InvalidRequestError("`signals.audience` must name the receiver as it names itself")
    push = check_url(row["push"], "`signals.push`") if "push" in row else None
    token = _file(row)
    if push is None and token is None:
        raise InvalidRequestError(
            "a receiver that is not pushed to must show a token", help="set `push`, or `token_file`"
        )
    if push is None:
        bearer(token, SHOWN)
    return Told(name, next(iter(audience)), push, token)


def _audiences(row: Row) -> frozenset[str]:
    value = row.get("audience", [])
    listed = value if isinstance(value, list) else [value]
    for item in listed:
        if not isinstance(item, str) or not 0 < len(item) <= MAX_TEXT or not item.isprintable():
            raise InvalidRequestError("`signals.audience` must be text")
    return frozenset(listed)


def _file(row: Row) -> Path | None:
    if "token_file" not in row:
        return None
    value = row["token_file"]
    if not isinstance(value, str) or not Path(value).is_absolute():
        raise InvalidRequestError("`signals.token_file` must be an absolute path")
    bearer(Path(value))  # at the start, not when it is needed
    return Path(value)


# -- what is built of it ----------------------------------------------------------------------------------------------


async def begin(found: Signals, events: EventStream) -> None:
    """Let every receiver that is new be told of what ends from now on."""
    for one in found.told:
        await events.pending(one.name, 1)


def transmitter(found: Signals, events: EventStream, issuer: str) -> Transmitter | None:
    """Return what tells receivers; None where there is nobody to tell."""
    if found.ring is None:
        return None
    return Transmitter(events, issuer, found.ring, [_receiver(one) for one in found.told])


def _receiver(one: Told) -> StreamReceiver:
    return StreamReceiver(
        one.name, one.audience, None if one.push else lambda: bearer(one.token, SHOWN)["authorization"]
    )


def rounds(
    found: Signals, broker: Broker, events: EventStream, clock: Clock, sender: Transmitter | None
) -> Sequence[Round]:
    """Return what is to be done again and again: fetch events where they wait, and push ours."""
    web, made, verified = Web(), list[Round](), found.verified(clock)
    if verified is not None:
        receiver = Receiver(broker, verified)
        made += [Poller(one.url, one.token, web.transport, receiver.event, Pace(clock)).round for one in found.polled]
    if sender is not None:
        made += [_pusher(one, one.push, events, clock, sender, web).round for one in found.told if one.push]
    return tuple(made)


def _pusher(one: Told, url: str, events: EventStream, clock: Clock, sender: Transmitter, web: Web) -> Pusher:
    receiver = _receiver(one)

    async def pending() -> Sequence[tuple[int, str]]:
        found = await events.pending(receiver.name, BATCH)
        return [(ended.seq, sender.security_event_token(ended, receiver)) for ended in found]

    async def acknowledge(place: int) -> None:
        await events.acknowledge(receiver.name, [place])

    return Pusher(url, one.token, web.transport, pending, acknowledge, Pace(clock))
