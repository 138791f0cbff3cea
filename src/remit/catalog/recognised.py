"""Whose a key is that was found somewhere: by the variable that holds it, and by what it looks like. Pure.

Names and values are what somebody wrote into a file. They choose among the providers of the catalog, and never a host;
where the two contradict each other nothing is chosen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from remit.catalog import Provider, load

MIN_KEY = 16  # characters
MAX_KEY = 4_096
_PREFIX = 3  # characters of literal text that say something
_TELLING = 6  # of which the lengths that follow need not be right
_KEY = re.compile(r"[!-~]+")
_SECRET = re.compile(r".*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|PAT|DSN|_PWD)", re.IGNORECASE)
_OPEN = re.compile(r".*(?:PUBLIC|PUBLISHABLE|ANON)_?[A-Z_]*|NEXT_PUBLIC_.*|VITE_.*", re.IGNORECASE)
_STAND_IN = re.compile(
    r".*(?:\$\{|\$\(|\{\{|<[^<>]*>|`).*|\$[A-Za-z_]\w*|%\w+%|(?:placeholder|op|env|file|vault|keyring):.*"
    r"|.*(?:your[-_ ]|changeme|change[-_]me|replace[-_]|example|dummy|x{6,}|\.\.\.|…).*|(.)\1*",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Recognised:
    """A key: of this provider, or of none, and then ``why`` it is not to be moved."""

    provider: Provider | None
    why: str = ""


def recognise(variable: str, value: str) -> Recognised | None:
    """Say whose key a variable holds; None: it holds none, or what stands in for one."""
    if not value or len(value) > MAX_KEY or _STAND_IN.fullmatch(value):
        return None
    named, alike = by_variable(variable), by_shape(value)
    if named is None and not alike:
        return _unknown(variable, value)
    if len(value) < MIN_KEY or not _KEY.fullmatch(value):
        return Recognised(None, "no key of an API looks like this")
    if named is not None and alike and named not in alike:
        return Recognised(None, f"its name says {named.name}, and it looks like a key of {_names(alike)}")
    read = tuple(provider for provider in alike if provider.variables)  # what no client reads was meant otherwise
    if named is None and len(read) != 1:
        return Recognised(None, f"it may be a key of {_names(alike)}")
    return _placed(named or read[0])


def _placed(provider: Provider) -> Recognised:
    if provider.destination is None:
        return Recognised(None, f"{provider.title} has a host of your own: add the resource yourself")
    if "{user}" in provider.key.format:
        return Recognised(None, f"{provider.title} takes it with the name of whose it is: add the resource yourself")
    return Recognised(provider)


def _unknown(variable: str, value: str) -> Recognised | None:
    try:
        password = urlsplit(value).password if "://" in value else None
    except ValueError:
        password = None
    if password:
        return Recognised(None, "a URL with a password: see docs/how-to/add-postgres.md for a database")
    secret = _SECRET.fullmatch(variable) and not _OPEN.fullmatch(variable)
    if secret and len(value) >= MIN_KEY and _KEY.fullmatch(value) and "://" not in value:
        return Recognised(None, "it looks like a secret, and no provider of the catalog is known by its name")
    return None


def _names(providers: tuple[Provider, ...]) -> str:
    return " or ".join(provider.name for provider in providers)


def by_variable(name: str) -> Provider | None:
    """Return the provider whose clients read a variable; None too where there are several."""
    found = [provider for provider in load().values() if name in provider.variables]
    return found[0] if len(found) == 1 else None


def by_shape(value: str) -> tuple[Provider, ...]:
    """Return the providers whose keys begin as no others do, and as this value does."""
    if not MIN_KEY <= len(value) <= MAX_KEY:
        return ()
    telling = _telling()
    return tuple(
        provider
        for provider in load().values()
        if value.startswith(own := _prefix(provider))
        and own in telling
        and (len(own) >= _TELLING or re.fullmatch(_shape(provider), value))
    )


def beginnings() -> re.Pattern[str]:
    """Return what finds in a text whatever begins as keys of some provider alone do."""
    return re.compile(rf"(?<![A-Za-z0-9._-])(?:{'|'.join(map(re.escape, _telling()))})[A-Za-z0-9._-]+")


def _telling() -> list[str]:
    prefixes = {_prefix(provider) for provider in load().values()}
    long = sorted(each for each in prefixes if len(each) >= _PREFIX)
    return [own for own in long if not any(other != own and other.startswith(own) for other in prefixes)]


def _prefix(provider: Provider) -> str:
    return provider.shape[0].text


def _shape(provider: Provider) -> str:
    parts = (re.escape(part.text) or f"[{re.escape(part.alphabet)}]{{{part.count}}}" for part in provider.shape)
    return "".join(parts)


def shown(value: str) -> str:
    """Return what may be told of a key: how keys of its provider begin, and its length."""
    alike = by_shape(value)
    return f"{_prefix(alike[0]) if alike else ''}… ({len(value)} characters)"
