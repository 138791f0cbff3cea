"""What a broker leans on that others keep, probed as it would: issuers, trust bundles, certificate, second place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from cryptography import x509

from remit.broker.checkpoints import WAIT
from remit.compose import identities, signals
from remit.config.sections import TlsSection
from remit.config.settings import Settings
from remit.core import audit
from remit.core.audit import Checkpoint
from remit.errors import RemitError, UnavailableError
from remit.identity.fetch import Fetch
from remit.identity.issuers import Issuer
from remit.identity.workloads.bundles import BundleSource
from remit.keys.witness import Aside, FileWitness
from remit.ports import Clock
from remit.ports.targets import DocumentPort

CONFIDENTIAL = (
    "add a confidential client of it to the configuration: a table [[humans]] with `client_secret_file`, whose one "
    "redirect URI at the issuer is <issuer of remit>/oauth/callback"
)
T = TypeVar("T")
PATIENCE = 15.0  # seconds for each, all at once: a document and its keys take two answers


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What came of asking."""

    name: str
    failure: str | None = None  # why there is nothing; None: it answers as it should
    never: tuple[str, ...] = ()  # the values of `humans.acr`, where the issuer says that it proves none of them
    mute: bool = False  # none of its humans can log in to decide, as no client of it has a secret


async def issuers(settings: Settings, clock: Clock, fetch: Fetch) -> Sequence[ProbeResult]:
    """Ask all issuers that the configuration names, or raise what is wrong with it."""
    known = identities.trusted(settings, clock, fetch)
    sources = signals.read(settings, known.sources, clock, fetch).sources
    named: Mapping[str, Issuer] = {url: source.issuer for url, source in sources.items()} | dict(known.issuers)
    found = await asyncio.gather(*(_issuer(one, known.step_up(f"{url}#")) for url, one in named.items()))
    humans_of = () if known.humans is None else known.humans.registrations
    mute = {one.issuer.url for one in humans_of} - {one.issuer.url for one in humans_of if one.secret is not None}
    return [replace(one, mute=one.name in mute) for one in found]


async def _issuer(issuer: Issuer, acr: Sequence[str]) -> ProbeResult:
    about, failure = await _answered(issuer.metadata())
    values = None if about is None else about.acr_values
    never = set(acr) if values is not None and values.isdisjoint(acr) else ()
    return ProbeResult(issuer.url, failure, tuple(sorted(never)))


async def bundles(settings: Settings, reached: DocumentPort) -> Sequence[ProbeResult]:
    """Fetch the bundles of all trust domains that the configuration names, or raise what is wrong with it."""
    return await asyncio.gather(*(_bundle(one.name, identities.near(one, reached)) for one in settings.trust_domains))


async def _bundle(name: str, source: BundleSource) -> ProbeResult:
    found, failure = await _answered(source.fetch(name))
    if found is not None and not (found.authorities or found.jwt.keys or found.wit.keys):
        failure = f"the bundle of `{name}` has no key that signs anything"
    return ProbeResult(name, failure)


async def _answered(asking: Awaitable[T]) -> tuple[T | None, str | None]:
    """Return what was asked for, or why there is nothing, with what is behind it."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await asking, None
    except TimeoutError:
        return None, f"there is no answer within {PATIENCE:g} seconds"
    except RemitError as error:
        behind = error.__cause__
        why = error.detail if behind is None else f"{error.detail}: {getattr(behind, 'detail', None) or behind}"
        return None, why


async def lines(settings: Settings, clock: Clock, reached: DocumentPort) -> Sequence[str]:
    """Ask all of them at once; say of each whether it is loaded."""
    asked = await asyncio.gather(issuers(settings, clock, reached.fetch), bundles(settings, reached))
    named = [(kind, one) for kind, found in zip(("issuer", "trust domain"), asked, strict=True) for one in found]
    not_yet = "not yet, and nobody of it is let in before"
    return [f"{kind} {one.name}: {f'{not_yet}: {one.failure}' if one.failure else 'loaded'}" for kind, one in named]


def leaf(found: TlsSection) -> x509.Certificate:
    """Return the certificate that the listener shows, the first of its file; or raise UnavailableError."""
    try:
        return x509.load_pem_x509_certificates(found.certificate.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise UnavailableError("`tls.certificate` holds no certificate that can be read") from error


def unnamed(certificate: x509.Certificate, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of ``names`` that a certificate is not for, as clients match them (RFC 9525 §6.3)."""
    try:
        listed = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return names
    hosts = {host.lower() for host in listed.get_values_for_type(x509.DNSName)}
    hosts |= {str(address) for address in listed.get_values_for_type(x509.IPAddress)}
    return tuple(name for name in names if name not in hosts and f"*.{name.partition('.')[2]}" not in hosts)


def kept_checkpoint(state: Path, place: Path) -> Checkpoint | None:
    """Return the checkpoint that is kept, by the keys beside the state; None when there is none yet.

    UnavailableError when the place is out or does not answer in two seconds, or what it keeps was not signed here.
    """
    path = state / "audit.vkey"
    keys = [audit.read_verifier_key(line) for line in path.read_text("ascii").split()] if path.exists() else []
    witness = FileWitness(place, keys[0][0] if keys else "", [public for _, public in keys])

    async def last() -> Checkpoint | None:
        return await asyncio.wait_for(Aside().do(witness.last), WAIT)

    try:
        return asyncio.run(last())
    except TimeoutError as error:
        raise UnavailableError("the second place for checkpoints does not answer") from error
