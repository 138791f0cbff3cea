"""The adapters, built from settings. Nothing else names a concrete store, key or engine."""

from __future__ import annotations

import os
import secrets
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from remit.broker import Broker
from remit.broker.connections import Providers
from remit.compose import identities, key_rings, kinds, signals
from remit.compose.identities import TrustedIssuers
from remit.compose.policy import LastGoodPolicies, PolicyDirectory
from remit.compose.signals import ConfiguredSignals
from remit.compose.targets import ReachedTargets
from remit.config.settings import Settings, located
from remit.core import audit
from remit.core.audit import Checkpoint
from remit.core.grant import LOCAL
from remit.core.principal import Operator
from remit.core.task import Subject
from remit.identity.workloads.bundles import TrustBundles
from remit.keys.authority import FileAuthority
from remit.keys.file import FileSealer, load_kek
from remit.keys.signers import FileKeyring
from remit.keys.witness import FileWitness, WitnessThread, log_origin
from remit.kinds.engines import HeldEngines
from remit.oauth.registration import Mac
from remit.ports import Clock
from remit.ports.identity import Workloads
from remit.ports.kind import EngineContext
from remit.ports.targets import TargetsPort
from remit.sessions.revocations import SessionRevocations
from remit.sessions.transmitter import EventStream
from remit.stores import private
from remit.stores.sqlite import SqliteStore
from remit.web.routes import Identity


@dataclass(frozen=True, slots=True)
class Application:
    """Everything behind the surfaces."""

    settings: Settings
    broker: Broker
    tokens: FileKeyring  # sign grants' tokens
    by_rsa: FileKeyring | None  # sign those for services that want RS256; None: none does
    notes: FileKeyring  # sign checkpoints
    witness: FileWitness | None
    operator: Operator
    clock: Clock
    authority: FileAuthority
    origin: str  # the name of the log in its checkpoints
    ended: EventStream  # ends of tasks, for the receivers of signals
    identity: Identity
    bundles: TrustBundles | None
    policies: PolicyDirectory
    signals: ConfiguredSignals
    events: FileKeyring | None  # signs what receivers are told; None: nobody is
    targets: TargetsPort
    client_key: bytes = field(repr=False)  # by it clients are known that registered themselves


def build(settings: Settings, targets: TargetsPort | None = None) -> Application:
    """Open the state and wire the broker over it, or raise with what is wrong and what to do.

    ``targets`` are reached by another process; None: by this one.
    """
    where = settings.places
    with located(where.config):
        private.make_directory(where.state)
        private.make_directory(where.runtime)
        sealer = FileSealer(load_kek(settings.kek, create=not where.database.exists()))
        store = SqliteStore(where.state, sealer)
        try:
            return _wired(settings, sealer, store, targets)
        except BaseException:
            store.abandon()  # and of its lock: who tries again, with what was wrong set right, is not kept out
            raise


def _wired(settings: Settings, sealer: FileSealer, store: SqliteStore, targets: TargetsPort | None) -> Application:
    where, clock, served = settings.places, steady(), kinds.known(settings)
    ring = partial(FileKeyring, where.state / "keys", sealer, clock=clock)
    notes, tokens = ring("audit", "Ed25519"), ring("token", "ES256", overlap=key_rings.OVERLAP)
    log, witness = _witnessed(settings, sealer, notes)
    spiffe = FileAuthority(where.state / "keys", sealer, settings.identity.trust_domain, clock)

    policies = PolicyDirectory(settings.policies, LastGoodPolicies(where.state / "policies.json", sealer))
    there = targets or ReachedTargets(settings, served, clock)
    known = identities.trusted(settings, clock, there.fetch)
    context = EngineContext(clock, secrets.token_bytes, settings.issuer, spiffe)
    own = HeldEngines(served, context)
    broker = Broker(
        store=store,
        kinds=served,
        context=context,
        engines={name: own if kind.keyless else there for name, kind in served.items() if kind.engine is not None},
        sealer=sealer,
        clock=clock,
        elapsed=elapsed,
        new_id=new_id,
        witness=None if witness is None else WitnessThread(witness, partial(_signed, log, notes)),
        sign=partial(_signed, log, notes),
        decide=policies.decide,
        step_up=known.step_up,
        trust_domain=settings.identity.trust_domain,
        at_rest="kek-file",
        revocations=SessionRevocations,
        providers=Providers(there, settings.issuer, lambda: secrets.token_urlsafe(32)),
    )
    policies.broker = broker
    told = signals.read(settings, known.sources, clock, there.fetch)
    bundles = identities.bundles(settings, clock, there)
    platforms = identities.assertions(settings, known, clock, there.fetch)
    who = identity(settings, known, told, clock, identities.attested(settings, bundles, clock, platforms))
    events = ring("events", "RS256") if told.receivers else None
    wanted = any(one.rsa for one in who.services.values())
    by_rsa = ring("services", "RS256", overlap=key_rings.OVERLAP) if wanted else None
    first = settings, broker, tokens, by_rsa, notes, witness, Operator(local_subject()), clock, spiffe, log
    last = told, events, there, sealer.mac(f"registered clients\n{settings.issuer}".encode())
    return Application(*first, EventStream(broker.sessions), who, bundles, policies, *last)


