"""One http resource as it is configured, compiled: its destination, its header fields, its credential as it is written.

Of a client's headers an allow-list goes on, and where a detail leaves all arguments free what carries no authority; its
own copy of the credential's header is dropped. Which headers carry authority is a list of what is known; an upstream
that takes authority from a header of another name is to be bounded by named arguments (``limits.md``). The destination
is read strictly from configuration, never from a request. A credential that cannot stand in a header is not written at
all, so that nothing of it becomes another header.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from remit.catalog import Provider, positions, provider_of
from remit.catalog.positions import Position
from remit.core import fields
from remit.core.addresses import is_address
from remit.core.connection import setting
from remit.core.fields import is_loopback
from remit.core.secret import Secret
from remit.errors import InvalidRequestError, UpstreamError
from remit.gateway.framing import BODILESS, Fields
from remit.gateway.patterns import LEAST, SHORTEST, SecretPatterns, weak
from remit.ports import Resource
from remit.ports.credential import CredentialSource, Injection, RequestSigner, UnsignedRequest

SETTINGS = frozenset(
    {
        *("arguments", "bearer", "body_on", "headers", "inject", "max_body"),
        *("oauth", "private", "provider", "reads_bodies", "user"),
    }
)
UNKNOWN = Provider(
    name="", title="", key=Position("header", "Authorization", "Bearer {}"), shape=()
)  # where none is named
MAX_BODY = 262_144  # bytes of a body that is judged as a whole
SECONDS = 10.0  # that a source of credentials may take
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_BODILESS = re.compile("|".join(BODILESS))
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
ALWAYS = frozenset(
    (
        b"accept accept-language content-language content-type idempotency-key if-match if-modified-since "
        b"if-none-match if-unmodified-since prefer user-agent"
    ).split()
)
NEVER = frozenset(
    (
        b"accept-encoding connection content-encoding content-length cookie dpop expect forwarded host "
        b"keep-alive max-forwards proxy-authorization proxy-connection remit-grant te trailer "
        b"transfer-encoding upgrade via x-http-method x-http-method-override x-method-override"
    ).split()
)
_HTTP = re.compile(
    r"(https?)://([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::([1-9][0-9]{0,4}))?"
    r"((?:/[A-Za-z0-9\-_~!$&'()+,=:@][A-Za-z0-9\-._~!$&'()+,=:@]*)*)"
)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
HTTPS, MAX_PORT = 443, 65_535
_PLAIN_NAME = re.compile(rb"[a-z0-9-]+")  # `_` and `.` are `-` to CGI and its heirs, so a second spelling of any name
_AUTHORITY = re.compile(
    rb"authorization|cookie2?|set-cookie2?|sudo|destination|(?:if-|x-ms-)?range|http2-settings|upgrade"
    rb"|(?:x-)?(?:on-behalf-of|act-as|run-?as|impersonate)|mscrmcallerid|callerobjectid|stripe-(?:account|context)"
    rb"|dropbox-api-select-.*|x-sendfile-type|x-accel-.*|(?:.*-)?client-?(?:cert|verify|(?:[is]-)?dn|subject).*"
    rb"|(?:.*-)?(?:user|subject|caller|principal|actor)-?(?:id|name|email|dn)"
    rb"|(?:proxy|sec|remit|cf|cdn|fastly|impersonate|x-(?:remit|forwarded|original|rewrite|proxy|envoy|middleware"
    rb"|http-method|method|auth|authenticated|webauth|amzn|ms-client-principal))(?:-.*)?"
    rb"|(?:.*-)?(?:override|host|ip|addr|url|uri|users?|groups?|roles?|scopes?|authorization|auth|secret|password|token"
    rb"|credentials?|assertion|cert|jwt|principal)"
    rb"|.*(?:copy|rename)-source.*|(?!.*idempotency-key)(?:.*-)?(?:api)?key"
)
_SAID = 32  # names of dropped headers that are told
# What remit itself sees to: nobody misses it.
_SILENT = frozenset(
    b"accept-encoding connection content-length dpop expect host keep-alive proxy-connection remit-grant"
    b" sec-websocket-extensions sec-websocket-key sec-websocket-protocol sec-websocket-version te transfer-encoding"
    b" upgrade".split()
)


class HttpTarget:
    """What is configured about one http resource, compiled; nothing secret.

    ``positions`` are where a placeholder may stand, that of the key first; ``source`` has the credential if it is no
    static secret.
    """

    def __init__(
        self,
        resource: Resource,
        provider: Provider | None,
        source: CredentialSource | None = None,
        version: int = 0,
        *,
        messages: bool = False,
        command: bool = False,
    ) -> None:
        settings, known = resource.settings, provider or UNKNOWN
        user = settings.get("user")
        fields.flag("bearer", settings.get("bearer", False))  # the broker goes by it, where tokens are made and shown
        self.connected = setting(settings) is not None  # by its human, so that there is a token for each task
        usual = UNKNOWN.key if self.connected else known.key  # RFC 6750 §2.1
        injection = _injection(settings.get("inject"), usual).of_user(user)
        self.resource, self.version, self.command = resource, version, command
        self.source = source
        self.provider = provider
        accepts = (known.key, *known.accepts) if self.connected else known.accepts
        self.positions = (injection, *(place.of_user(user) for place in accepts))
        self.destination = read_destination(resource.destination)
        written = self.destination.host  # who writes an address means it
        self.private = fields.flag("private", settings.get("private", written == "localhost" or is_address(written)))
        self.injection = injection
        self.in_body = tuple(place for place in self.positions if place.place in {"body", "form"})
        self.key_in_body = injection if injection.place == "body" and source is None else None
        self.max_body = fields.whole("max_body", settings.get("max_body", MAX_BODY), least=1)
        self.body_on = frozenset(fields.texts("body_on", settings.get("body_on", known.body_on), _BODILESS))
        # What is left unread of a message is no request: it is one line of JSON, written anew.
        there = messages or (known.reads_bodies and self.destination.host in known.hosts)
        self.reads_bodies = fields.flag("reads_bodies", settings.get("reads_bodies", there))
        arguments = _names("arguments", known.arguments) | _names("arguments", settings.get("arguments", ()))
        self.arguments = arguments - NEVER  # they select an account
        names = source.names if source is not None else ()
        written_in = {place.name.lower() for place in self.positions if place.in_header}
        self._written = frozenset(name.encode() for name in written_in.union(names))
        forbidden = NEVER | self.arguments | self._written
        named = _names("headers", known.headers) | _names("headers", settings.get("headers", ()))
        self.allowed = (ALWAYS | named) - forbidden

    def forwarded(
        self, section: Fields, granted: frozenset[bytes], *, free: bool = False, coded: bool = False
    ) -> tuple[bytes, bytes]:
        """Return the client's header lines that go along, and the names of those that do not, to be told.

        The allow-list goes along, and what the grant names; ``free``: also every other header without authority;
        ``coded``: also the coding of a body that goes on as it came.
        """
        mine = self._written
        go = self.allowed | (granted - NEVER - mine) | ({b"content-encoding"} if coded else frozenset())
        never = NEVER | mine
        lines: list[bytes] = []
        dropped: list[bytes] = []
        for name, value in section.items:
            goes = name in go or (free and name not in never and not carries_authority(name))
            if goes and name not in section.nominated:
                lines.append(b"%b: %b\r\n" % (name, value))
            elif name not in mine:
                dropped.append(name)
        return b"".join(lines), b", ".join(sorted(set(dropped) - _SILENT)[:_SAID])


def check(resource: Resource, value: Secret | None) -> None:
    """Raise InvalidRequestError for an http resource, or a new secret of it, that could never be used."""
    text = "" if value is None else value.reveal()
    oauth = setting(resource.settings)
    if value is not None and oauth is not None and oauth.client_id is None:
        raise InvalidRequestError(
            "the secret of a resource with `oauth` is that of its client, and there is no `client_id` in it"
        )
    if not text.isascii() or not text.isprintable():
        raise InvalidRequestError("a secret that goes into a header is printable ASCII characters")
    if text and weak(text.encode()):
        raise InvalidRequestError(
            f"a secret that goes into a header has {SHORTEST} characters or more, {LEAST} of them letters or digits",
            help="have a longer key made at the provider: a short one stands in texts by chance, and passes in answers",
        )
    unknown = sorted(resource.settings.keys() - SETTINGS)
    if unknown:
        raise InvalidRequestError(f"`{unknown[0]}` is not a setting of http; there are {', '.join(sorted(SETTINGS))}")
    provider = resource.settings.get("provider")
    HttpTarget(resource, provider_of(provider) if provider is not None else None)


def _injection(raw: object, default: Position) -> Position:
    if raw is None:
        return default
    found = positions.read("inject", raw, default)
    if found.place == "form":  # no API is known that takes its key there alone
        raise InvalidRequestError("`inject` puts a key into a header, a query or a field of JSON, and into no form")
    if found.name.lower().encode() in NEVER and found.in_header:
        raise InvalidRequestError("`inject.header` is not the name of a header that may hold a credential")
    return found


def _names(what: str, raw: object) -> frozenset[bytes]:
    return frozenset(name.lower().encode() for name in fields.texts(what, raw, _HEADER))


def carries_authority(name: bytes) -> bool:
    """Whether a header says who asks or what is done, or is a second spelling of one that may."""
    return not _PLAIN_NAME.fullmatch(name) or _AUTHORITY.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Destination:
    """A host to dial, whether by TLS, and the path in front of every request's."""

    host: str
    port: int
    tls: bool
    base: str

    @property
    def authority(self) -> str:  # the value of `Host`
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def read_destination(text: str) -> Destination:
    """Read an http resource's destination, or raise InvalidRequestError. Plain http is for loopback only."""
    found = _HTTP.fullmatch(text)
    if found is None:
        raise InvalidRequestError(
            "a destination is `https://host[:port][/base]`, in lower case and without a slash at its end",
            help="write an international name in its `xn--` form",
        )
    tls = found[1] == "https"
    host = read_host(found[2])
    if not tls and not is_loopback(host):
        raise InvalidRequestError(
            "plain `http` is accepted for this machine alone: the key and the answers would cross a network in clear, "
            "a private one too",
            help=f"put TLS in front of `{host}`, or have a tunnel end here (`ssh -L`) and name `http://127.0.0.1:PORT`",
        )
    port = int(found[3] or (443 if tls else 80))
    if port > MAX_PORT:
        raise InvalidRequestError("the destination's port does not exist")
    return Destination(host, port, tls, found[4])


