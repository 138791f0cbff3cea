"""Every error remit raises, and how each looks on the wire.

Each class carries its own facts, or its parent's, so no surface keeps a table that could forget one.
``docs/reference/errors.md`` has all of them, and is tested against this file.

``detail`` is one lower-case sentence that is safe for the caller: user input in backticks, no class, module, path or
driver text. It defaults to the class docstring. ``help`` says what to do next. A cause stays in ``__cause__``; it is
logged under the problem's instance id and never rendered.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


ASK = "ask the human for more with `remit ask`, `task.ask(...)` in Python or POST /v1/approvals"


class RemitError(Exception):
    """something went wrong inside remit"""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    oauth: ClassVar[str] = "server_error"
    advice: ClassVar[str | None] = None  # the help where none is given
    told_as: str | None = None  # the name that a protocol has for it where it happened, if not ``oauth``

    def __init_subclass__(cls, code: str | None = None, status: int | None = None, oauth: str | None = None) -> None:
        cls.code, cls.status, cls.oauth = code or cls.code, status or cls.status, oauth or cls.oauth

    def __init__(
        self,
        detail: str | None = None,
        *,
        help: str | None = None,  # noqa: A002 - the field's name on every surface
        offending: Sequence[Mapping[str, object]] = (),
        enough: Mapping[str, object] | None = None,
        retry_after: int | None = None,
        url: str | None = None,
    ) -> None:
        """Build an error; ``retry_after`` is in seconds, ``url`` a page on which a human can do what is needed.

        ``offending`` are the details that are too wide, ``enough`` the one that a human can be asked for instead.
        """
        self.detail = detail or (type(self).__doc__ or "").split("\n", 1)[0]
        self.help = help if help is not None else ASK if enough is not None else self.advice
        self.offending = tuple(offending)
        self.enough = enough
        self.retry_after = retry_after
        self.url = url
        super().__init__(self.detail)


@contextmanager
def told_as(name: str, *kinds: type[RemitError]) -> Iterator[None]:
    """Have errors of these kinds from within told by the ``name`` that a protocol has for them there."""
    try:
        yield
    except kinds as error:
        error.told_as = name
        raise


class InvalidRequestError(RemitError, code="invalid-request", status=400, oauth="invalid_request"):
    """the request is not well formed"""


class UnknownDetailError(InvalidRequestError, code="unknown-detail", oauth="invalid_authorization_details"):
    """an authorization detail has an unknown type, field or value"""


class TooLargeError(InvalidRequestError, code="too-large", status=413):
    """the request is larger than remit accepts"""


class CodingError(InvalidRequestError, code="coding", status=415):
    """the body is in a content coding that is not looked into, and the grant names arguments in it"""


class UnsupportedGrantError(InvalidRequestError, code="unsupported-grant", oauth="unsupported_grant_type"):
    """this way to a token is not one that this server takes"""


class UnsupportedTokenError(InvalidRequestError, code="unsupported-token", oauth="unsupported_token_type"):
    """a token for a service elsewhere ends nothing, as that service has it too"""

    advice = "revoke the refresh token, or by a proof of another token of the grant"


class UnsupportedScopeError(InvalidRequestError, code="unsupported-scope", oauth="invalid_scope"):
    """there is no such scope here, or it is not for this client"""

    advice = "say what is to be done in `authorization_details`; names for it are `[scopes.NAME]` of the configuration"


class TargetError(InvalidRequestError, code="target", oauth="invalid_target"):
    """tokens are not made for this audience or resource"""


class GrantTokenError(InvalidRequestError, code="grant-token", oauth="invalid_grant"):
    """the code, assertion or token to be exchanged is not one that can be used"""


class UsedError(GrantTokenError, code="used"):
    """the code, assertion or token was used before"""


class UnauthenticatedError(RemitError, code="unauthenticated", status=401, oauth="invalid_client"):
    """the caller did not prove who it is"""


class TokenError(UnauthenticatedError, code="token", oauth="invalid_token"):
    """the token is not one that remit accepts here"""


class AudienceError(TokenError, code="audience"):
    """the token is meant for somebody else"""


class ProofError(UnauthenticatedError, code="proof", oauth="invalid_dpop_proof"):
    """the proof of possession is missing or wrong"""


class BearerError(ProofError, code="bearer"):
    """there is no DPoP proof and no client certificate, and what is asked for is not one place that takes bearers"""

    advice = (
        "make DPoP proofs (RFC 9449) or show a certificate at the TLS listener (RFC 8705);"
        " or ask for one resource alone, or MCP servers alone, of which the operator has said `bearer = true`"
    )


class ReplayError(ProofError, code="replay"):
    """the proof was used before"""


class WrongKeyError(ProofError, code="wrong-key"):
    """the proof is by another key than the token's"""


