"""How a connection comes to be: a human's browser goes to the provider with a question, and comes back with a code.

What is waited for is in memory: whoever was away when the broker ended begins anew. The state is 256 random bits, and
each resource has a place of its own for answers, so that what one provider says is never taken for another's (RFC 9700
§4.4).

A code that came back counts for nothing before whoever began it has confirmed it: a state may be seen, and a cookie be
planted, so the browser that comes back may have somebody else at it, or somebody else's account. Where a page began it,
the same browser presses once more, and is told for whom; where a command did, what the last page shows is typed there.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from urllib.parse import urlencode, urlsplit

from remit.broker.approvals import StepUp
from remit.broker.begun import Unwaited
from remit.broker.connections import HeldConnections, Providers, setting_of
from remit.broker.resources import ResourceRegistry
from remit.broker.tasks import TaskCache
from remit.core.addresses import is_address
from remit.core.approval import check_strength
from remit.core.connection import (
    AuthorizationServer,
    OAuthSetting,
    ProviderClient,
    ProviderConnection,
    nonce,
    typed_code,
)
from remit.core.orders import digest
from remit.core.principal import Human, Operator
from remit.core.secret import Secret
from remit.errors import (
    ConflictError,
    DeniedError,
    InvalidRequestError,
    LimitError,
    RemitError,
    StepUpError,
)
from remit.ports import NewId, Resource, Sealer, UsedToken
from remit.ports.connections import BegunConnection, ReturnedConnection

LIFE = timedelta(minutes=10)  # that a browser may be away
MOST = 1_000  # that are away at once
MAX_CODE = 4_096  # characters, which wait in memory
MOST_OF_ONE = 16  # of one human
DOCUMENT = "/oauth/client"  # what remit publishes about itself as a client


@dataclass(frozen=True, slots=True)
class _Away:
    """A browser that is away, or has come back with a code, which nobody has confirmed yet."""

    human: str
    resource: Resource
    provider: AuthorizationServer
    client: ProviderClient
    audience: str
    scopes: tuple[str, ...]
    verifier: str
    browser: str
    until: datetime
    login: Human | None = None  # that it rests on
    code: Secret | None = None  # of the provider
    typed: str = ""  # to be typed where it was begun, unless that was in a browser


class Connecting:
    """Sends browsers to providers, and takes them back."""

    def __init__(
        self,
        tasks: TaskCache,
        registry: ResourceRegistry,
        sealer: Sealer,
        new_id: NewId,
        providers: Providers | None,
        unwaited: Unwaited,
        check: Callable[[Human], None],
        step_up: StepUp,
    ) -> None:
        """Without ``providers`` nobody can connect."""
        self._tasks, self._registry, self._new_id = tasks, registry, new_id
        self._check_login, self._step_up = check, step_up
        self.kept = HeldConnections(tasks, registry, sealer, providers, unwaited)
        self._away: dict[str, _Away] = {}  # by the digests of their states, the oldest first

    async def begin(
        self,
        by: Operator | Human,
        name: str,
        browser: str = "",
        *,
        brought: bool = False,
        more: tuple[str, ...] = (),
    ) -> BegunConnection:
        """``brought``: the owner of the state has brought the human's token to the control socket.

        They may ask for ``more`` there than the setting or the resource says: what was let before is asked for, too.
        """
        now, resource = self._tasks.serving(), self._registry.resource(name)
        asked = setting_of(resource)
        if (login := by if isinstance(by, Human) else None) is not None:
            await self.log_in(login, name, brought=brought)
        provider = await self._provider(resource, asked)
        if asked.issuer is None:
            self._check_agreed(resource, asked, provider, told=brought or isinstance(by, Operator), more=more)
        client = await self._client(resource, asked, provider)
        audience = asked.resource if asked.resource is not None else provider.audience or self._registry.url(resource)
        scopes = asked.scopes if asked.scopes is not None else provider.scopes
        if more:
            mine = [one for one in self.kept.all() if (one.human, one.resource, one.over) == (by.name, name, "")]
            scopes = tuple(dict.fromkeys((*scopes, *(each for one in mine for each in one.scope.split()), *more)))
        self._make_room(by.name, now)
        state, verifier = self.kept.providers.draw(), self.kept.providers.draw()
        self._away[digest(state)] = _Away(
            by.name, resource, provider, client, audience, scopes, verifier, browser, now + LIFE, login
        )
        query = {
            "response_type": "code",
            "client_id": client.id,
            "redirect_uri": self.redirect_uri(name),
            "state": state,
            "code_challenge": digest(verifier),
            "code_challenge_method": "S256",
            **({"scope": " ".join(scopes)} if scopes else {}),
            **({"resource": audience} if audience else {}),
            **({"prompt": "consent"} if "offline_access" in scopes else {}),  # OpenID Connect Core §11
        }
        at = provider.authorization_endpoint
        url = f"{at}{'&' if '?' in at else '?'}{urlencode(query)}"
        return BegunConnection(url, state, provider.issuer, resource.destination, " ".join(scopes))

    def check(self, by: Human, name: str = "", *, brought: bool = False) -> None:
        """Raise StepUpError for a login that was made for something else, or is too weak."""
        self._check_login(by)
        strong = self._step_up(by.subject.sub)
        check_strength(by.subject, strong, self._tasks.serving() - LIFE, anew=bool(strong))
        meant = by.state is not None and by.nonce == nonce(name, by.state) and by.confidential
        if not (meant or brought):
            what = "connect this resource" if name else "see or end connections"
            raise StepUpError(f"this login was not made to {what}")

    async def log_in(self, by: Human, name: str, *, ends: bool = False, brought: bool = False) -> None:
        """Use up a login that was made to connect a resource, or to end a connection."""
        self.check(by, "" if ends else name, brought=brought)
        told = self._tasks.event("connection.ask", "allow", None, subject=by.name, resource=name)
        await self._tasks.store.commit((UsedToken(by.digest, max(by.until, self._tasks.now())),), (told,))

    async def _provider(self, resource: Resource, asked: OAuthSetting) -> AuthorizationServer:
        if asked.endpoints:
            at = asked.endpoints
            to = at["authorization_endpoint"], at["token_endpoint"]
            more = at.get("revocation_endpoint"), at.get("registration_endpoint")
            return AuthorizationServer(str(asked.issuer), *to, *more, near=named_hosts(at.values()))
        url = self._registry.url(resource)
        near = named_hosts(([asked.issuer] if asked.issuer else []) + ([url] if is_private(resource, url) else []))
        said = self._registry.messages(resource)
        return await self.kept.providers.port.discover_provider(url, asked.issuer, near, messages=said)

    def _check_agreed(
        self,
        resource: Resource,
        asked: OAuthSetting,
        provider: AuthorizationServer,
        *,
        told: bool,
        more: tuple[str, ...],
    ) -> None:
        """Raise unless the operator has agreed to what a resource says of its provider: they made the first connection.

        A resource may name anybody, whose tokens it would be sent then. ``told``: whoever begins is, at a terminal.
        """
        name, known = resource.name, self.kept.all()
        agreed = [one for one in known if one.resource == name and one.destination == resource.destination]
        if not agreed and not told:
            raise DeniedError(
                f"the operator has not agreed to who the provider of `{name}` is",
                help=f"the operator connects first (`remit connect {name}`), or names `issuer` in the setting `oauth`",
            )
        same = [one for one in agreed if one.provider.issuer == provider.issuer]
        if agreed and not same:
            raise ConflictError(
                f"`{name}` names another provider than it did: {provider.issuer}",
                help="where that is right, the operator names it: `issuer` in the setting `oauth`",
            )
        wide = not any(set(provider.scopes) <= {*one.provider.scopes, *more} for one in same)
        if same and asked.scopes is None and wide:
            raise ConflictError(
                f"`{name}` asks for more at its provider than it did: {' '.join(provider.scopes)}",
                help="where that is right, the operator names it: `scopes` in the setting `oauth`",
            )

    async def _client(self, resource: Resource, asked: OAuthSetting, provider: AuthorizationServer) -> ProviderClient:
        """Return what the provider knows us as: by the configuration, by our own document, or by registering."""
        if asked.client_id is not None:
            method = "none" if resource.secret is None else _method(provider)
            return ProviderClient(asked.client_id, method)
        issuer = self.kept.providers.issuer
        if provider.documents and issuer.startswith("https:"):
            return ProviderClient(f"{issuer}{DOCUMENT}/{resource.name}")
        for other in self.kept.all():  # whoever connected before has registered us
            if other.resource == resource.name and other.provider.issuer == provider.issuer and not other.over:
                return other.client
        if provider.registration_endpoint is None:
            raise InvalidRequestError(
                f"the provider of `{resource.name}` takes only clients that are registered there",
                help=f"register one with the redirect URI {self.redirect_uri(resource.name)}, and put its id into "
                "`client_id` of the setting `oauth`",
            )
        called = f"remit for {resource.name} at {self._registry.url(resource)}"
        return await self.kept.providers.port.register_client(provider, called, self.redirect_uri(resource.name))

    def redirect_uri(self, name: str) -> str:
        """Return where a provider sends browsers back to: a place for each resource."""
        return f"{self.kept.providers.issuer}/oauth/connected/{name}"

    def _make_room(self, human: str, now: datetime) -> None:
        self._away = {state: one for state, one in self._away.items() if now < one.until}
        own = [state for state, one in self._away.items() if one.human == human]
        for state in own[: 1 - MOST_OF_ONE] if len(own) >= MOST_OF_ONE else ():
            del self._away[state]
        if len(self._away) >= MOST:
            raise LimitError("too many connect at once", retry_after=60)

    async def answered(self, name: str, answer: Mapping[str, str], browser: str = "") -> ReturnedConnection:
        """Take what a browser came back with. Nothing is redeemed, and nothing made, before it is confirmed."""
        begun = digest(answer.get("state", ""))
        away = self._waiting(name, begun)
        if away is None or away.code is not None:
            raise _unknown()
        del self._away[begun]  # whatever comes of it: an answer counts once
        try:
            self._check(away, answer, browser)
        except RemitError as error:
            await self._not_made(away, error)
            raise
        typed = "" if away.browser else typed_code(self.kept.providers.draw())
        self._away[begun] = replace(away, code=Secret(answer["code"]), typed=typed)
        to, scope = away.resource.destination, " ".join(away.scopes)
        return ReturnedConnection(away.human, name, begun, away.provider.issuer, to, scope, typed)

    async def confirm(self, name: str, begun: str, *, browser: str = "", typed: str = "") -> ProviderConnection:
        """Make the connection that came back, for whoever began it: by the ``browser`` they did it in, or a code."""
        away = self._waiting(name, begun)
        if away is None or away.code is None:
            raise _unknown()
        if not hmac.compare_digest(away.browser, browser):
            raise InvalidRequestError("this was begun in another browser", help="begin anew in this one")
        if not hmac.compare_digest(away.typed.encode(), "".join(filter(str.isalpha, typed.upper())).encode()):
            raise InvalidRequestError(
                "this is not the code on the page that the browser came back to",
                help="type it as the page shows it; where it shows none, somebody else came first: begin anew",
            )
        del self._away[begun]
        try:
            self._check_same(away)
            await self.kept.clear((away.human, name))
            made = await self._redeemed(away, away.code.reveal())
            await self.kept.made(made, away.human)
        except RemitError as error:
            await self._not_made(away, error)
            raise
        return made

    def _waiting(self, name: str, begun: str) -> _Away | None:
        away = self._away.get(begun)
        now = self._tasks.serving()
        return away if away is not None and away.resource.name == name and now < away.until else None

    async def _not_made(self, away: _Away, error: RemitError) -> None:
        await self._tasks.denied("connection.make", None, error, subject=away.human, resource=away.resource.name)

    def _check(self, away: _Away, answer: Mapping[str, str], browser: str) -> None:
        """Raise unless an answer is the one that is waited for, and says yes."""
        if not hmac.compare_digest(away.browser, browser):
            raise InvalidRequestError("this was begun in another browser", help="begin anew in this one")
        named = answer.get("iss")
        if named != away.provider.issuer and (named is not None or away.provider.names_itself):  # RFC 9207 §2.4
            raise DeniedError("the answer is not from the provider that was asked")
        if "code" not in answer:
            raise DeniedError("the provider did not connect you", help="begin anew, and agree to what it shows")
        if len(answer["code"]) > MAX_CODE:
            raise InvalidRequestError("the provider's code is too long")

    async def _redeemed(self, away: _Away, code: str) -> ProviderConnection:
        name, now = away.resource.name, self._tasks.now()
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": away.verifier}
        form |= {"redirect_uri": self.redirect_uri(name)}
        form |= {"resource": away.audience} if away.audience else {}
        fresh = ProviderConnection(
            self._new_id("con"),
            away.human,
            name,
            away.resource.destination,
            away.provider,
            away.client,
            away.audience,
            None,
            None,
            now,
            scope=" ".join(away.scopes),
            rev=0,
        )
        self._check_same(away)
        client = await self.kept.client(fresh)
        tokens = await self.kept.providers.port.obtain_tokens(away.provider, client, Secret(form))
        self._check_same(away)
        return fresh.given(tokens, self._tasks.now())

    def _check_same(self, away: _Away) -> None:
        """Raise unless all is as it was when it was begun."""
        if self._registry.resource(away.resource.name) is not away.resource:
            raise ConflictError(f"`{away.resource.name}` was changed meanwhile", help="begin anew")
        if away.login is not None:
            self._check_login(away.login)  # it may have ended meanwhile


def _unknown() -> InvalidRequestError:
    return InvalidRequestError("this was not begun here, was used before, or took too long", help="begin anew")


def named_hosts(urls: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(urlsplit(url).hostname or "" for url in urls))


def is_private(resource: Resource, url: str) -> bool:
    """Whether a resource may be in a network of one's own: who writes an address means it."""
    host = urlsplit(url).hostname or ""
    return resource.settings.get("private", host == "localhost" or is_address(host)) is True


def _method(provider: AuthorizationServer) -> str:
    """Return how a client with a secret authenticates: as RFC 8414 has it where nothing is said."""
    known = provider.methods or ("client_secret_basic",)
    for method in ("client_secret_basic", "client_secret_post"):
        if method in known:
            return method
    raise InvalidRequestError("the provider takes no client secret")