def public(destination: str) -> dict[str, str]:
    """Return the host by which clients anywhere know a destination, if there is one, with the path where it begins."""
    at = read_destination(destination)
    return {at.host: at.base} if at.tls and at.port == HTTPS and not is_address(at.host) and "." in at.host else {}


def read_host(text: str) -> str:
    """Return a plain DNS name or an address in full, or raise InvalidRequestError."""
    bare = text.strip("[]")
    with suppress(ValueError):
        ipaddress.ip_address(bare)
        return bare
    labels = text.split(".")
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):  # noqa: PLR2004 - RFC 1035
        raise InvalidRequestError("the destination's host is not a plain DNS name")
    if labels[-1].isdigit() or labels[-1].startswith("0x"):  # `127.1`, `0x7f000001`: resolvers read them as addresses
        raise InvalidRequestError("the destination's host is a number that is not an address in full")
    return text


class BoundCredential:
    """An injection as it is written for a target; ``names`` are all header fields that its source writes.

    ``fixed`` are the header lines of every request, with Host; with a ``signer`` each is signed when it is finished.
    ``query`` is a parameter, written, that ends the query of each; ``field`` what goes into the field of each body.
    ``token`` is the digest of a human's, and ``sure`` until when the upstream means the request if it refuses that.
    """

    __slots__ = ("_names", "field", "fixed", "patterns", "query", "signer", "sure", "target", "token", "until")

    def __init__(
        self,
        target: HttpTarget,
        injection: Injection,
        names: frozenset[str],
        signer: RequestSigner | None = None,
        query: bytes = b"",
        field: str | None = None,
    ) -> None:
        self.target = target
        self.query, self.field = query, field
        if any(map(weak, injection.patterns)):
            raise UpstreamError(
                "the credential is too short to be kept out of answers, so the request was not sent",
                help=f"store one of {SHORTEST} characters or more: `remit secret set {target.resource.name}`",
            )
        self.signer, self.token = signer, ""
        self.sure: datetime | None = None
        self._names = names
        self.until: datetime | None = injection.until
        host = f"Host: {target.destination.authority}\r\n".encode()
        self.fixed = host + _lines(injection.fields, names) + b"Accept-Encoding: identity\r\n"
        self.patterns = SecretPatterns(injection.patterns)

    def __repr__(self) -> str:
        return f"BoundCredential({self.target.resource.name!r})"

    def line(self, start: bytes) -> bytes:
        """Return a request line with the credential in its query, if that is where it goes."""
        target, _, version = start.rpartition(b" ")
        return b"%b%b%b %b" % (target, b"&" if b"?" in target else b"?", self.query, version)

    def body(self, body: bytes | None) -> bytes:
        """Return a body that was written anew, with the credential in its field."""
        place = self.target.key_in_body
        assert place is not None  # noqa: S101 - it is where the credential goes
        assert body is not None  # noqa: S101 - so ``authorize`` has had one
        if self.field is None:
            raise UpstreamError(
                "the resource has no credential to put into a body",
                help=f"store one: `remit secret set {self.target.resource.name}`",
            )
        return positions.filled(body, place, self.field)

    async def signed(self, signer: RequestSigner, start: bytes, lines: bytes, body: bytes) -> bytes:
        """Return the lines that sign a request of a request line, header lines and a body."""
        method, target, _ = start.decode("ascii").split(" ", 2)
        fields = (line.partition(": ") for line in (self.fixed + lines).decode("ascii").split("\r\n")[:-1])
        request = UnsignedRequest(method, target, tuple((name, value) for name, _, value in fields), body)
        async with asyncio.timeout(SECONDS):
            return _lines(await signer.sign(request), self._names)


