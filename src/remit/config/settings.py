"""The one loader: places and the file as ``Settings``, which hold together; never a secret."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import msgspec
from msgspec.inspect import DictType, StructType, UnionType, VarTupleType, type_info

from remit import catalog
from remit.catalog import Provider
from remit.config.sections import Configuration, Section, loopback, unknown
from remit.config.values import Address, decode
from remit.errors import InvalidRequestError

S = TypeVar("S", bound=Section)

_FIELD = re.compile(r"Object (contains unknown|missing required) field `(.*)`")
_EXPECTED = re.compile(r"Expected `(\w+)[^`]*`(?: of length [<>]= (\d+))?(?:, got .*)?")
_SETTING = re.compile(r"`([a-z][a-z0-9_-]*(?:\.[^`.]+)?)(?:\.[^`]*)?`")  # or a section, as details begin with it
_HEADER = re.compile(r"\s*\[\[?\s*([\w-]+)\s*\]")
_NAMED = {"str": "text", "int": "a whole number", "bool": "true or false", "array": "a list", "object": "a table"}


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are. ``state`` holds remit.db, kek, lock and log; ``runtime`` the sockets."""

    config: Path
    state: Path
    runtime: Path

    @property
    def control(self) -> Path:
        return self.runtime / "control.sock"  # the operator's

    @property
    def database(self) -> Path:
        return self.state / "remit.db"

    @property
    def providers(self) -> Path:
        return self.config.with_name("providers.toml")  # of the catalog, the operator's own

    @property
    def lock(self) -> Path:
        return self.state / "lock"  # of whoever serves the state

    @property
    def log(self) -> Path:
        return self.state / "log"  # what the broker says to its operator, never to a caller

    @property
    def note(self) -> Path:
        return self.state / "broker"  # says where the broker of this state listens: ``remit.sdk.place`` reads it

    def handover(self, edge: str) -> Path:
        return self.runtime / f"handover-{edge}.sock"  # where the operator's launchers pass the listeners of runs


class Settings(Configuration, frozen=True, kw_only=True):
    """What is configured, and where it applies."""

    places: Places
    providers: Mapping[str, Provider] = MappingProxyType({})  # the operator's own

    def _check(self) -> None:
        super()._check()
        _check_issuers(self)
        own, domains = self.identity.trust_domain, [one.name for one in self.trust_domains]
        _check_unique(domains, "a trust domain is configured twice; its bundle has one source")
        if own in domains:  # its agents would come in as what somebody attests
            raise InvalidRequestError(
                f"`trust_domains` names `{own}`, of which the broker itself is the authority",
                help="set `identity.trust_domain` to a name of the broker's own",
            )
        _check_signals(self)
        _check_unique((one.id for one in self.clients), "two of `clients` have the same `id`")

    @property
    def api(self) -> Address | None:
        return loopback(self.listen.api, "listen.api")  # of the control plane over TCP; None: no such listener

    @property
    def gateway(self) -> Address | None:
        return loopback(self.listen.gateway, "listen.gateway")  # for callers outside runs; None: no such listener

    @property
    def kek(self) -> Path:
        return self.keys.kek or self.places.state / "kek"

    @property
    def policies(self) -> Path | None:
        return None if self.policy is None else self.policy.directory

    @property
    def issuer(self) -> str:
        """The issuer of tokens: the API's own URL, that of the TLS listener if there is one."""
        return (self.tls or self.api or Address(("127.0.0.1", 8470))).url


def places(environ: Mapping[str, str]) -> Places:
    """Return the places by the XDG base directory rules, with ``REMIT_STATE_DIR`` above them."""
    home = Path(environ.get("HOME", "/"))
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "remit" / "config.toml"
    own = environ.get("REMIT_STATE_DIR")
    state = Path(own) if own else Path(environ.get("XDG_STATE_HOME") or home / ".local/state") / "remit"
    shared = environ.get("XDG_RUNTIME_DIR")
    runtime = Path(shared) / "remit" if shared and not own else state / "run"
    return Places(config, state.absolute(), runtime.absolute())


def load(environ: Mapping[str, str]) -> Settings:
    """Read the configuration, and the providers beside it, or raise InvalidRequestError naming the file and line."""
    where = places(environ)
    raw = _tables(where.config)
    with located(where.config):
        found = read(where, raw)
    with located(where.providers):
        own = catalog.of(_tables(where.providers), catalog.shipped())
    return msgspec.structs.replace(found, providers=own)


