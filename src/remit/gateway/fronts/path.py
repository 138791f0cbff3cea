"""The front of clients that are told a base URL: the first segment of the path names the resource.

`/search/v1/search` is `/v1/search` at `search`; `/@grt_…/search/v1/search` names a grant inside the caller's own too.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from remit.core.principal import Holder
from remit.errors import InvalidRequestError, MisdirectedError, NotFoundError
from remit.gateway import canon
from remit.gateway.canon import RequestTarget
from remit.gateway.framing import Fields
from remit.gateway.fronts.discovery import Discovery

# headers, method, url, resource -> who proves a grant
Verifier = Callable[[Mapping[str, str], str, str, str], Awaitable[Holder]]

_TARGET = re.compile(
    rb"(?:/@(grt_[A-Za-z0-9_-]{1,64}))?/([a-z0-9][a-z0-9._-]{0,62})((?:/[A-Za-z0-9\-._~!$&'()+,;=:@%]*)*)(?:\?(.*))?"
)


@dataclass(slots=True, eq=False)
class PathFront:
    """A front for a channel, or for callers that each prove a grant to ``verify``. ``hosts`` are its own names."""

    bound_grant: str | None
    _hosts: frozenset[bytes]
    _verify: Verifier | None = None
    discovery: Discovery | None = None

    def check(self, fields: Fields) -> None:
        host = fields.get(b"host") or b""
        if host not in self._hosts:
            if not host.replace(b".", b"").replace(b":", b"").replace(b"-", b"").strip(b"[]").isalnum():
                raise InvalidRequestError("`Host` is not the name of a host")
            raise MisdirectedError

    async def principal(self, method: str, raw: bytes, fields: Fields) -> Holder:
        if self._verify is None:
            raise NotFoundError
        headers = {name.decode(): value.decode("latin-1") for name, value in fields.items}
        path = raw.partition(b"?")[0].decode("ascii")
        found = _TARGET.fullmatch(raw)
        name = "" if found is None else found[2].decode()
        return await self._verify(
            headers, method, f"http://{headers['host']}{path}", name
        )  # a host that ``check`` knew

    def target(self, raw: bytes, fields: Fields) -> RequestTarget:  # noqa: ARG002 - the path says it all
        return read_target(raw)


@lru_cache(maxsize=1024)
def read_target(raw: bytes) -> RequestTarget:
    """Read an origin-form target, or raise InvalidRequestError."""
    found = _TARGET.fullmatch(raw)
    if found is None:
        raise InvalidRequestError(
            "the target is not `/resource/path` in canonical form",
            help="percent-encode what is not plain text, with upper-case digits, and nothing that need not be",
        )
    grant = found[1].decode() if found[1] is not None else None
    return canon.target(found[2].decode(), found[3], found[4], grant)
