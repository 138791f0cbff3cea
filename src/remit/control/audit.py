"""The audit log on the wire: entries as they were hashed, checkpoints as they were signed, proofs in base64url."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from remit import jose
from remit.broker import Broker
from remit.core import tree
from remit.core.audit import Checkpoint
from remit.core.principal import Principal
from remit.errors import InvalidRequestError, NotFoundError
from remit.web import wire
from remit.web.authentication import operator

MAX_ENTRIES = 1_000  # in one answer
ENTRIES = frozenset({"start", "limit"})
INCLUSION = frozenset({"seq", "size"})
CONSISTENCY = frozenset({"from", "to"})

Checkpoints = Callable[[], Awaitable[Checkpoint]]


class Audit:
    """The handlers over one broker; ``checkpoint`` signs the head of the log as it is now."""

    def __init__(self, broker: Broker, checkpoint: Checkpoints) -> None:
        """Serve ``broker``'s log."""
        self._broker = broker
        self._checkpoint = checkpoint

    async def entries(self, request: Request, caller: Principal) -> Response:
        """Return entries from ``start``: each leaf is spliced in as it was hashed."""
        operator(caller)
        asked = wire.pairs(request.scope["query_string"], ENTRIES)
        start, limit = wire.whole("start", asked.get("start", "0")), wire.whole("limit", asked.get("limit", "100"))
        found = await self._broker.entries(start, min(limit, MAX_ENTRIES))
        leaves = b",".join(entry.leaf for entry in found)
        trouble = self._broker.second.trouble
        about = {
            "size": await self._broker.size(),
            "rolled_back": self._broker.rolled_back,
            "second_place": None if trouble is None else trouble.detail,
        }
        head = json.dumps(about, separators=(",", ":")).encode()[:-1]
        return Response(b'%b,"entries":[%b]}' % (head, leaves), 200, wire.HEADERS, "application/json")

    async def checkpoint(self, request: Request, caller: Principal) -> Response:
        """Return a signed checkpoint (C2SP note)."""
        del request
        operator(caller)
        return PlainTextResponse((await self._checkpoint()).text, headers=wire.HEADERS)

    async def inclusion(self, request: Request, caller: Principal) -> Response:
        """Prove that an entry is in the log of ``size`` entries."""
        operator(caller)
        seq, size = _two(request, INCLUSION, "seq", "size")
        await self._reaches(size)
        return _proof(await self._broker.nodes(tree.inclusion_path(seq, size)), seq=seq, size=size)

    async def consistency(self, request: Request, caller: Principal) -> Response:
        """Prove that the log of ``to`` entries extends that of ``from`` entries."""
        operator(caller)
        old, new = _two(request, CONSISTENCY, "from", "to")
        await self._reaches(new)
        return _proof(await self._broker.nodes(tree.consistency_path(old, new)), **{"from": old, "to": new})

    async def _reaches(self, size: int) -> None:
        if size > await self._broker.size():
            raise NotFoundError("the log has fewer entries than that")


def _two(request: Request, known: frozenset[str], first: str, second: str) -> tuple[int, int]:
    asked = wire.pairs(request.scope["query_string"], known)
    if asked.keys() != known:
        raise InvalidRequestError(f"`{first}` and `{second}` are needed")
    return wire.whole(first, asked[first]), wire.whole(second, asked[second])


def _proof(nodes: Sequence[bytes], **about: int) -> Response:
    return wire.answer({**about, "proof": [jose.encode(node) for node in nodes]})
