"""Pages to which an agent's client brings its human (MCP, elicitation in URL mode): remit's own, and servers'. Pure.

A page of remit's is where a human logs in and connects a resource, for themselves: who is sent there by somebody else
connects nothing for them. A client is asked only if it said that it shows pages; what servers hear of that is another
thing, and needs an action. What a server asks is never such that it could be taken for what remit asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from remit.core import fields
from remit.errors import InvalidRequestError, ScopeError
from remit.gateway.mcp.messages import CAPABILITIES, Json, Message
from remit.gateway.mcp.rules import CALL, ELICIT, GET_PROMPT, READ

OWN = "remit/"  # what remit's own names begin with
KEY = f"{OWN}connect"  # what is asked of a client, and its answer, among others' (2026-07-28)
URL_REQUIRED = -32_042  # 2025-11-25
_AGAIN = frozenset({CALL, GET_PROMPT, READ})  # what is made again with answers


def announced(said: Message) -> bool:
    """Whether a message says that its client brings humans to pages: for its session, or for itself (2026-07-28)."""
    told = said.params.get("capabilities") if said.method == "initialize" else said.meta.get(CAPABILITIES)
    able = told.get("elicitation") if isinstance(told, dict) else None
    return isinstance(able, dict) and isinstance(able.get("url"), dict)


def taken(said: Message) -> tuple[Message, bool]:
    """Return a message without its answer to remit, which is no server's to read, and whether it had one."""
    answers = said.params.get("inputResponses")
    if not isinstance(answers, dict) or KEY not in answers:
        return said, False
    left = {key: answer for key, answer in answers.items() if key != KEY}
    params = {name: value for name, value in said.params.items() if name != "inputResponses"}
    params |= {"inputResponses": left} if left else {}
    return Message({**said.body, "params": params}, said.method, said.id), True


def brought(said: Message, problem: Mapping[str, object], told: str) -> Json | None:
    """Return what has a client bring its human to the page of a refusal; None where its revision has no words for it.

    ``told`` is the refusal in words, for clients that show no more.
    """
    page: Json = {
        "mode": "url",
        "url": problem["url"],
        "message": f"remit: {problem['detail']}. Its page has you log in, and says what you connect before you do.",
    }
    head: Json = {"jsonrpc": "2.0", "id": said.id}
    meta = {f"{OWN}problem": problem}
    if said.version is None:
        asked = [{**page, "elicitationId": f"{OWN}{problem['instance']}"}]
        return {**head, "error": {"code": URL_REQUIRED, "message": told, "data": {"elicitations": asked, **meta}}}
    if said.method not in _AGAIN:
        return None
    state = {name: value for name, value in said.params.items() if name == "requestState"}
    asks = {KEY: {"method": ELICIT, "params": page}}
    return {**head, "result": {"resultType": "input_required", "inputRequests": asks, **state, "_meta": meta}}


def check_foreign(params: Json, home: str) -> None:
    """Raise ScopeError for a page of a server's that no human should open, or that could be taken for one of remit's.

    ``home`` is where remit's own are.
    """
    url, named = params.get("url"), params.get("elicitationId")
    try:
        place = _place(fields.check_url(url.partition("#")[0] if isinstance(url, str) else url, "the page"))
    except InvalidRequestError as error:
        raise ScopeError(f"the server asks to open a page, and {error.detail}") from None
    if place == _place(home) or (isinstance(named, str) and named.startswith(OWN)):
        raise ScopeError("the server asks in the name of remit, or for a page of remit's")


def _place(url: str) -> tuple[str, int]:
    """Return host and port; all names of this host are one."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    return "localhost" if fields.is_loopback(host) else host, parts.port or (443 if parts.scheme == "https" else 80)
