"""``[[signals]]``: who says that a login has ended, and who is told that a task has; wired.

A table with ``issuer`` is about what comes in, one with ``receiver`` about what goes out. Issuers of ``[[humans]]`` may
push without being named here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from remit.broker import Broker
from remit.config.sections import SignalTable
from remit.config.settings import Settings
from remit.identity.fetch import Fetch, HttpFetch
from remit.identity.issuers import Issuer
from remit.ports import Clock
from remit.sessions.delivery import Pace, Poller, Pusher, bearer
from remit.sessions.event_stream import EventStream
from remit.sessions.events import EventIssuer, IssuedSignals
from remit.sessions.receiver import SignalReceiver
from remit.sessions.transmitter import EventKeys, StreamReceiver, Transmitter

WELL_KNOWN = "/.well-known/ssf-configuration"
SHOWN = 32  # characters at least of a token that somebody shows to us: hex of 128 random bits
BATCH = 16  # events pushed before the next are read

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
    """Build what is configured. ``humans`` are the issuers of humans, as sources.

    Raises UnavailableError where a token is no good: at the start, not when it is needed.
    """
    sources, polled, told = dict(humans), list[Polled](), list[Told]()
    for one in settings.signals:
        if one.token_file is not None:
            bearer(one.token_file, SHOWN if one.receiver and not one.push else 1)
        if one.receiver is not None:
            told.append(Told(one.receiver, one.audience[0], one.push, one.token_file))
        elif one.issuer is not None:
            sources[one.issuer] = _source(one, one.issuer, humans, settings, clock, fetch)
        if one.poll is not None:
            polled.append(Polled(one.poll, one.token_file))
    return Signals(sources, tuple(polled), tuple(told))


def _source(
    table: SignalTable,
    url: str,
    humans: Mapping[str, EventIssuer],
    settings: Settings,
    clock: Clock,
    fetch: Fetch | None,
) -> EventIssuer:
    known, audiences = humans.get(url), frozenset(table.audience)
    if known is not None:
        return EventIssuer(known.issuer, known.audiences | audiences, url)
    issuer = Issuer(url, fetch or HttpFetch(), clock, WELL_KNOWN)
    return EventIssuer(issuer, audiences or frozenset({settings.issuer}), table.about or url, logouts=False)


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
    web, made, verified = HttpFetch(), list[Round](), found.verified(clock)
    if verified is not None:
        receiver = SignalReceiver(broker, verified)
        made += [Poller(one.url, one.token, web.transport, receiver.event, Pace(clock)).round for one in found.polled]
    if sender is not None:
        made += [_pusher(one, one.push, events, clock, sender, web).round for one in found.told if one.push]
    return tuple(made)


def _pusher(one: Told, url: str, events: EventStream, clock: Clock, sender: Transmitter, web: HttpFetch) -> Pusher:
    receiver = _receiver(one)

    async def pending() -> Sequence[tuple[int, str]]:
        found = await events.pending(receiver.name, BATCH)
        return [(ended.seq, sender.security_event_token(ended, receiver)) for ended in found]

    async def acknowledge(place: int) -> None:
        await events.acknowledge(receiver.name, [place])

    return Pusher(url, one.token, web.transport, pending, acknowledge, Pace(clock))