class TokenRefusedError(UpstreamError):
    """the upstream does not take the token"""  # noqa: D400 - the message

    def __init__(self, credential: BoundCredential | None = None) -> None:
        super().__init__()
        self.credential = credential


def static(target: HttpTarget, secret: Secret | None, until: datetime | None = None) -> BoundCredential:
    """Return the credential that is a resource's static secret, or an access token, where its settings say."""
    text, place = secret.reveal() if secret is not None else "", target.injection
    name, names = place.name, frozenset({place.name.lower()} if place.in_header else ())
    if not text:
        return BoundCredential(target, Injection((), ()), names)
    value = place.value(text)
    # What holds the secret holds a form of it; of base64 and escapes the whole is looked for beside it.
    patterns = (
        (text.encode(),)
        if place.place == "header" or value == text
        else (text.encode(), value.removeprefix("Basic ").encode())
    )
    if place.in_header:
        return BoundCredential(target, Injection(((name, value),), patterns, until), names)
    if place.place == "body":
        return BoundCredential(target, Injection((), patterns, until), names, field=value)
    return BoundCredential(target, Injection((), patterns, until), names, query=f"{name}={value}".encode())


async def fetched(target: HttpTarget, source: CredentialSource, now: Callable[[], datetime]) -> BoundCredential:
    """Ask a source for what is injected; UpstreamError when it has nothing in time that is still good."""
    try:
        async with asyncio.timeout(SECONDS):
            injection = await source.current()
    except TimeoutError as error:
        raise UpstreamError("the credential was not there in time") from error
    if injection.until is not None and injection.until <= now():
        raise UpstreamError("the credential has expired")
    return BoundCredential(target, injection, source.names, source if isinstance(source, RequestSigner) else None)


def _lines(fields: Iterable[tuple[str, str]], names: frozenset[str]) -> bytes:
    written = []
    for name, value in fields:
        known = name.lower() in names and name.lower().encode() not in NEVER
        if not known or not _HEADER.fullmatch(name) or not _VALUE.fullmatch(value):
            raise UpstreamError("the credential cannot stand in a header, so the request was not sent")
        written.append(f"{name}: {value}\r\n")
    return "".join(written).encode("ascii")