def _tables(path: Path) -> Mapping[str, object]:
    """Return decoded TOML, or nothing where there is no file."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequestError(f"`{path}` cannot be read: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"`{path}` cannot be read: it is not readable UTF-8 text") from error


def read(where: Places, raw: Mapping[str, object]) -> Settings:
    """Build settings from decoded TOML, or raise InvalidRequestError naming the setting."""
    return Settings(places=where, **msgspec.structs.asdict(converted(raw, Configuration)))


def converted(raw: Mapping[str, object], whole: type[S]) -> S:
    """Return decoded TOML as the settings of a file, or raise InvalidRequestError naming the setting."""
    try:
        return msgspec.convert(raw, whole, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), whole) from None


def _refusal(said: str, whole: type[Section]) -> InvalidRequestError:
    """Return what msgspec refused, in the words of the file."""
    text, _, path = said.partition(" - at `$.")
    name = re.sub(r"\[.*?\]", "", path.rstrip("`"))
    field, expected = _FIELD.fullmatch(text), _EXPECTED.fullmatch(text)
    if field is not None:
        full = f"{name}.{field[2]}".lstrip(".")
        if field[1] == "missing required":
            return InvalidRequestError(f"`{full}` is missing")
        what = "a section" if whole is Configuration and not name else "a setting"
        return unknown(full, _section(name, whole)[0] if name else whole.__struct_fields__, what)
    if expected is None:
        return InvalidRequestError(f"`{name}` {text}")
    if "." not in name and whole is Configuration:
        return InvalidRequestError(f"`{name}` must be {_section(name, whole)[1]}")
    kind, most = expected.groups()
    return InvalidRequestError(f"`{name}` must be {_NAMED[kind]}{f' of at most {most}' if most else ''}")


def _section(name: str, file: type[Section]) -> tuple[Sequence[str], str]:
    """Return the settings of a section, and how it is written."""
    whole = type_info(file)
    found = next(one.type for one in whole.fields if one.name == name) if isinstance(whole, StructType) else whole
    found = found.types[0] if isinstance(found, UnionType) else found
    table, form = found, f"a section: [{name}]"
    if isinstance(found, VarTupleType):
        table = found.item_type
        form = f"a list of {f'at most {found.max_length} ' if found.max_length else ''}tables: [[{name}]]"
    if isinstance(found, DictType):
        table, form = found.value_type, f"sections by name: [{name}.NAME]"
    return table.cls.__struct_fields__ if isinstance(table, StructType) else (), form


@contextmanager
def located(config: Path, text: str | None = None) -> Iterator[None]:
    """Have a refusal from within that names a setting say in which file it is, and in which line if that is clear."""
    try:
        yield
    except InvalidRequestError as error:
        named = _SETTING.match(error.detail)
        if named is None or (text is None and not config.exists()):
            raise
        line = line_of(config.read_text("utf-8") if text is None else text, named[1])
        where = str(config) if line is None else f"{config}:{line}"
        raise InvalidRequestError(f"{where}: {error.detail}", help=error.help) from error


def line_of(text: str, name: str) -> int | None:
    """Return the line, from 1, where TOML text has a setting (``section.setting``) or section; None unless just one."""
    section, _, key = name.partition(".")
    wanted, current, found = re.compile(rf'\s*"?{re.escape(key or section)}"?\s*='), "", []
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        current = header[1] if header else current
        at = wanted.match(line) and current == (section if key else "")
        if at or (header and not key and current == section):
            found.append(number)
    return found[0] if len(found) == 1 else None


def _check_unique(values: Iterable[object], said: str) -> None:
    found = list(values)
    if len(set(found)) != len(found):
        raise InvalidRequestError(said)


def _check_issuers(settings: Settings) -> None:
    """Refuse issuers that contradict themselves, and an SVID of the broker's own as the token of an issuer."""
    humans, workloads = settings.humans, settings.workloads
    for section, tables in (("humans", humans), ("workloads", workloads)):
        if settings.issuer in {one.issuer.rstrip("/") for one in tables}:
            raise InvalidRequestError(
                f"`{section}` names the broker itself as an issuer", help="it believes others alone"
            )
    _check_unique(((one.issuer, one.client_id) for one in humans), "`humans` has a client twice")
    _check_unique(
        (alike[0] for alike in {(one.issuer, one.groups_claim, one.acr, one.id_jag) for one in humans}),
        "`groups_claim`, `acr` and `id_jag` must be the same for all clients at one issuer",
    )
    clients = {(one.issuer, one.client_id) for one in humans}
    if any((rule.issuer, rule.audience or settings.issuer) in clients for rule in workloads):
        raise InvalidRequestError(
            "`workloads.audience` is a client of `humans` at the same issuer",
            help="its ID tokens would pass for workloads: have tokens of workloads made for another audience",
        )


def _check_signals(settings: Settings) -> None:
    humans = {one.issuer for one in settings.humans}
    heard = [one for one in settings.signals if one.issuer]
    _check_unique((one.issuer for one in heard), "`signals.issuer` names the same issuer twice")
    told = (one.receiver for one in settings.signals if one.receiver)
    _check_unique(told, "`signals.receiver` is there twice")
    for one in heard:
        about = one.about or one.issuer
        if about not in humans:
            raise InvalidRequestError(
                "`signals` must be about an issuer of `humans`", help="name that issuer with `about`, or configure it"
            )
        if one.issuer in humans and about != one.issuer:
            raise InvalidRequestError("an issuer of `humans` speaks of its own humans, and of no others")
