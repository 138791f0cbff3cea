"""``[[signals]]``: who says that a login has ended, and who is told that a task has; wired.

A table with ``issuer`` is about what comes in, one with ``receiver`` about what goes out. Issuers of ``[[humans]]`` may
push without being named here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

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
class ConfiguredSignals:
    """What is configured. ``sources`` are all issuers of events by URL, those of humans among them."""

    sources: Mapping[str, EventIssuer]
    tables: Sequence[SignalTable] = ()
    keys: EventKeys | None = field(default=None, repr=False)  # sign what receivers are told; None: there are none

    @property
    def receivers(self) -> Sequence[StreamReceiver]:
        """Those who are told; who is not pushed to polls, and shows a token."""
        return [_receiver(one, one.receiver) for one in self.tables if one.receiver]

    def verified(self, clock: Clock) -> IssuedSignals | None:
        """Return what verifies events; None where nobody may say anything."""
        return IssuedSignals(self.sources, clock) if self.sources else None


def read(
    settings: Settings, humans: Mapping[str, EventIssuer], clock: Clock, fetch: Fetch | None = None
) -> ConfiguredSignals:
    """Build what is configured. ``humans`` are the issuers of humans, as sources.

    Raises UnavailableError where a token is no good: at the start, not when it is needed.
    """
    sources = dict(humans)
    for one in settings.signals:
        if one.token_file is not None:
            bearer(one.token_file, SHOWN if one.receiver and not one.push else 1)
        if one.issuer is not None:
            sources[one.issuer] = _source(one, one.issuer, humans, settings, clock, fetch)
    return ConfiguredSignals(sources, settings.signals)


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


async def begin(found: ConfiguredSignals, events: EventStream) -> None:
    """Let every receiver that is new be told of what ends from now on."""
    for one in found.receivers:
        await events.pending(one.name, 1)


def transmitter(found: ConfiguredSignals, events: EventStream, issuer: str) -> Transmitter | None:
    """Return what tells receivers; None where there is nobody to tell."""
    return None if found.keys is None else Transmitter(events, issuer, found.keys, found.receivers)


def _receiver(table: SignalTable, name: str) -> StreamReceiver:
    shows = None if table.push else lambda: bearer(table.token_file, SHOWN)["authorization"]
    return StreamReceiver(name, table.audience[0], shows)


def rounds(
    found: ConfiguredSignals, broker: Broker, events: EventStream, clock: Clock, sender: Transmitter | None
) -> Sequence[Round]:
    """Return what is to be done again and again: fetch events where they wait, and push ours."""
    web, made, verified = HttpFetch(), list[Round](), found.verified(clock)
    if verified is not None:
        take, polled = SignalReceiver(broker, verified).event, [one for one in found.tables if one.poll]
        made += [Poller(str(one.poll), one.token_file, web.transport, take, Pace(clock)).round for one in polled]
    if sender is not None:
        pushed = [one for one in found.tables if one.receiver and one.push]
        made += [_pusher(one, events, clock, sender, web).round for one in pushed]
    return tuple(made)


def _pusher(table: SignalTable, events: EventStream, clock: Clock, sender: Transmitter, web: HttpFetch) -> Pusher:
    receiver = _receiver(table, str(table.receiver))

    async def pending() -> Sequence[tuple[int, str]]:
        found = await events.pending(receiver.name, BATCH)
        return [(ended.seq, sender.security_event_token(ended, receiver)) for ended in found]

    async def acknowledge(place: int) -> None:
        await events.acknowledge(receiver.name, [place])

    return Pusher(str(table.push), table.token_file, web.transport, pending, acknowledge, Pace(clock))
