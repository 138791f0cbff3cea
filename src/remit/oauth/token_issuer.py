"""The tokens that are issued for grants (RFC 6749 §5.1, RFC 8693 §2.2.1, RFC 9396 §7), and their refresh.

Holders of a key need no refresh token (RFC 6749 §6): their access token renews itself by exchange. Clients of the flows
that go through a browser get one: opaque, rotated at every use, and bound to the key of its grant (RFC 9449 §5), so
that a copy is worth nothing; and a copy that is used by the key's owner too ends the grant.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from remit import jose
from remit.core import scope as scopes
from remit.core.principal import GrantView
from remit.core.request import Binding
from remit.errors import TokenError, WrongKeyError
from remit.jose import token as tokens
from remit.jose.token import TokenParams
from remit.oauth import request_form
from remit.oauth.clients import OAuthClient
from remit.oauth.token_endpoint import GrantType
from remit.ports import NewId
from remit.ports.broker import Presented
from remit.web import wire
from remit.web.authentication import certificates_of, url_of
from remit.web.routes import AppDeps
from remit.web.verifier import Verifier, ends, thumbprint
from remit.web.wire import Form

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a type
REFRESH_TOKEN = "refresh_token"  # noqa: S105 - the name of a grant type


class TokenIssuer:
    """Makes the answers of the token endpoint. ``new_id`` names tokens."""

    def __init__(self, verifier: Verifier, new_id: NewId) -> None:
        self._verifier, self._new_id = verifier, new_id

    async def binding(self, request: Request, client: OAuthClient) -> tuple[Binding, datetime | None]:
        """Return what a token is to be bound to: the key of the ``DPoP`` header, else the certificate, with its end.

        A client whose own credential is bound to a key (WIT) has to prove that key, and no other.
        """
        proofs, chain = request.headers.getlist("dpop"), certificates_of(request)
        workload = client.workload
        if not proofs and chain:
            if workload is not None and workload.jkt is not None:
                raise WrongKeyError("the client's credential is bound to a key: prove it by `DPoP`")
            return Binding(x5t=thumbprint(chain[0])), ends(chain[0])
        proof = self._verifier.read(proofs, "POST", url_of(request, self._verifier.issuer), None)
        if workload is not None and workload.jkt not in {None, proof.jkt}:
            raise WrongKeyError("the proof is by another key than the client's credential is bound to")
        await self._verifier.pending.burn(proof, stranger=workload is None)
        return Binding(jkt=proof.jkt), None

    def answer(
        self,
        view: GrantView,
        *,
        parent_token: str | None = None,
        par_hash: str | None = None,
        audience: str | None = None,
        until: datetime | None = None,
        **more: object,
    ) -> Response:
        """Return the answer for a grant: with a token if the grant is bound, and with ``more`` members.

        ``parent_token`` is the token that was exchanged for a child, ``par_hash`` the digest of the one that was when
        the grant was made. ``audience`` None is the broker itself. ``until`` is the end of the certificate that the
        grant is bound to.
        """
        par_hash = par_hash if parent_token is None else jose.digest(parent_token)
        now, grant, scope = self._verifier.clock(), view.grant, scopes.text(view.grant.scope)
        content: dict[str, object] = {
            "task": view.task,
            "grant": grant.id,
            "expires_in": int((grant.expires_at - now).total_seconds()),
        }
        if grant.binding.x5t is not None and until is None:
            raise TokenError("its grant is bound to a certificate: use the TLS listener with it")
        if grant.binding.thumbprint is not None:
            params = TokenParams(self._verifier.issuer, self._new_id("tok"), now, par_hash, audience, until)
            claims, signer = tokens.claims(view, params), self._verifier.keys.signer
            content |= {
                "access_token": tokens.mint(claims, signer.kid, signer.alg, signer.sign, authorization_details=scope),
                "token_type": "DPoP" if grant.binding.x5t is None else "Bearer",
                "issued_token_type": ACCESS_TOKEN,
                "expires_in": claims["exp"] - claims["iat"],
            }
        return wire.answer({**content, **more}, authorization_details=scope)


draw = partial(secrets.token_urlsafe, 32)  # a new refresh token: 256 random bits


class RefreshGrant:
    """The handler of the grant type, and what hands out the first token of a chain."""

    def __init__(self, deps: AppDeps, tokens: TokenIssuer, new_token: Callable[[], str] = draw) -> None:
        self._broker, self._verifier, self._tokens = deps.broker, deps.verifier, tokens
        self._new_token = new_token

    def grant_types(self) -> Mapping[str, GrantType]:
        """Return the grant type for the token endpoint."""
        return {REFRESH_TOKEN: GrantType(request_form.TARGETS | {"refresh_token"}, self.refresh)}

    async def begin(self, grant_id: str, client_id: str, audience: str | None = None) -> str:
        """Return the first refresh token of a grant, for the client that it is given to."""
        token = self._new_token()
        await self._broker.issue_refresh_token(grant_id, client_id, jose.digest(token), audience)
        return token

    async def refresh(self, request: Request, form: Form, client: OAuthClient) -> Response:
        """Spend a refresh token for an access token and the next refresh token."""
        client.check_named()
        audience = request_form.audience(form, self._verifier)
        digest = jose.digest(wire.text(form, "refresh_token"))
        binding, until = await self._tokens.binding(request, client)
        fresh = self._new_token()
        presented = Presented(digest, client.id, binding.jkt, binding.x5t, client.workload is not None)
        rotated = await self._broker.rotate_refresh_token(presented, jose.digest(fresh))
        meant = rotated.family.audience if audience is None else audience
        return self._tokens.answer(rotated.grant, audience=meant, until=until, refresh_token=fresh)
