"""``[[signals]]``: who says that a login has ended, and who is told that a task has; wired.

A table with ``issuer`` is about what comes in, one with ``receiver`` about what goes out. Issuers of ``[[humans]]`` may
push without being named here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from remit.compose.rounds import Round
from remit.config.sections import SignalTable
from remit.config.settings import Settings
from remit.identity.fetch import Fetch, HttpFetch
from remit.identity.issuers import Issuer
from remit.ports import Clock
from remit.ports.broker import BrokerPort
from remit.ports.events import EventPort
from remit.sessions.delivery import Poller, Pusher, bearer
from remit.sessions.events import EventIssuer, IssuedSignals, SignalReceiver
from remit.sessions.transmitter import StreamReceiver

WELL_KNOWN = "/.well-known/ssf-configuration"
SHOWN = 32  # characters at least of a token that somebody shows to us: hex of 128 random bits
BATCH = 16  # events pushed before the next are read


@dataclass(frozen=True, slots=True)
class ConfiguredSignals:
    """What is configured. ``sources`` are all issuers of events by URL, those of humans among them."""

    sources: Mapping[str, EventIssuer]
    tables: Sequence[SignalTable] = ()

    @property
    def receivers(self) -> Sequence[StreamReceiver]:
        """Those who are told; who is not pushed to polls, and shows a token."""
        return [_receiver(one, one.receiver) for one in self.tables if one.receiver]

    def verified(self, clock: Clock) -> IssuedSignals | None:
        """Return what verifies events; None where nobody may say anything."""
        return IssuedSignals(self.sources, clock) if self.sources else None


def read(settings: Settings, humans: Mapping[str, EventIssuer], clock: Clock, fetch: Fetch) -> ConfiguredSignals:
    """Build what is configured. ``humans`` are the issuers of humans, as sources.

    Raises UnavailableError where a token is no good: at the start, not when it is needed.
    """
    sources = dict(humans)
    for one in settings.signals:
        if one.token_file is not None:
            bearer(one.token_file, SHOWN if one.receiver and not one.push else 1)
        if one.issuer is None:
            continue
        human, audiences = humans.get(one.issuer), frozenset(one.audience)
        if human is not None:
            sources[one.issuer] = EventIssuer(human.issuer, human.audiences | audiences, one.issuer)
        else:
            issuer = Issuer(one.issuer, fetch, clock, WELL_KNOWN)
            audiences = audiences or frozenset({settings.issuer})
            sources[one.issuer] = EventIssuer(issuer, audiences, one.about or one.issuer, logouts=False)
    return ConfiguredSignals(sources, settings.signals)


def _receiver(table: SignalTable, name: str) -> StreamReceiver:
    shows = None if table.push else lambda: bearer(table.token_file, SHOWN)["authorization"]
    return StreamReceiver(name, table.audience[0], shows)


def rounds(found: ConfiguredSignals, broker: BrokerPort, clock: Clock, events: EventPort | None) -> Sequence[Round]:
    """Return what is to be done again and again: fetch events where they wait, and push ours."""
    web, made, verified = HttpFetch(), list[Round](), found.verified(clock)
    if verified is not None:
        take, polled = SignalReceiver(broker, verified).event, [one for one in found.tables if one.poll]
        made += [Poller(str(one.poll), one.token_file, web.transport, clock, take).round for one in polled]
    if events is not None:
        pushed = [one for one in found.tables if one.receiver and one.push]
        made += [_pusher(one, events, clock, web).round for one in pushed]
    return tuple(made)


def _pusher(table: SignalTable, events: EventPort, clock: Clock, web: HttpFetch) -> Pusher:
    name = str(table.receiver)

    async def acknowledge(jti: str) -> None:
        await events.acknowledge_events(name, [jti])

    pending = partial(events.pending_events, name, BATCH)
    return Pusher(str(table.push), table.token_file, web.transport, clock, pending, acknowledge)
