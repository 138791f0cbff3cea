"""The sections of the configuration file. Unknown settings are refused; ``docs/reference/configuration.md`` has all."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from remit.config.values import (
    MAX_ENTRIES,
    Address,
    Claim,
    IssuerUrl,
    Name,
    Text,
    Texts,
    TrustDomainName,
    Url,
    decode,
    plain,
)
from remit.core import spiffe
from remit.core.grant import OWN_ACR
from remit.errors import InvalidRequestError

MAX_CLIENTS = 256
MAX_REDIRECTS = 20  # of one client
MAX_ID = 512  # characters

_HTTPS = 443
_SCOPE = re.compile(r"[!#-\[\]-~]+")  # RFC 6749 §3.3
_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]{0,31}:[A-Za-z0-9/?\[\]!$&'()*+,;=._~:%-]+")
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_SOURCES = ("bundle_file", "bundle_url", "workload_api")


class Section(Struct, frozen=True, forbid_unknown_fields=True):
    """A section or table: its fields are its settings."""

    def __post_init__(self) -> None:
        """Hold the values themselves, which anything can encode, once they were read as what they have to be."""
        for name in self.__struct_fields__:
            force_setattr(self, name, plain(getattr(self, name)))
        self._check()

    def _check(self) -> None:
        """Refuse what no settings could mean together."""


class ListenSection(Section, frozen=True):
    """Where callers outside runs are served: a loopback address with a port, or ``off``."""

    api: str = "127.0.0.1:8470"
    gateway: str = "127.0.0.1:8471"

    def _check(self) -> None:
        for name in self.__struct_fields__:
            loopback(getattr(self, name), f"listen.{name}")


def loopback(text: str, name: str) -> Address | None:
    """Return the address that a setting of ``[listen]`` has; None: nothing listens there."""
    if text == "off":
        return None
    try:
        address = decode(Address, text)
    except ValueError:
        raise InvalidRequestError(f'`{name}` must be "off" or a loopback address with a port') from None
    if not ipaddress.ip_address(address[0]).is_loopback:
        raise InvalidRequestError(
            f"`{name}` must be a loopback address", help="other hosts reach the listener of `[tls]` alone"
        )
    return address


def unknown(name: str, known: Iterable[str], what: str = "a setting") -> InvalidRequestError:
    """Return the refusal of a name, a section or ``section.setting``; ``known`` are the last parts that there are."""
    section, dot, last = name.rpartition(".")
    among = sorted(known)
    near = get_close_matches(last, among, 1)
    all_ = ", ".join(f"`{section}{dot}{one}`" for one in among)
    told = f"did you mean `{section}{dot}{near[0]}`?" if near else f"there are {all_}"
    return InvalidRequestError(f"`{name}` is not {what}", help=told)


class AuditSection(Section, frozen=True):
    """``witness``: a directory, best under other custody, that keeps checkpoints of the audit log."""

    witness: Path | None = None


class KeysSection(Section, frozen=True):
    """``kek``: the file of the key-encryption key."""

    kek: Path | None = None


class IdentitySection(Section, frozen=True):
    """``trust_domain``: what names the broker's own identities, and its log."""

    trust_domain: TrustDomainName = TrustDomainName("remit.local")


class PolicySection(Section, frozen=True):
    """``directory``: where the Cedar files are."""

    directory: Path


class TlsSection(Section, frozen=True):
    """The TLS listener. ``names`` are the hosts it answers to; the first is the one in the issuer's URL."""

    listen: Address  # any address: this listener alone may be reached from other hosts
    certificate: Path
    key: Path
    names: tuple[str, ...]

    def _check(self) -> None:
        if not self.names or not all(_is_host(name) for name in self.names):
            raise InvalidRequestError("`tls.names` must list the host names, in lower case, that clients use")

    @property
    def url(self) -> str:
        return f"https://{self._hosts(self.names[0])[0]}"  # the base of the control plane, and the issuer

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset(host for name in self.names for host in self._hosts(name))  # what a Host header may hold

    def _hosts(self, name: str) -> tuple[str, ...]:
        host = f"[{name}]" if ":" in name else name
        port = self.listen[1]
        return (host, f"{host}:{port}") if port == _HTTPS else (f"{host}:{port}",)


def _is_host(name: str) -> bool:
    try:
        return str(ipaddress.ip_address(name)) == name
    except ValueError:
        return _HOST.fullmatch(name) is not None


class HumanTable(Section, frozen=True):
    """A client of remit's, or of an application whose ID tokens agents bring, at an issuer of humans."""

    issuer: IssuerUrl
    client_id: Text
    client_secret_file: Path | None = None
    scopes: Texts = Texts(("openid",))
    groups_claim: Claim | None = None
    acr: Texts = Texts()
    id_jag: bool = False
    name: Text = Text("")

    def _check(self) -> None:
        if "openid" not in self.scopes or not all(_SCOPE.fullmatch(scope) for scope in self.scopes):
            raise InvalidRequestError("`humans.scopes` must list scopes, and `openid` among them")
        if OWN_ACR & set(self.acr):
            raise InvalidRequestError("`humans.acr` lists a word of remit's own, which no issuer can say")


