"""``[[trust_domains]]`` and the doors of workloads: whose bundles count, in which names, and the TLS listener."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from remit.compose.mistakes import unknown
from remit.compose.settings import Settings
from remit.core import spiffe
from remit.core.principal import JWT_SPIFFE
from remit.errors import InvalidRequestError
from remit.identity.attested import Assertion, Attested
from remit.identity.bundles import Bundles, Source
from remit.identity.certificates import Certificates
from remit.identity.fetch import check_url
from remit.identity.sources import ApiSource, FileSource, WebSource
from remit.identity.svid import JwtSvids
from remit.identity.wit import Wits
from remit.ports import Clock
from remit.web.tls import Door

_KEYS = {"name", "bundle_file", "bundle_url", "workload_api", "allow", "ca_file"}
_SOURCES = ("bundle_file", "bundle_url", "workload_api")


@dataclass(frozen=True, slots=True)
class TrustDomain:
    """A trust domain whose workloads are let in. ``allow`` are patterns of their names, all of this trust domain."""

    name: str
    source: Source
    allow: tuple[str, ...]


def read(settings: Settings) -> tuple[TrustDomain, ...]:
    """Return the trust domains of the configuration, or raise InvalidRequestError."""
    table = settings.parts.get("trust_domains", [])
    if not isinstance(table, list) or not all(isinstance(row, Mapping) for row in table):
        raise InvalidRequestError("`trust_domains` must be a list of tables: [[trust_domains]]")
    found = tuple(_domain(row) for row in table)
    names = [one.name for one in found]
    if len(set(names)) != len(names):
        raise InvalidRequestError("a trust domain is configured twice; its bundle has one source")
    if settings.trust_domain in names:
        raise InvalidRequestError(f"`{settings.trust_domain}` is the broker's own trust domain")
    return found


def _domain(row: Mapping[str, object]) -> TrustDomain:
    for key in row:
        if key not in _KEYS:
            raise unknown(f"trust_domains.{key}", _KEYS)
    name = _text(row, "name")
    try:
        path = spiffe.parse(f"spiffe://{name}").path
    except InvalidRequestError:
        path = name
    if path:
        raise InvalidRequestError("`trust_domains.name` must be the name of a trust domain, such as `example.org`")
    return TrustDomain(name, _source(row), _allow(row, name))


def _text(row: Mapping[str, object], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidRequestError(f"`trust_domains.{key}` must be text")
    return value


def _path(row: Mapping[str, object], key: str) -> Path:
    path = Path(_text(row, key))
    if not path.is_absolute():
        raise InvalidRequestError(f"`trust_domains.{key}` must be an absolute path")
    return path


def _source(row: Mapping[str, object]) -> Source:
    named = [key for key in _SOURCES if key in row]
    if len(named) != 1:
        raise InvalidRequestError(f"a trust domain has exactly one of `{'`, `'.join(_SOURCES)}`")
    if "ca_file" in row and named != ["bundle_url"]:
        raise InvalidRequestError("`trust_domains.ca_file` goes with `bundle_url`")
    match named[0]:
        case "bundle_file":
            return FileSource(_path(row, "bundle_file"))
        case "bundle_url":
            return WebSource(_url(row), _path(row, "ca_file") if "ca_file" in row else None)
    return ApiSource(_socket(_text(row, "workload_api")))


def _url(row: Mapping[str, object]) -> str:
    url = check_url(row.get("bundle_url"), "`trust_domains.bundle_url`")
    if not url.startswith("https://"):
        raise InvalidRequestError("`trust_domains.bundle_url` must be https: whoever answers there is believed")
    return url


def _socket(text: str) -> str:
    if not text.startswith(("unix:///", "tcp://")):
        raise InvalidRequestError("`trust_domains.workload_api` must be unix:///path or tcp://ip:port")
    return text


def _allow(row: Mapping[str, object], name: str) -> tuple[str, ...]:
    patterns = row.get("allow")
    if not isinstance(patterns, list) or not patterns or len(patterns) > spiffe.MAX_PATTERNS:
        raise InvalidRequestError(
            f"`trust_domains.allow` must list 1 to {spiffe.MAX_PATTERNS} patterns of workloads",
            help=f'for every workload there: allow = ["spiffe://{name}/**"]',
        )
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern.startswith((f"spiffe://{name}/", f"wimse://{name}/")):
            raise InvalidRequestError("`trust_domains.allow` must hold patterns of that trust domain")
        spiffe.check_pattern(pattern)
    return tuple(patterns)


# -- what is built of it ----------------------------------------------------------------------------------------------


def bundles(domains: Sequence[TrustDomain], clock: Clock) -> Bundles | None:
    """Return the bundles of the trust domains; None when there are none."""
    return Bundles({one.name: one.source for one in domains}, clock) if domains else None


def attested(
    domains: Sequence[TrustDomain],
    held: Bundles | None,
    issuer: str,
    clock: Clock,
    platforms: Mapping[str, Assertion],
) -> Attested | None:
    """Return what verifies workloads: of trust domains, and of ``platforms`` by their kind of client assertion."""
    if held is None:
        return Attested(platforms) if platforms else None
    allow = tuple(pattern for one in domains for pattern in one.allow)
    svids = JwtSvids(held, allow, issuer, clock)
    return Attested(
        {**platforms, JWT_SPIFFE: svids.verified}, Certificates(held, allow, clock), Wits(held, allow, clock)
    )


def methods(domains: Sequence[TrustDomain], settings: Settings) -> tuple[str, ...]:
    """Return how workloads may authenticate (draft-ietf-oauth-spiffe-client-auth §4).

    WIMSE's headers and the tokens of platforms work too; server metadata has no name for them.
    """
    if not domains:
        return ()
    return ("spiffe_jwt",) if settings.tls is None else ("spiffe_jwt", "spiffe_x509")


def door(settings: Settings, held: Bundles | None) -> Door | None:
    """Return what TLS handshakes use; None without ``[tls]``. Clients are asked for certificates if any could count."""
    if settings.tls is None:
        return None
    _check_private(settings.tls.key)
    return Door(settings.tls.certificate, settings.tls.key, lambda: None if held is None else held.authorities())


def _check_private(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InvalidRequestError("`tls.key` cannot be read") from error
    if mode & 0o077:
        raise InvalidRequestError("`tls.key` can be read or written by others", help=f"chmod 600 {path.name}")
