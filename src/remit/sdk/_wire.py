"""Conversations with the broker, written once: a flow yields calls and receives answers; a client sends them.

Rules:

- A flow does no I/O and knows no colour; ``Client.run`` and ``AsyncClient.run`` differ in ``await`` alone.
- Whatever goes wrong is a RemitError: a problem document of the broker, or that no broker answers.
- Nothing is sent twice: a lost answer is an error, never a retry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from functools import partial, wraps
from itertools import chain
from typing import Any, Generic, ParamSpec, TypeVar
from urllib.parse import quote

import httpx

from remit.errors import InvalidRequestError, RemitError, UnavailableError, UpstreamError
from remit.sdk.dpop import DPoPKey
from remit.sdk.place import NO_BROKER

BASE = "http://localhost"  # over a socket file the host says nothing
PATIENCE = httpx.Timeout(60.0, connect=5.0)  # revoking a large tree visits its targets first
KEEPING = httpx.Limits(keepalive_expiry=30.0)
PASSING = httpx.Limits(max_keepalive_connections=0)  # of clients that nobody closes

T = TypeVar("T")
N = TypeVar("N", bound=AbstractAsyncContextManager[Any])
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One request to the control plane. ``form`` is sent url-encoded, ``body`` as JSON."""

    method: str
    path: str
    form: Mapping[str, str] | None = None
    body: object = None
    query: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


Flow = Generator[ApiCall, httpx.Response, T]
Json = dict[str, Any]


class AwaitableContext(AsyncExitStack, Generic[N]):
    """The call of a coroutine function: ``await`` it for its result, or enter the result with ``async with``."""

    def __init__(self, call: Callable[[], Coroutine[Any, Any, N]]) -> None:
        super().__init__()
        self._call = call

    def __await__(self) -> Generator[Any, Any, N]:
        return self._call().__await__()

    async def __aenter__(self) -> Any:
        return await self.enter_async_context(await self._call())


def awaitable_context(function: Callable[P, Coroutine[Any, Any, N]]) -> Callable[P, AwaitableContext[N]]:
    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> AwaitableContext[N]:
        return AwaitableContext(partial(function, *args, **kwargs))

    return called


def request_of(http: httpx.Client | httpx.AsyncClient, call: ApiCall) -> httpx.Request:
    try:
        return http.build_request(
            call.method, call.path, params=call.query or None, headers=call.headers, data=call.form, json=call.body
        )
    except UnicodeEncodeError as error:  # bytes of a command line that are no UTF-8
        raise InvalidRequestError("what was given is no text that can be sent") from error


def unreachable(error: httpx.TransportError) -> UnavailableError:
    if isinstance(error, httpx.ConnectError):
        return UnavailableError("no broker answers", help=NO_BROKER)
    what = "did not answer in time" if isinstance(error, httpx.TimeoutException) else "hung up"
    return UnavailableError(f"the broker {what}", help="look at the task before asking again")


def ask(call: ApiCall) -> Flow[Json]:
    """Send a call and return the decoded answer, or raise the error it carries."""
    return decoded((yield call))


def ask_list(call: ApiCall, name: str) -> Flow[list[Json]]:
    """Send a call and return a list of the answer, or raise the error it carries."""
    listed: list[Json] = (yield from ask(call)).get(name, [])
    return listed


def ask_proven(call: Callable[[Json], ApiCall], request: Json, key: DPoPKey, endpoint: str) -> Flow[httpx.Response]:
    """Send a request for a grant bound to ``key``, with a proof; once more with the server's nonce if it wants one."""
    keyed = {**request, "req_cnf": {"jwk": key.jwk()}}
    answer = yield call({**keyed, "req_cnf_proof": key.proof("POST", endpoint)})
    nonce = answer.headers.get("dpop-nonce")
    if nonce and answer.is_client_error and error_of(answer).code == "use-nonce":
        answer = yield call({**keyed, "req_cnf_proof": key.proof("POST", endpoint, nonce=nonce)})
    return answer


def decoded(answer: httpx.Response) -> Json:
    """Return the JSON of an answer, or raise the error it carries."""
    check(answer)
    try:
        found: Json = answer.json() if answer.content else {}
    except ValueError as error:
        raise UpstreamError("the broker's answer is not JSON") from error
    return found


def check(answer: httpx.Response) -> None:
    if answer.status_code >= httpx.codes.BAD_REQUEST:
        raise error_of(answer)


def error_of(answer: httpx.Response) -> RemitError:
    """Return the error that an answer carries: a problem document (RFC 9457) or an OAuth error (RFC 6749)."""
    try:
        document = answer.json()
    except ValueError:
        document = None
    document = document if isinstance(document, dict) else {}
    retry = answer.headers.get("retry-after", "")
    error = _class_of(document, answer.status_code)(
        _text(document, "detail") or _text(document, "error_description"),
        help=_text(document, "help"),
        offending=_objects(document.get("offending")),
        enough=next(iter(_objects([document.get("enough")])), None),
        retry_after=int(retry) if retry.isascii() and retry.isdigit() else None,
    )
    instance = _text(document, "instance")
    if instance and error.status >= httpx.codes.INTERNAL_SERVER_ERROR:  # the log has more on it
        error.add_note(f"instance: {instance}")
    return error


def _class_of(document: Mapping[str, object], status: int) -> type[RemitError]:
    tree: list[type[RemitError]] = [RemitError, *_descendants(RemitError)]
    code = _text(document, "code") or (_text(document, "type") or "").rpartition("/")[2]
    oauth = _text(document, "error")
    by_code = (kind for kind in tree if code and kind.code == code)
    by_name = (kind for kind in tree if oauth and kind.oauth == oauth and kind.status in {status, RemitError.status})
    by_status = (kind for kind in tree if kind.status == status)
    return next(chain(by_code, by_name, by_status), RemitError)


def _descendants(kind: type[RemitError]) -> Generator[type[RemitError], None, None]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)


def _text(document: Mapping[str, object], name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) and value else None


def _objects(value: object) -> tuple[Mapping[str, object], ...]:
    return tuple(item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()


def encoded(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def quoted(text: str) -> str:
    return quote(text, safe="")