class WorkloadTable(Section, frozen=True):
    """A rule for tokens of a platform. ``audience`` None: they are made for the broker's issuer."""

    issuer: IssuerUrl
    audience: Text | None = None
    match: dict[str, Texts] = {}
    claims: Texts = Texts()

    def _check(self) -> None:
        if not 0 < len(self.match) <= MAX_ENTRIES:
            raise InvalidRequestError(
                "`workloads.match` must say what claims have to be",
                help='an issuer may sign for strangers too: match = { sub = "…" }',
            )
        for setting in ("match", "claims"):
            for name in getattr(self, setting):
                try:
                    decode(Claim, name)
                except ValueError as error:
                    raise InvalidRequestError(f"`workloads.{setting}` has a name that {error}") from error


class TrustDomainTable(Section, frozen=True):
    """A trust domain whose workloads are let in. ``allow`` are patterns of their names, all of this trust domain."""

    name: TrustDomainName
    bundle_file: Path | None = None
    bundle_url: Url | None = None
    workload_api: str | None = None
    ca_file: Path | None = None
    endpoint_id: str | None = None
    bootstrap_file: Path | None = None
    allow: tuple[str, ...] = ()
    jwt_svids_once: bool = False

    def _check(self) -> None:
        self._check_endpoint()
        if sum(getattr(self, name) is not None for name in _SOURCES) != 1:
            raise InvalidRequestError(f"a trust domain has exactly one of `{'`, `'.join(_SOURCES)}`")
        if self.ca_file is not None and self.bundle_url is None:
            raise InvalidRequestError("`trust_domains.ca_file` goes with `bundle_url`")
        if self.bundle_url is not None and not self.bundle_url.startswith("https://"):
            raise InvalidRequestError("`trust_domains.bundle_url` must be https: whoever answers there is believed")
        if self.workload_api is not None and not self.workload_api.startswith(("unix:///", "tcp://")):
            raise InvalidRequestError("`trust_domains.workload_api` must be unix:///path or tcp://ip:port")
        if not 0 < len(self.allow) <= spiffe.MAX_PATTERNS:
            raise InvalidRequestError(
                f"`trust_domains.allow` must list 1 to {spiffe.MAX_PATTERNS} patterns of workloads",
                help=f'for every workload there: allow = ["spiffe://{self.name}/**"]',
            )
        for pattern in self.allow:
            if not pattern.startswith((f"spiffe://{self.name}/", f"wimse://{self.name}/")):
                raise InvalidRequestError("`trust_domains.allow` must hold patterns of that trust domain")
            spiffe.check_pattern(pattern)

    def _check_endpoint(self) -> None:
        if self.endpoint_id is None and self.bootstrap_file is None:
            return
        if self.endpoint_id is None or self.bootstrap_file is None or self.bundle_url is None:
            raise InvalidRequestError("`trust_domains.endpoint_id` and `bootstrap_file` go together, with `bundle_url`")
        if self.ca_file is not None:
            raise InvalidRequestError(
                "`trust_domains.ca_file` is not for an `endpoint_id`: its bundle vouches for that"
            )
        if spiffe.parse(self.endpoint_id).domain != self.name:
            raise InvalidRequestError("`trust_domains.endpoint_id` must be a SPIFFE ID of that trust domain")


class ClientTable(Section, frozen=True):
    """An OAuth client that asks humans: public, or one that proves who it is by a key of ``jwks``, wherever it is."""

    id: Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
    name: str | None = None
    redirect_uris: Annotated[tuple[str, ...], Meta(max_length=MAX_REDIRECTS)] = ()
    jwks: dict[str, Any] | None = None
    jwks_uri: Url | None = None
    jwks_file: Path | None = None

    @property
    def keyed(self) -> bool:
        return any(source is not None for source in (self.jwks, self.jwks_uri, self.jwks_file))

    def _check(self) -> None:
        if not self.id.isprintable():
            raise InvalidRequestError(f"`clients.id` must be text of 1 to {MAX_ID} characters")
        if sum(source is not None for source in (self.jwks, self.jwks_uri, self.jwks_file)) > 1:
            raise InvalidRequestError(
                "`clients.jwks`, `clients.jwks_uri` and `clients.jwks_file` are one too many: name one"
            )
        if self.keyed and (self.id.startswith(spiffe.SCHEMES) or ("://" in self.id and "#" in self.id)):
            raise InvalidRequestError(
                "`clients.jwks` is not for a workload, which proves its name by what attests it",
                help="give the client an `id` of its own",
            )


class ScopeTable(Section, frozen=True):
    """What a name in ``scope`` stands for. ``clients``: who may ask; empty: whoever asks."""

    authorization_details: Annotated[tuple[dict[str, Any], ...], Meta(min_length=1, max_length=MAX_ENTRIES)]
    purpose: Text
    title: Text = Text("")
    ttl: Annotated[int, Meta(ge=1)] | None = None
    clients: Annotated[tuple[Text, ...], Meta(max_length=MAX_CLIENTS)] = ()


