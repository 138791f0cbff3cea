"""A grant request as the fields of a form, and the audience of the token that is to follow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from starlette.requests import Request

from remit.core import request as requests
from remit.core.request import UNBOUND, Binding, GrantRequest
from remit.errors import InvalidRequestError, TargetError
from remit.jose import token as tokens
from remit.jose.strict import read_json
from remit.oauth.clients import OAuthClient
from remit.web import wire
from remit.web.authentication import url_of
from remit.web.verifier import Verifier, attested
from remit.web.wire import Form

FIELDS = requests.LIMITS | {"label"}
TARGETS = frozenset({"resource", "audience"})
OPENING = FIELDS | TARGETS | {"purpose"}

TTL = 3600  # seconds: an OAuth client that knows nothing of remit cannot say

_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")  # of SHA-256, base64url
_OTHER_KEY = "`dpop_jkt` must be the thumbprint of the key that the proof is by"


def read(form: Form, binding: Binding = UNBOUND, otherwise: Mapping[str, object] | None = None) -> GrantRequest:
    """Read a grant request from a form, whose fields are text or JSON; ``otherwise`` holds for those it lacks.

    One that a token follows is bound, and no larger than a token can name.
    """
    given = {name: _decoded(name, form[name]) for name in requests.FIELDS & form.keys()}
    found = requests.read({**(otherwise or {}), **given}, binding)
    if binding.thumbprint is not None:
        tokens.check_size(found.scope)
    return found


def _decoded(name: str, text: str) -> object:
    if name == "authorization_details":
        return read_json(text)
    with suppress(InvalidRequestError):  # the reader says what it must be
        return text if name in requests.TEXTS else read_json(text)
    return text


def of_human(form: Form, binding: Binding) -> GrantRequest:
    """Return the request that a human is to decide on, a token to follow: for an hour, unless the client says."""
    found = read(form, binding, {"ttl": TTL})
    tokens.check_size(found.scope)
    return found


def opening(
    form: Form, client: OAuthClient, binding: Binding = UNBOUND, otherwise: Mapping[str, object] | None = None
) -> GrantRequest:
    """Return the request for a root grant that a client makes: in its own name, if it proved one."""
    client.check_named()
    return read(form, attested(binding, client.workload), otherwise)


async def proven(form: Form, client: OAuthClient, verifier: Verifier, request: Request) -> Binding:
    """Return what a client's request is to be bound to: its workload, and the key that it names or proves.

    A human then approves of the key too (RFC 9449 §10.1).
    """
    binding, proofs = keyed(form), request.headers.getlist("dpop")
    if proofs:
        proof = verifier.read(proofs, "POST", url_of(request, verifier.issuer), None)
        await verifier.pending.burn(proof, stranger=True)
        if binding.jkt not in {None, proof.jkt}:
            raise InvalidRequestError(_OTHER_KEY)
        binding = replace(binding, jkt=proof.jkt)
    return attested(binding, client.workload)


def keyed(form: Form) -> Binding:
    """Return a binding to the key that a request names (``dpop_jkt``), if it does."""
    jkt = form.get("dpop_jkt")
    if jkt is not None and not _THUMBPRINT.fullmatch(jkt):
        raise InvalidRequestError(_OTHER_KEY)
    return Binding(jkt=jkt)


async def child_key(
    form: Form, verifier: Verifier, token: str | None = None, *, stranger: bool = False
) -> Binding | None:
    """Return the binding of a new grant to the key that ``req_cnf`` names and proves, if it does.

    ``token`` is the parent's; a ``stranger`` shows nothing else that is known here.
    """
    if "req_cnf" not in form and "req_cnf_proof" not in form:
        return None
    cnf, proof = read_json(wire.text(form, "req_cnf")), wire.text(form, "req_cnf_proof")
    endpoint = f"{verifier.issuer}/oauth/token"
    return Binding(jkt=await verifier.confirmed(cnf, proof, endpoint, token, stranger=stranger))


def audience(form: Form, verifier: Verifier) -> str | None:
    """Return whom the token is to be for: None is the broker as a whole, and its gateway alone can be named.

    TargetError for anybody else (RFC 8707 §2), and for two.
    """
    issuer, gateway = verifier.issuer, verifier.gateway
    named = {form[name] for name in TARGETS & form.keys()}
    if not named <= {issuer, gateway} or len(named) > 1:
        raise TargetError(help=f"the audience is `{issuer}`" + (f", or `{gateway}`" if gateway else ""))
    return None if named <= {issuer} else gateway
