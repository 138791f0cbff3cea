"""Every error remit raises, and how each looks on the wire.

Each class carries its own facts, so no surface keeps a table that could forget one. ``docs/reference/errors.md`` has
all of them, and is tested against this file.

``detail`` is one lower-case sentence that is safe for the caller: user input in backticks, no class, module, path or
driver text. It defaults to the class docstring. ``help`` says what to do next. A cause stays in ``__cause__``; it is
logged under the problem's instance id and never rendered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


ASK = "ask the human for more with `remit ask`, `task.ask(...)` in Python or POST /v1/approvals"


class RemitError(Exception):
    """something went wrong inside remit"""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    oauth: ClassVar[str] = "server_error"
    advice: ClassVar[str | None] = None  # the help where none is given

    def __init__(
        self,
        detail: str | None = None,
        *,
        help: str | None = None,  # noqa: A002 - the field's name on every surface
        offending: Sequence[Mapping[str, object]] = (),
        enough: Mapping[str, object] | None = None,
        retry_after: int | None = None,
    ) -> None:
        """Build an error.

        ``offending`` lists the details that were too wide, ``enough`` is the detail that would have sufficed, for
        which a human can be asked. ``retry_after`` is in seconds.
        """
        self.detail = detail or (type(self).__doc__ or "").split("\n", 1)[0]
        self.help = help if help is not None else ASK if enough is not None else self.advice
        self.offending = tuple(offending)
        self.enough = enough
        self.retry_after = retry_after
        super().__init__(self.detail)


class InvalidRequestError(RemitError):
    """the request is not well formed"""

    code, status, oauth = "invalid-request", 400, "invalid_request"


class UnknownDetailError(InvalidRequestError):
    """an authorization detail has an unknown type, field or value"""

    code, oauth = "unknown-detail", "invalid_authorization_details"


class TooLargeError(InvalidRequestError):
    """the request is larger than remit accepts"""

    code, status = "too-large", 413


class CodingError(InvalidRequestError):
    """the body is in a content coding that is not looked into, and the grant names arguments in it"""

    code, status = "coding", 415


class UnsupportedGrantError(InvalidRequestError):
    """this way to a token is not one that this server takes"""

    code, status, oauth = "unsupported-grant", 400, "unsupported_grant_type"


class UnsupportedScopeError(InvalidRequestError):
    """what may be done is said in `authorization_details`, not in `scope`"""

    code, status, oauth = "unsupported-scope", 400, "invalid_scope"


class TargetError(InvalidRequestError):
    """tokens are not made for this audience or resource"""

    code, status, oauth = "target", 400, "invalid_target"


class GrantTokenError(InvalidRequestError):
    """the code, assertion or token to be exchanged is not one that can be used"""

    code, status, oauth = "grant-token", 400, "invalid_grant"


class UsedError(GrantTokenError):
    """the code, assertion or token was used before"""

    code, status, oauth = "used", 400, "invalid_grant"


class UnauthenticatedError(RemitError):
    """the caller did not prove who it is"""

    code, status, oauth = "unauthenticated", 401, "invalid_client"


class TokenError(UnauthenticatedError):
    """the token is not one that remit accepts here"""

    code, oauth = "token", "invalid_token"


class AudienceError(TokenError):
    """the token is meant for somebody else"""

    code, status, oauth = "audience", 401, "invalid_token"


class ProofError(UnauthenticatedError):
    """the proof of possession is missing or wrong"""

    code, oauth = "proof", "invalid_dpop_proof"


class ReplayError(ProofError):
    """the proof was used before"""

    code, status, oauth = "replay", 401, "invalid_dpop_proof"


class WrongKeyError(ProofError):
    """the proof is by another key than the token's"""

    code, status, oauth = "wrong-key", 401, "invalid_dpop_proof"


class NonceRequiredError(ProofError):
    """the proof needs a nonce from this server"""

    code, oauth = "use-nonce", "use_dpop_nonce"