class ServiceTable(Section, frozen=True):
    """A resource server elsewhere: its ``resource`` is the audience of its tokens, which ``client`` introspects."""

    resource: Annotated[str, Meta(max_length=MAX_ID)]
    client: Text | None = None
    signing_alg: Literal["ES256", "RS256"] = "ES256"

    def _check(self) -> None:
        if not _ABSOLUTE.fullmatch(self.resource):
            raise InvalidRequestError(
                "`services.resource` must be an absolute URI without a user and a fragment (RFC 8707 §2)",
                help="the one that the service names itself by, such as https://orders.example.com",
            )


class DocumentsSection(Section, frozen=True):
    """Hosts whose clients are known by a document at their own URL; ``private``: also in networks of one's own."""

    hosts: tuple[str, ...]
    private: bool = False

    def _check(self) -> None:
        bare = [host.removeprefix("*.") for host in self.hosts if host != "*"]
        if not self.hosts or any(not host or host != host.lower() or set(host) & set("*/:@?# \\[]") for host in bare):
            raise InvalidRequestError(
                '`client_documents.hosts` must be a list of host names, such as ["app.example.com"]'
            )


class RegistrationSection(Section, frozen=True):
    """Clients that register themselves (RFC 7591): where their answers may go, how long one is known, and how many."""

    redirect_hosts: Annotated[tuple[str, ...], Meta(max_length=MAX_ENTRIES)] = ()
    loopback: bool = True
    days: Annotated[int, Meta(ge=1, le=365)] = 90
    per_minute: Annotated[int, Meta(ge=1, le=600)] = 30

    def _check(self) -> None:
        bare = [host.removeprefix("*.") for host in self.redirect_hosts]
        if not all(_HOST.fullmatch(host) and "." in host for host in bare):
            raise InvalidRequestError(
                '`client_registration.redirect_hosts` must be a list of host names, such as ["claude.ai"]'
            )
        if not (self.redirect_hosts or self.loopback):
            raise InvalidRequestError("`client_registration` lets nobody register: name hosts, or set `loopback`")


class SignalTable(Section, frozen=True):
    """An issuer that says that a login has ended, or a receiver that is told that a task has."""

    issuer: IssuerUrl | None = None
    about: IssuerUrl | None = None
    poll: Url | None = None
    receiver: Name | None = None
    push: Url | None = None
    audience: Texts = Texts()
    token_file: Path | None = None

    def _check(self) -> None:
        if (self.issuer is None) == (self.receiver is None):
            raise InvalidRequestError("`signals` has either an `issuer` that is heard or a `receiver` that is told")
        side, others = ("issuer", {"push"}) if self.issuer else ("receiver", {"about", "poll"})
        for name in sorted(others):
            if getattr(self, name) is not None:
                known = set(self.__struct_fields__) - others - {"issuer", "receiver"} | {side}
                raise unknown(f"signals.{name}", known, f"a setting beside `{side}`")
        if self.issuer and self.token_file and not self.poll:
            raise InvalidRequestError("`signals.token_file` is shown where events are fetched: with `poll`")
        if self.receiver and len(self.audience) != 1:
            raise InvalidRequestError("`signals.audience` must name the receiver as it names itself")
        if self.receiver and not self.push and not self.token_file:
            raise InvalidRequestError(
                "a receiver that is not pushed to must show a token", help="set `push`, or `token_file`"
            )


class Configuration(Section, frozen=True):
    """The file. ``kinds``: kinds of resources of other packages, each with the version that it is to have."""

    listen: ListenSection = ListenSection()
    audit: AuditSection = AuditSection()
    keys: KeysSection = KeysSection()
    identity: IdentitySection = IdentitySection()
    tls: TlsSection | None = None
    policy: PolicySection | None = None
    humans: Annotated[tuple[HumanTable, ...], Meta(max_length=MAX_ENTRIES)] = ()
    workloads: Annotated[tuple[WorkloadTable, ...], Meta(max_length=MAX_ENTRIES)] = ()
    trust_domains: tuple[TrustDomainTable, ...] = ()
    clients: Annotated[tuple[ClientTable, ...], Meta(max_length=MAX_CLIENTS)] = ()
    client_documents: DocumentsSection | None = None
    client_registration: RegistrationSection | None = None
    scopes: Annotated[dict[str, ScopeTable], Meta(max_length=MAX_ENTRIES)] = {}
    services: Annotated[dict[str, ServiceTable], Meta(max_length=MAX_ENTRIES)] = {}
    signals: Annotated[tuple[SignalTable, ...], Meta(max_length=MAX_ENTRIES)] = ()
    kinds: dict[str, Text] = {}

    def _check(self) -> None:
        if not all(_SCOPE.fullmatch(name) and len(name) <= MAX_ID for name in self.scopes):
            raise InvalidRequestError(
                "`scopes` has a name that cannot stand in `scope`", help="printable ASCII, no space, no quote, no `\\`"
            )
