"""Clients that register themselves (RFC 7591), where an operator lets them: public ones, that ask in a browser alone.

Nothing is kept of them: a client's id is what it said of itself, with a MAC by a key of the authority. So no number of
registrations fills anything or pushes another out, an id ends by itself, and one of another broker is worth nothing
here. Nobody has looked at the name: it is ASCII, is that of no client which an operator set up, and every page says so.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from remit import jose
from remit.errors import InvalidRequestError, LimitError, UnauthenticatedError, told_as
from remit.oauth.clients import OWN_ID, check_name, check_redirect
from remit.ports import Clock
from remit.ports.identity import ITSELF, Registered
from remit.web import wire
from remit.web.routes import Route

MAX_CLIENT_ID = 512  # characters: what `client_id` may have anywhere
MAX_URIS = 10
MINUTE = timedelta(minutes=1)
_METADATA = "invalid_client_metadata"

# What every reader takes for the same place: no user, no fragment, no address, nothing escaped in the host.
_WEB = re.compile(r"https://[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[1-9][0-9]{0,4})?(?:[/?][!$-.0-;=?-Z_a-z~/%&']*)?")
_HERE = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]|localhost)(?::[1-9][0-9]{0,4})?(?:[/?][!$-.0-;=?-Z_a-z~/%&']*)?")
_KNOWN = frozenset({"redirect_uris", "client_name", "token_endpoint_auth_method", "grant_types", "response_types"})
_PUBLIC = frozenset({"none", "client_secret_basic", "client_secret_post"})  # by the others a client would be keyed
_LETTERS = re.compile(r"[^a-z0-9]")

Mac = Callable[[str], Awaitable[str]]  # ``ports.tokens.TokenPort.client_mac``


@dataclass(frozen=True, slots=True)
class RegistrationRules:
    """Who may register: for which hosts answers may go to, whether to programs on the human's own machine."""

    hosts: frozenset[str]  # names; ``*.name`` is all below it
    loopback: bool = True
    life: timedelta = timedelta(days=90)
    most: int = 30  # a minute, of everybody together

    def check(self, uri: object) -> str:
        """Return a redirect URI that a client may bring."""
        text = check_redirect(uri)
        if _HERE.fullmatch(text) and self.loopback:
            return text
        host = wire.split_url(text, "redirect_uri").hostname or ""
        labels = host.split(".")
        below = {"*." + ".".join(labels[at:]) for at in range(1, len(labels))}
        if not _WEB.fullmatch(text) or ".." in host or not self.hosts & {host, *below}:
            raise InvalidRequestError(
                "a redirect URI is not one that a client may bring by itself",
                help="whoever runs this broker says which hosts: `client_registration.redirect_hosts`",
            )
        return text


class _Statement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    until: int
    name: str
    uris: tuple[str, ...]


class SelfRegistration:
    """Registers clients, and knows them again."""

    def __init__(self, rules: RegistrationRules, mac: Mac, now: Clock, set_up: Iterable[Registered] = ()) -> None:
        """``set_up`` are the clients of the operator, whose names nobody else may have."""
        self._rules, self._mac, self._now = rules, mac, now
        self._taken = {_letters(name) for one in set_up for name in (one.name, one.client_id)}
        self._minute, self._count = now(), 0

    def routes(self) -> tuple[Route, ...]:
        return (Route("POST", "/oauth/register", self.register, tcp=True, shared=True),)

    async def register(self, request: Request) -> Response:
        """Answer with a client's id, and with what of its metadata holds (RFC 7591 §3.2.1)."""
        with told_as(_METADATA, InvalidRequestError):
            told = await wire.document(request, _KNOWN, others=True)
            self._check_rate()
            name = self._name(told.get("client_name"))
            _check_ways(told)
        uris, now = self._uris(told.get("redirect_uris")), int(self._now().timestamp())
        until = now + int(self._rules.life.total_seconds())
        text = jose.encode(msgspec.json.encode(_Statement(until, name, uris)))
        client_id = f"{OWN_ID}{text}.{await self._mac(text)}"
        with told_as(_METADATA, InvalidRequestError):
            if len(client_id) > MAX_CLIENT_ID:
                raise InvalidRequestError("name and redirect URIs are too long together: leave some out")
        content = {"client_id": client_id, "client_id_issued_at": now, "client_name": name, "redirect_uris": list(uris)}
        fixed = {"grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"]}
        return wire.answer({**content, **fixed, "token_endpoint_auth_method": "none"}, 201)

    async def known(self, client_id: str) -> Registered:
        """Return the client that an id of ours stands for, or raise UnauthenticatedError."""
        text, _, mac = client_id.removeprefix(OWN_ID).partition(".")
        if not hmac.compare_digest(mac.encode(), (await self._mac(text)).encode()):
            raise UnauthenticatedError("this client is not known here")
        said, now = msgspec.json.decode(jose.decode(text), type=_Statement), self._now()
        if not now.timestamp() < said.until <= (now + self._rules.life + MINUTE).timestamp():
            raise UnauthenticatedError("this client's registration is over", help="register again (RFC 7591)")
        try:  # the rules have become narrower, or a worker that was taken over had it made
            name, uris = self._name(said.name), self._uris(list(said.uris))
        except InvalidRequestError as error:
            raise UnauthenticatedError(error.detail, help=error.help) from error
        return Registered(client_id, name, uris, ITSELF)

    def _check_rate(self) -> None:
        now = self._now()
        if now - self._minute >= MINUTE:
            self._minute, self._count = now, 0
        self._count += 1
        if self._count > self._rules.most:
            raise LimitError("too many clients register at once; wait a minute", retry_after=60)

    def _name(self, given: object) -> str:
        name = check_name("a program without a name" if given is None else given)
        if not name.isascii():
            raise InvalidRequestError("`client_name` must be ASCII here, as other letters look like those")
        if _letters(name) in self._taken:
            raise InvalidRequestError("`client_name` is that of a client which an operator set up")
        return name

    def _uris(self, given: object) -> tuple[str, ...]:
        with told_as("invalid_redirect_uri", InvalidRequestError):
            if not isinstance(given, list) or not 1 <= len(given) <= MAX_URIS:
                raise InvalidRequestError(f"`redirect_uris` must be a list of 1 to {MAX_URIS}")
            return tuple(self._rules.check(uri) for uri in given)


def _check_ways(told: Mapping[str, object]) -> None:
    """Refuse a client that needs what no client has which registers itself; the rest is answered by what it gets."""
    if str(told.get("token_endpoint_auth_method", "none")) not in _PUBLIC:
        raise InvalidRequestError(
            "`token_endpoint_auth_method` must be `none`", help="an operator sets up clients that have keys"
        )
    for name, needed in (("grant_types", "authorization_code"), ("response_types", "code")):
        given = told.get(name, [needed])
        if not isinstance(given, list) or needed not in given:
            raise InvalidRequestError(f"`{name}` must have `{needed}`")


def _letters(name: str) -> str:
    return _LETTERS.sub("", name.lower())
