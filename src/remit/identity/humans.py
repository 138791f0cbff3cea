"""Humans, by the ID tokens (OpenID Connect Core §2) and identity assertion grants (ID-JAG) of their issuers.

They log in by a browser (§3.1), with authlib's client: code, PKCE S256, state, nonce, RFC 9207. A login that was begun
is kept by nobody here, so that nobody's takes the place of another's; its code verifier is made of it with a key of
this process, and the issuer redeems its code once.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, quote_plus

import httpx

from remit import jose
from remit.core.grant import OWN_ACR, UNSAID, Subject
from remit.core.principal import Human
from remit.core.secret import Secret
from remit.errors import GrantTokenError, StepUpError, UnavailableError
from remit.identity.fetch import PATIENCE, Transport, forked
from remit.identity.issuers import Issuer, Metadata
from remit.jose import jwt
from remit.jose.jwt import SKEW, Jwt, JwtProfile, find_claim
from remit.ports import Clock
from remit.ports.identity import Login

MAX_AGE = timedelta(hours=12)  # of an ID token; shorter than what an issuer says of logins is remembered
MAX_GRANT = timedelta(hours=1)  # of an identity assertion grant
MAX_GROUPS = 200  # as many as Entra ID puts into a token; policies take longer with each
MAX_QUERY = 8_192  # characters of an authorization response
MAX_FIELDS = 64

_LOG = logging.getLogger("remit.identity")

_ID_TOKEN = JwtProfile(frozenset({"", "jwt"}), error=GrantTokenError)
_ID_JAG = JwtProfile(frozenset({"oauth-id-jag+jwt"}), error=GrantTokenError)
# Claims of an ID-JAG that limit it in ways that nothing here can hold.
_LIMITS = {
    "tenant": "to a tenant",
    "aud_tenant": "to a tenant",
}
_KNOWN = frozenset({"code", "state", "iss", "error", "error_description", "error_uri"})


@dataclass(frozen=True, slots=True)
class Registration:
    """What remit is to an issuer of humans, and what it takes from it."""

    issuer: Issuer
    client_id: str
    secret: Secret | None = None
    scopes: tuple[str, ...] = ("openid",)
    groups: str | None = None  # the claim that holds a human's groups
    acr: tuple[str, ...] = ()  # the values that decide on approvals; empty: any
    id_jag: bool = False  # whether its identity assertion grants open tasks
    name: str = ""


@dataclass(frozen=True, slots=True)
class IssuedHumans:
    """Verifies what the configured issuers say of humans. ``audience`` is this broker's own issuer identifier."""

    registrations: Sequence[Registration] = field(repr=False)
    audience: str
    clock: Clock
    _missed: set[tuple[str, str]] = field(default_factory=set, init=False, repr=False, compare=False)

    @property
    def deciding(self) -> Sequence[Registration]:
        """The clients by which humans log in to decide: those with a secret."""
        return tuple(item for item in self.registrations if item.secret is not None)

    async def id_token(self, token: str, *, nonce: str | None = None) -> Human:
        """Return the human of an ID token that was issued to remit (OpenID Connect Core §3.1.3.7)."""
        read, at = self._read(token, _ID_TOKEN)
        client = jwt.audience(read.claims, [item.client_id for item in at])
        await self._verified(read, at[0].issuer)
        claims = read.claims
        if claims.get("azp", client) != client:
            raise GrantTokenError("it was issued to another client")
        if "events" in claims:
            raise GrantTokenError("it is a message of its issuer, not an ID token")
        told = claims.get("nonce")
        if nonce is not None and not (isinstance(told, str) and hmac.compare_digest(told.encode(), nonce.encode())):
            raise GrantTokenError("it was not obtained for this request")
        registration = next(item for item in at if item.client_id == client)
        human = replace(self._human(read, registration, MAX_AGE, read.digest), token=token)
        named, groups = (registration.issuer.url, client), registration.groups
        if groups is not None and named not in self._missed and find_claim(claims, groups) is None:
            self._missed.add(named)  # said once of each client: nobody would know why policies deny
            _LOG.warning(
                "`%s` is not in ID tokens of %s for client `%s`: their humans are in no group; "
                "its issuer may want a scope for it, in `scopes` of [[humans]], and then a new login",
                groups,
                *named,
            )
        return human

    async def id_jag(self, token: str, client: str) -> Human:
        """Return the human of an identity assertion grant for ``client`` (ID-JAG §4, RFC 7523 §3)."""
        read, at = self._read(token, _ID_JAG)
        taking = [item for item in at if item.id_jag]
        if not taking:
            raise GrantTokenError("identity assertion grants of its issuer are not taken here")
        jwt.audience(read.claims, (self.audience,))
        await self._verified(read, taking[0].issuer)
        claims = read.claims
        if jwt.text(claims, "client_id", GrantTokenError) != client:
            raise GrantTokenError("it was issued to another client")
        for name, what in _LIMITS.items():
            if claims.get(name) is not None:
                raise GrantTokenError(f"it is limited {what}")
        if not set(jwt.texts(claims, "resource", GrantTokenError)) <= {self.audience}:
            raise GrantTokenError("it is for a resource that is not this broker")
        jti = jwt.text(claims, "jti", GrantTokenError)
        once = jose.digest(f"id-jag\n{taking[0].issuer.url}\n{jti}")
        human = self._human(read, taking[0], MAX_GRANT, once)
        cnf, jkt = claims.get("cnf"), None
        if cnf is not None:
            jkt = cnf.get("jkt") if isinstance(cnf, Mapping) and cnf.keys() == {"jkt"} else None
            if not isinstance(jkt, str) or not jkt:
                raise GrantTokenError("it is limited to a key in a way that is not known here")
        details, scope = claims.get("authorization_details"), jwt.text_or_none(claims, "scope", GrantTokenError)
        if details is not None and scope is not None:
            raise GrantTokenError("it is limited to scopes and to details: ask the issuer for one of them")
        return replace(human, client=client, details=details, scope=scope, jkt=jkt, token=token, id_jag=True)

    async def confirm(self, human: Human) -> Human:
        verified = self.id_jag(human.token, human.client) if human.id_jag else self.id_token(human.token)
        return replace(await verified, state=human.state)

    def _read(self, token: str, rules: JwtProfile) -> tuple[Jwt, Sequence[Registration]]:
        read = jwt.read(token, rules)
        issuer = jwt.text(read.claims, "iss", GrantTokenError)
        at = [item for item in self.registrations if item.issuer.url == issuer]
        if not at:
            raise GrantTokenError("its issuer is not one that is trusted here")
        return read, at

    async def _verified(self, read: Jwt, issuer: Issuer) -> None:
        told = (await issuer.metadata()).algorithms
        if told is not None and read.alg not in told:
            raise GrantTokenError("its algorithm is not one of its issuer")
        await issuer.verified(read, GrantTokenError)

    def _human(self, read: Jwt, at: Registration, max_age: timedelta, digest: str) -> Human:
        now, claims = self.clock(), read.claims
        issued, expires = jwt.window(claims, now, max_age, GrantTokenError)
        logged_in = jwt.moment(claims, "auth_time", GrantTokenError) if "auth_time" in claims else None
        if logged_in is not None and logged_in > now + SKEW:
            raise GrantTokenError("its human logs in only later", help="compare the clocks")
        sid, acr = (jwt.text_or_none(claims, name, GrantTokenError) for name in ("sid", "acr"))
        if acr in OWN_ACR:  # by them remit tells humans from workloads
            raise GrantTokenError("its `acr` is one of remit's own", help="have its issuer use a word of its own")
        subject = Subject(
            sub=f"{at.issuer.url}#{jwt.text(claims, 'sub', GrantTokenError)}",
            acr=acr or UNSAID,
            auth_time=logged_in,
            amr=jwt.texts(claims, "amr", GrantTokenError),
            groups=_groups(claims, at.groups),
            sid=None if sid is None else f"{at.issuer.url}#{sid}",
        )
        nonce = jwt.text_or_none(claims, "nonce", GrantTokenError)
        return Human(subject, digest, issued, expires + SKEW, at.client_id, nonce, confidential=at.secret is not None)