class NonceRequiredError(ProofError, code="use-nonce", oauth="use_dpop_nonce"):
    """the proof needs a nonce from this server"""


class DeniedError(RemitError, code="denied", status=403, oauth="access_denied"):
    """this is not allowed"""


class AttenuationError(DeniedError, code="attenuation", oauth="invalid_authorization_details"):
    """the request is wider than the grant it comes from"""


class PolicyError(DeniedError, code="policy"):
    """the policy does not allow this"""

    version: str | None = None  # of the policy that decided
    inside: PolicyError | None = None  # the same, as it is told to whoever runs the broker and put on record


class DepthError(DeniedError, code="depth"):
    """the grant may not be delegated this far"""


class FanOutError(DepthError, code="fan-out"):
    """the grant has as many live children as it may have"""


class DelegateError(DepthError, code="delegate"):
    """the grant may not be delegated to this agent"""


class ScopeError(DeniedError, code="scope", oauth="insufficient_scope"):
    """the grant does not cover this request"""


class BudgetError(DeniedError, code="budget"):
    """the budget of the grant, or of one it comes from, is used up"""


class SplicedError(DeniedError, code="spliced", oauth="invalid_grant"):
    """the tokens do not belong to one chain"""


class StepUpError(DeniedError, code="step-up", oauth="insufficient_user_authentication"):
    """the human did not prove strongly enough, or recently enough, who it is"""


class ApprovalError(DeniedError, code="approval"):
    """a human has to approve this first, or has refused"""


class PendingError(ApprovalError, code="pending", oauth="authorization_pending"):
    """a human has not decided yet"""


class SlowDownError(ApprovalError, code="slow-down", oauth="slow_down"):
    """it was asked too often whether a human has decided"""


class LapsedError(ApprovalError, code="lapsed", oauth="expired_token"):
    """nobody decided in time"""


class ConnectError(DeniedError, code="connect"):
    """a human has to connect the resource to their account at its provider first"""


class DescriptionError(DeniedError, code="description"):
    """how a server describes this was not accepted by a human, or is not what was"""


class GrantEndedError(DeniedError, code="grant-ended", oauth="invalid_grant"):
    """the grant has ended"""


class RevokedError(GrantEndedError, code="revoked"):
    """the grant, or one it comes from, was revoked"""


class ExpiredError(GrantEndedError, code="expired"):
    """the grant, or one it comes from, has expired"""


class PlaceholderError(DeniedError, code="placeholder"):
    """a placeholder or a token of remit's stands where no credential belongs"""

    advice = "send it alone, in the header where its own resource's key goes, as an SDK does; in no URL and no body"


class NotFoundError(RemitError, code="not-found", status=404, oauth="invalid_target"):
    """there is no such object, or you may not know of it"""


class MethodError(RemitError, code="method", status=405, oauth="invalid_request"):
    """this method is not accepted here"""


class ConflictError(RemitError, code="conflict", status=409, oauth="invalid_request"):
    """the state changed meanwhile, or does not permit this"""


class MisdirectedError(RemitError, code="misdirected", status=421, oauth="invalid_request"):
    """the request names a host that this server is not"""


class LimitError(RemitError, code="limit", status=429, oauth="temporarily_unavailable"):
    """too much at once"""


class IntegrityError(RemitError, code="integrity"):
    """the stored state does not verify, so nothing is served from it"""


class EngineError(RemitError, code="engine", status=502, oauth="temporarily_unavailable"):
    """the target could not be reached or did not answer"""


class EngineRefusedError(EngineError, code="engine-refused", oauth="server_error"):
    """the target refused, and asking again will not help"""


class UnknownEngineError(EngineError, code="unknown-engine"):
    """what reaches the target has been started anew"""


class UpstreamError(RemitError, code="upstream", status=502):
    """the upstream could not be reached or broke the protocol"""


class UnavailableError(RemitError, code="unavailable", status=503, oauth="temporarily_unavailable"):
    """remit cannot serve this now"""
