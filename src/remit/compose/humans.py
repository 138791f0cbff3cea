"""``[[humans]]`` and ``[[workloads]]``: the issuers whose word counts, read strictly, and what verifies it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from remit.compose.mistakes import unknown
from remit.compose.settings import Settings
from remit.core.grant import OWN_ACR
from remit.core.secret import Secret
from remit.errors import InvalidRequestError
from remit.identity.fetch import Fetch, Web
from remit.identity.humans import IssuedHumans, Registration
from remit.identity.issuers import Issuer, check_issuer
from remit.identity.logins import IssuerLogins
from remit.identity.platforms import Platforms, Rule
from remit.jose.jwt import MAX_TEXT, check_claim_name
from remit.ports import Clock
from remit.sessions.events import EventIssuer

MAX_ENTRIES = 64  # of a table

_HUMANS = frozenset({"issuer", "client_id", "client_secret_file", "scopes", "groups_claim", "acr", "id_jag", "name"})
_WORKLOADS = frozenset({"issuer", "audience", "match", "claims"})

_SCOPE = re.compile(r"[!#-\[\]-~]+")  # RFC 6749 §3.3

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Known:
    """What the configured issuers can prove; None where none is configured for it.

    ``logins`` is there where a client has a secret: by no other does a human decide on approvals. ``step_up`` tells, of
    a human (issuer-qualified), which ``acr`` values decide on them. ``sources`` are the issuers of humans as issuers of
    signals; ``issuers`` are all, by URL, so that each has one cache of keys. ``id_jag``: whether identity assertions of
    one of them open tasks.
    """

    humans: IssuedHumans | None
    logins: IssuerLogins | None
    platforms: Platforms | None
    step_up: Callable[[str], tuple[str, ...]]
    sources: Mapping[str, EventIssuer] = field(default_factory=dict)
    issuers: Mapping[str, Issuer] = field(default_factory=dict)
    id_jag: bool = False


class _Issuers:
    """Issuers by URL, each made once."""

    def __init__(self, fetch: Fetch, clock: Clock) -> None:
        self.made: dict[str, Issuer] = {}
        self._fetch, self._clock = fetch, clock

    def at(self, url: str) -> Issuer:
        if url not in self.made:
            self.made[url] = Issuer(url, self._fetch, self._clock)
        return self.made[url]


def known(settings: Settings, clock: Clock, fetch: Fetch | None = None) -> Known:
    """Build what verifies humans and workloads of issuers, or raise InvalidRequestError naming what is wrong."""
    web = Web()
    issuers = _Issuers(fetch or web, clock)
    registrations = _registrations(settings, issuers)
    rules = _rules(settings, registrations, issuers)
    humans = IssuedHumans(registrations, settings.issuer, clock) if registrations else None
    return Known(
        humans=humans,
        logins=IssuerLogins(humans, web.transport) if humans and humans.deciding else None,
        platforms=Platforms(rules, clock) if rules else None,
        step_up=_step_up(registrations),
        sources=_sources(registrations, settings.issuer),
        issuers=issuers.made,
        id_jag=any(one.id_jag for one in registrations),
    )


# -- reading ----------------------------------------------------------------------------------------------------------


def _rows(settings: Settings, part: str, keys: frozenset[str]) -> Sequence[Row]:
    """Return the tables of a part, which have ``keys`` alone."""
    table = settings.parts.get(part, [])
    if not isinstance(table, list) or not all(isinstance(row, Mapping) for row in table) or len(table) > MAX_ENTRIES:
        raise InvalidRequestError(f"`{part}` must be a list of at most {MAX_ENTRIES} tables: [[{part}]]")
    for row in table:
        for key in row:
            if key not in keys:
                raise unknown(f"{part}.{key}", keys)
    return table


def _registrations(settings: Settings, issuers: _Issuers) -> tuple[Registration, ...]:
    rows = _rows(settings, "humans", _HUMANS)
    found = tuple(_registration(row, issuers) for row in rows)
    if len({(one.issuer.url, one.client_id) for one in found}) != len(found):
        raise InvalidRequestError("`humans` has a client twice")
    alike = {(one.issuer.url, one.groups, one.acr, one.id_jag) for one in found}
    if len({one.issuer.url for one in found}) != len(alike):
        raise InvalidRequestError("`groups_claim`, `acr` and `id_jag` must be the same for all clients at one issuer")
    return found


def _registration(row: Row, issuers: _Issuers) -> Registration:
    scopes = _texts(row, "humans.scopes", ("openid",))
    if "openid" not in scopes or not all(_SCOPE.fullmatch(scope) for scope in scopes):
        raise InvalidRequestError("`humans.scopes` must list scopes, and `openid` among them")
    id_jag = row.get("id_jag", False)
    if not isinstance(id_jag, bool):
        raise InvalidRequestError("`humans.id_jag` must be true or false")
    return Registration(
        issuer=issuers.at(check_issuer(row.get("issuer"), "`humans.issuer`")),
        client_id=_text(row, "humans.client_id"),
        secret=_secret(Path(_text(row, "humans.client_secret_file"))) if "client_secret_file" in row else None,
        scopes=scopes,
        groups=check_claim_name(row["groups_claim"], "`humans.groups_claim`") if "groups_claim" in row else None,
        acr=_acr(row),
        id_jag=id_jag,
        name=_text(row, "humans.name") if "name" in row else "",
    )


def _acr(row: Row) -> tuple[str, ...]:
    found = _texts(row, "humans.acr", ())
    if OWN_ACR & set(found):
        raise InvalidRequestError("`humans.acr` lists a word of remit's own, which no issuer can say")
    return found


def _rules(settings: Settings, registrations: Sequence[Registration], issuers: _Issuers) -> tuple[Rule, ...]:
    found = tuple(_rule(row, settings.issuer, issuers) for row in _rows(settings, "workloads", _WORKLOADS))
    humans = {(one.issuer.url, one.client_id) for one in registrations}
    if any((rule.issuer.url, rule.audience) in humans for rule in found):
        raise InvalidRequestError(
            "`workloads.audience` is a client of `humans` at the same issuer",
            help="its ID tokens would pass for workloads: have tokens of workloads made for another audience",
        )
    return found


def _rule(row: Row, broker: str, issuers: _Issuers) -> Rule:
    match, claims = row.get("match"), _texts(row, "workloads.claims", ())
    if not isinstance(match, Mapping) or not 0 < len(match) <= MAX_ENTRIES:
        raise InvalidRequestError(
            "`workloads.match` must say what claims have to be",
            help='an issuer may sign for strangers too: match = { sub = "…" }',
        )
    return Rule(
        issuer=issuers.at(check_issuer(row.get("issuer"), "`workloads.issuer`")),
        audience=_text(row, "workloads.audience") if "audience" in row else broker,
        match={
            check_claim_name(name, "a name in `workloads.match`"): _listed(value, "workloads.match")
            for name, value in match.items()
        },
        claims=tuple(check_claim_name(name, "a name in `workloads.claims`") for name in claims),
    )


def _text(row: Row, what: str) -> str:
    """Return the text of a setting, which ``what`` names in full."""
    return _one(row.get(what.rpartition(".")[2]), what)


def _one(value: object, what: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise InvalidRequestError(f"`{what}` must be text")
    return value


def _texts(row: Row, what: str, default: tuple[str, ...]) -> tuple[str, ...]:
    """Return a setting that is a list of text. An empty list is refused: it could mean all or nothing."""
    name = what.rpartition(".")[2]
    return _listed(row[name], what) if name in row else default


def _listed(value: object, what: str) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not 0 < len(values) <= MAX_ENTRIES:
        raise InvalidRequestError(f"`{what}` must list 1 to {MAX_ENTRIES} texts")
    return tuple(_one(item, what) for item in values)


def _secret(path: Path) -> Secret:
    if not path.is_absolute():
        raise InvalidRequestError("`humans.client_secret_file` must be an absolute path")
    try:
        mode, text = path.stat().st_mode, path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError("`humans.client_secret_file` cannot be read") from error
    if mode & 0o077:
        raise InvalidRequestError(
            "`humans.client_secret_file` can be read or written by others", help=f"chmod 600 {path.name}"
        )
    return Secret(_one(text.removesuffix("\n"), "humans.client_secret_file"))


# -- what follows -----------------------------------------------------------------------------------------------------


def _step_up(registrations: Sequence[Registration]) -> Callable[[str], tuple[str, ...]]:
    """Return what tells the ``acr`` values of a human's issuer; any is enough where none are configured."""
    strong = {one.issuer.url: one.acr for one in registrations}
    return lambda sub: strong.get(sub.partition("#")[0], ())


def _sources(registrations: Sequence[Registration], broker: str) -> Mapping[str, EventIssuer]:
    """Return the issuers of humans as issuers of signals: to a client of theirs, or to the broker by its own name."""
    clients: dict[str, set[str]] = {}
    for one in registrations:
        clients.setdefault(one.issuer.url, set()).add(one.client_id)
    issuers = {one.issuer.url: one.issuer for one in registrations}
    return {url: EventIssuer(issuers[url], frozenset(ids | {broker}), about=url) for url, ids in clients.items()}