def _groups(claims: Mapping[str, object], name: str | None) -> tuple[str, ...]:
    """Return a human's groups; none where none are configured or told, and a refusal where they were left out."""
    if name is None:
        return ()
    elsewhere = claims.get("_claim_names")  # OpenID Connect Core §5.6.2: too many to be told, in practice
    if isinstance(elsewhere, Mapping) and name in elsewhere:
        raise GrantTokenError("its issuer left out the groups", help="let it name only groups that matter to remit")
    value = find_claim(claims, name)
    groups = jwt.texts({name: [] if value is None else value}, name, GrantTokenError)
    if len(groups) > MAX_GROUPS:
        raise GrantTokenError(f"it names more than {MAX_GROUPS} groups")
    return groups


class IssuerLogins:
    """Sends browsers to issuers, and takes them back. Nothing is kept of those that are away."""

    def __init__(self, humans: IssuedHumans, transport: Transport) -> None:
        self._humans, self._transport = humans, transport
        self._key = secrets.token_bytes(32)

    async def begin(self, login: Login) -> str:
        registration, metadata = await self._at(login.issuer)
        if metadata.authorization_endpoint is None or metadata.token_endpoint is None:
            raise UnavailableError(f"nobody can log in with a browser at `{registration.issuer.url}`")
        stronger = {"max_age": "0", "prompt": "login"} if login.since is not None or login.acr else {}
        stronger |= {"acr_values": " ".join(login.acr)} if login.acr else {}
        async with self._client(registration, metadata, login.back) as client:
            url, _ = client.create_authorization_url(
                metadata.authorization_endpoint,
                state=login.state,
                code_verifier=self._verifier(login),
                nonce=login.nonce,
                **stronger,
            )
        return str(url)

    async def finish(self, query: str, came: str, login: Login) -> Human:
        if came != login.back:
            raise GrantTokenError("this login was begun for something else")
        registration, metadata = await self._at(login.issuer)
        token = await self._redeemed(registration, login, metadata, _code(query, login.state, metadata))
        human = await self._humans.id_token(token, nonce=login.nonce)
        if login.acr and human.subject.acr not in login.acr:
            raise StepUpError(help=f"log in again with {' or '.join(login.acr)}")
        at = human.subject.auth_time
        if login.since is not None and (at is None or at < login.since - SKEW):
            raise StepUpError("the issuer did not ask the human to log in again")
        return human

    def _verifier(self, login: Login) -> str:
        whole = f"{login.issuer}\n{login.back}\n{login.state}\n{login.nonce}"
        return jose.encode(hmac.digest(self._key, whole.encode(), "sha256"))

    async def _at(self, issuer: str) -> tuple[Registration, Metadata]:
        """Return remit's confidential registration at an issuer: a login by any other decides nothing."""
        known = [item for item in self._humans.deciding if item.issuer.url == issuer]
        if not known:
            raise GrantTokenError("nobody can log in to decide at this issuer")
        return known[0], await known[0].issuer.metadata()

    async def _redeemed(self, registration: Registration, login: Login, metadata: Metadata, code: str) -> str:
        from authlib.common.errors import AuthlibBaseError

        form = {"grant_type": "authorization_code", "code": code, "code_verifier": self._verifier(login)}
        try:
            async with asyncio.timeout(PATIENCE), self._client(registration, metadata, login.back) as client:
                answer = await client.fetch_token(metadata.token_endpoint, **form, redirect_uri=login.back)
        except AuthlibBaseError as error:
            raise GrantTokenError("the issuer did not redeem what it was shown", help="log in again") from error
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, ValueError) as error:
            raise UnavailableError(f"the issuer `{registration.issuer.url}` cannot be asked") from error
        if not isinstance(token := answer.get("id_token"), str) or not token:
            raise GrantTokenError("the issuer answered without `id_token`")
        return token

    def _client(self, registration: Registration, metadata: Metadata, redirect_uri: str) -> Any:
        try:
            with warnings.catch_warnings():
                # Importing it undoes filters that were set before, and authlib would rather have a fork of httpx.
                import authlib.deprecate  # noqa: F401 - as said

                warnings.simplefilter("ignore")
                from authlib.integrations.httpx_client import AsyncOAuth2Client
                from authlib.integrations.httpx_client.oauth2_client import Request
        except ImportError as error:
            raise UnavailableError("logins need authlib", help="in a clone of remit: pip install '.[oidc]'") from error
        secret = registration.secret and registration.secret.reveal()
        basic = "client_secret_basic" in metadata.auth_methods
        return AsyncOAuth2Client(
            registration.client_id,
            quote_plus(secret) if secret and basic else secret,  # authlib leaves the encoding of RFC 6749 §2.3.1 out
            token_endpoint_auth_method="client_secret_basic" if basic else "client_secret_post",
            scope=" ".join(registration.scopes),
            redirect_uri=redirect_uri or None,
            code_challenge_method="S256",
            transport=forked(self._transport(), Request),
            trust_env=False,
            timeout=PATIENCE,
        )


def _code(query: str, state: str, metadata: Metadata) -> str:
    """Return the code of an authorization response (RFC 6749 §4.1.2) of this issuer, to this login (RFC 9207 §2.4)."""
    try:
        read = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        read = []
    known = [(name, value) for name, value in read if name in _KNOWN]
    answer = dict(known)  # each at most once
    if not answer or len(answer) != len(known) or len(query) > MAX_QUERY:
        raise GrantTokenError("the issuer's answer cannot be read")
    if not hmac.compare_digest(answer.get("state", "").encode(), state.encode()):
        raise GrantTokenError("the answer is to another login")
    if answer.get("iss", None if metadata.names_itself else metadata.issuer) != metadata.issuer:
        raise GrantTokenError("the answer is by another issuer")
    if "error" in answer or not answer.get("code"):
        raise GrantTokenError("the issuer did not let the human in", help="log in again")
    return answer["code"]