class DeniedError(RemitError):
    """this is not allowed"""

    code, status, oauth = "denied", 403, "access_denied"


class AttenuationError(DeniedError):
    """the request is wider than the grant it comes from"""

    code, oauth = "attenuation", "invalid_authorization_details"


class PolicyError(DeniedError):
    """the policy does not allow this"""

    code = "policy"
    version: str | None = None  # of the policy that decided
    inside: PolicyError | None = None  # the same, as it is told to whoever runs the broker and put on record


class DepthError(DeniedError):
    """the grant may not be delegated this far"""

    code = "depth"


class FanOutError(DepthError):
    """the grant has as many live children as it may have"""

    code, status, oauth = "fan-out", 403, "access_denied"


class DelegateError(DepthError):
    """the grant may not be delegated to this agent"""

    code, status, oauth = "delegate", 403, "access_denied"


class ScopeError(DeniedError):
    """the grant does not cover this request"""

    code, oauth = "scope", "insufficient_scope"


class BudgetError(DeniedError):
    """the budget of the grant, or of one it comes from, is used up"""

    code = "budget"


class SplicedError(DeniedError):
    """the tokens do not belong to one chain"""

    code, status, oauth = "spliced", 403, "invalid_grant"


class StepUpError(DeniedError):
    """the human did not prove strongly enough, or recently enough, who it is"""

    code, status, oauth = "step-up", 403, "insufficient_user_authentication"


class ApprovalError(DeniedError):
    """a human has to approve this first, or has refused"""

    code, status, oauth = "approval", 403, "access_denied"


class PendingError(ApprovalError):
    """a human has not decided yet"""

    code, status, oauth = "pending", 403, "authorization_pending"


class SlowDownError(ApprovalError):
    """it was asked too often whether a human has decided"""

    code, status, oauth = "slow-down", 403, "slow_down"


class LapsedError(ApprovalError):
    """nobody decided in time"""

    code, status, oauth = "lapsed", 403, "expired_token"


class GrantEndedError(DeniedError):
    """the grant has ended"""

    code, oauth = "grant-ended", "invalid_grant"


class RevokedError(GrantEndedError):
    """the grant, or one it comes from, was revoked"""

    code = "revoked"


class ExpiredError(GrantEndedError):
    """the grant, or one it comes from, has expired"""

    code = "expired"


class PlaceholderError(DeniedError):
    """a placeholder or a token of remit's stands where no credential belongs"""

    code = "placeholder"
    advice = "send it alone, in the header where its own resource's key goes, as an SDK does; in no URL and no body"


class NotFoundError(RemitError):
    """there is no such object, or you may not know of it"""

    code, status, oauth = "not-found", 404, "invalid_target"


class MethodError(RemitError):
    """this method is not accepted here"""

    code, status, oauth = "method", 405, "invalid_request"


class ConflictError(RemitError):
    """the state changed meanwhile, or does not permit this"""

    code, status, oauth = "conflict", 409, "invalid_request"


class MisdirectedError(RemitError):
    """the request names a host that this server is not"""

    code, status, oauth = "misdirected", 421, "invalid_request"


class LimitError(RemitError):
    """too much at once"""

    code, status, oauth = "limit", 429, "temporarily_unavailable"


class IntegrityError(RemitError):
    """the stored state does not verify, so nothing is served from it"""

    code, status, oauth = "integrity", 500, "server_error"


class EngineError(RemitError):
    """the target could not be reached or did not answer"""

    code, status, oauth = "engine", 502, "temporarily_unavailable"


class EngineRefusedError(EngineError):
    """the target refused, and asking again will not help"""

    code, oauth = "engine-refused", "server_error"


class UpstreamError(RemitError):
    """the upstream could not be reached or broke the protocol"""

    code, status, oauth = "upstream", 502, "server_error"


class UnavailableError(RemitError):
    """remit cannot serve this now"""

    code, status, oauth = "unavailable", 503, "temporarily_unavailable"
