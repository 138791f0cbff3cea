"""What a child that is yet to be made brings: the key that its token will be bound to, and who it is."""

from __future__ import annotations

from remit import jose
from remit.core.principal import Workload
from remit.errors import InvalidRequestError, WrongKeyError
from remit.oauth.clients import WIT, assertion_type
from remit.ports.identity import Workloads
from remit.web.verifier import Verifier


def key(verifier: Verifier, cnf: object, proof: str, url: str, token: str | None, *, stranger: bool = False) -> str:
    """Return the thumbprint of the key of ``req_cnf``, once ``req_cnf_proof`` has proven it for a POST to ``url``.

    ``token`` is the parent's, which the proof covers (``ath``); a ``stranger`` shows nothing else that is known here.
    InvalidRequestError, or a ProofError.
    """
    if not isinstance(cnf, dict) or cnf.keys() != {"jwk"}:
        raise InvalidRequestError('`req_cnf` must be {"jwk": …}')
    named = jose.public_key(cnf["jwk"], InvalidRequestError)
    found = verifier.read((proof,), "POST", url, token)
    if found.jkt != named.thumbprint:
        raise WrongKeyError("`req_cnf_proof` is by another key than `req_cnf`")
    verifier.once(found, stranger=stranger)
    return found.jkt


async def actor(workloads: Workloads, token: str, jkt: str | None) -> Workload:
    """Return the workload that the child is, by a credential of its own (RFC 8693 §2.1); ``jkt`` is the child's key.

    A WIT is worth nothing to whoever has not its key, the parent included: the child's key has to be that one.
    """
    kind = assertion_type(token)
    workload = await (workloads.named(token) if kind == WIT else workloads.assertion(token, kind))
    if workload.jkt not in {None, jkt}:
        raise WrongKeyError("`req_cnf` is another key than the actor token is bound to")
    return workload