def _witnessed(settings: Settings, sealer: FileSealer, notes: FileKeyring) -> tuple[str, FileWitness | None]:
    """Return the name of the log, and what keeps its checkpoints in a second place."""
    state = settings.places.state
    log = log_origin(state / "keys", sealer, f"{settings.identity.trust_domain}/audit")
    witness = FileWitness(settings.audit.witness, log, ()) if settings.audit.witness else None
    publish(state, log, notes, witness)
    return log, witness


def _signed(log: str, notes: FileKeyring, size: int, root: bytes, epoch: int = 0) -> Checkpoint:
    return audit.checkpoint(log, size, root, notes.signer, epoch)


def identity(
    settings: Settings,
    known: TrustedIssuers,
    heard: ConfiguredSignals,
    clock: Clock,
    workloads: Workloads | None,
    mac: Mac | None = None,
) -> Identity:
    """Return what verifies humans, workloads and signals, and what is known of clients.

    By ``mac`` those are known that registered themselves; None: here they do not.
    """
    themselves = identities.registration(settings, clock, mac)
    deciding = known.humans.deciding if known.humans is not None else ()
    return Identity(
        humans=known.humans,
        id_jag=any(one.id_jag for one in settings.humans),
        logins=known.logins,
        workloads=workloads,
        signals=heard.verified(clock),
        methods=identities.methods(settings),
        native=identities.native_clients(settings),
        issuers={one.issuer.url: one.name or one.issuer.url for one in deciding},
        clients=identities.clients(settings, clock, themselves),
        registration=() if themselves is None else themselves.routes(),
        scopes=identities.scopes(settings),
        services=identities.services(settings),
    )


def publish(state: Path, origin: str, notes: FileKeyring, witness: FileWitness | None) -> None:
    """Tell the keys that verify checkpoints to the second place, and to `remit audit verify`, one a line."""
    publics = [audit.public_bytes(jwk) for jwk in notes.public_jwks()]
    if witness is not None:
        witness.trust(publics)
    path = state / "audit.vkey"
    private.make_file(path)
    keys = (audit.verifier_key(origin, public) for public in publics)
    path.write_text("".join(f"{key}\n" for key in keys), "ascii")


def local_subject() -> Subject:
    """Return who owns this state: a socket proves a uid, never a human, and the ``acr`` says so."""
    return Subject(f"unix://{socket.gethostname()}#{os.geteuid()}", LOCAL)


def new_id(prefix: str) -> str:
    """Return a prefix and 128 random bits. Never a secret."""
    return f"{prefix}_{secrets.token_urlsafe(16)}"


def steady() -> Clock:
    """Return a clock that starts at the wall's time and then cannot be set back; forward corrections are followed."""
    origin = time.time() - elapsed()
    return lambda: datetime.fromtimestamp(max(elapsed() + origin, time.time()), UTC)


def elapsed() -> float:
    """Return seconds by a clock that nobody sets, and that counts the time in which the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
