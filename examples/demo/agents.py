"""The demo's agents: an orchestrator and the three sub-agents that it starts at run time, each a process of its own.

Nobody registered any of them. ``python -m examples.demo.agents ROLE`` runs one; its surroundings say what it may do.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from examples.demo import attack, channel
from examples.demo.calls import Answer, api, query, say, stream

PACE = 0.004  # seconds between two calls of a loop
STUBBORN = 25  # calls that a loop goes on for after the first refusal
WARM_UP = 20  # accepted calls before a loop says that it runs
SQL = "select quarter, sum(amount)::bigint as amount from sales.revenue group by quarter order by quarter"

_READ = {"type": "http", "resource": "documents", "actions": ["GET"], "paths": ["/v1/documents/q3-notes"]}
_NOTES = {"type": "http", "resource": "documents", "actions": ["PUT"], "paths": ["/v1/documents/notes-public"]}
_SUMMARY = {"type": "http", "resource": "documents", "actions": ["PUT"], "paths": ["/v1/documents/summary"]}
_SEARCH = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/search"]}
_ECHO = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/echo"]}
_FEED = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/feed"]}
_POST = {"type": "http", "resource": "messages", "actions": ["POST"], "paths": ["/v1/messages"]}
_REVENUE = {"type": "postgres", "resource": "warehouse", "actions": ["select"], "tables": ["sales.revenue"]}

GRANTS: Mapping[str, Sequence[Mapping[str, object]]] = MappingProxyType(
    {
        "analyst": (_REVENUE,),
        "researcher": (
            _READ,
            {**_NOTES, "args": "any"},
            {**_SEARCH, "args": {"query.q": "any"}},
            {**_ECHO, "args": {"query.encoding": "any"}},
            _FEED,
        ),
        "writer": (
            {**_SUMMARY, "args": {"body.text": "any"}},
            {**_POST, "args": {"body.channel": "#finance", "body.text": "any"}},
        ),
    }
)
ROOT = tuple(detail for details in GRANTS.values() for detail in details)


# -- orchestrator ---------------------------------------------------------------------------------------------------


def orchestrate() -> int:
    """Pull last quarter's revenue and draft a summary: spawn who is needed, when it is needed."""
    say("agent", role="orchestrator", grant=os.environ.get("REMIT_GRANT"))
    analyst = _spawn("analyst", {})
    introduced = _introduction(analyst)
    researcher = _spawn("researcher", {"SIBLING_ANALYST": introduced} if introduced else {})
    figures: list[str] = []
    readers = [threading.Thread(target=_relay, args=(child, figures)) for child in (analyst, researcher)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    writer = _spawn("writer", {}, *figures[:1])
    _relay(writer, [])
    return writer.wait()


def _spawn(role: str, env: Mapping[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "examples.demo.agents", role, *arguments]
    if os.environ.get("REMIT_SOCKET"):
        patience = {"DEMO_PATIENCE": os.environ.get("DEMO_PATIENCE", "2")}
        command = channel.delegated(role, GRANTS[role], command, {**patience, **env})
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


def _introduction(child: subprocess.Popen[bytes]) -> str | None:
    """Return the grant that a sub-agent says it has: agents talk, and a grant's id is no secret."""
    assert child.stdout is not None  # noqa: S101 - it was started with a pipe
    line = child.stdout.readline()
    sys.stdout.write(line.decode(errors="replace"))
    sys.stdout.flush()
    grant: str | None = json.loads(line)["grant"] if line else None
    return grant


def _relay(child: subprocess.Popen[bytes], figures: list[str]) -> None:
    assert child.stdout is not None  # noqa: S101 - it was started with a pipe
    for line in child.stdout:
        sys.stdout.write(line.decode(errors="replace"))
        sys.stdout.flush()
        if line.startswith(b'{"event": "figures"'):
            figures.append(json.dumps(json.loads(line)["figures"]))
    child.wait()


# -- analyst --------------------------------------------------------------------------------------------------------


def analyse() -> int:
    """Read the revenue, then keep the session open, as a careless agent does, until somebody ends it."""
    say("agent", role="analyst", grant=os.environ.get("REMIT_GRANT"))
    return asyncio.run(_read_and_linger(channel.dsn("warehouse", GRANTS["analyst"][0]), _patience()))


async def _read_and_linger(dsn: str, patience: float) -> int:
    import asyncpg

    session = await asyncpg.connect(dsn, ssl=False)
    last = 0.0
    try:
        figures = {row["quarter"]: row["amount"] for row in await session.fetch(SQL)}
        say("figures", figures=figures)
        end = time.monotonic() + patience
        for number in itertools.count():
            await session.fetchval("select count(*) from sales.revenue")
            last = time.monotonic()
            if number == WARM_UP:
                say("session", grant=os.environ.get("REMIT_GRANT"))
            if last > end:
                break
            await asyncio.sleep(PACE)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        say("session-cut", last=last)
        return 0
    say("session-left", last=last)
    await session.close()
    return 0


# -- researcher -----------------------------------------------------------------------------------------------------


def research() -> int:
    """Search, read what was found, and obey what it says; then keep going, whatever happens."""
    say("agent", role="researcher", grant=os.environ.get("REMIT_GRANT"))
    found = api("search").call("GET", query("/v1/search", q="third quarter revenue"))
    say("searched", status=found.status)
    document = api("documents").call("GET", "/v1/documents/q3-notes")
    attack.obey(document.body)
    feed = threading.Thread(target=_feed, daemon=True)
    feed.start()
    _keep_going(_patience(), lambda: api("search").call("GET", query("/v1/search", q="more")))
    feed.join(1)
    return 0


def _keep_going(patience: float, call: Callable[[], Answer]) -> None:
    accepted = refused = 0
    pace, end = threading.Event(), time.monotonic() + patience
    while time.monotonic() < end and refused < STUBBORN:
        ok = call().ok
        accepted, refused = accepted + ok, refused + (not ok)
        if accepted == WARM_UP and ok:
            say("looping", grant=os.environ.get("REMIT_GRANT"))
        pace.wait(PACE)
    say("stopped", accepted=accepted, refused=refused)


def _feed() -> None:
    """Read a stream to its end, and say when the last of it came."""
    search = api("search")
    last, events = 0.0, 0
    for _ in stream(search.base + "/v1/feed", {"Authorization": f"Bearer {search.key}"}):
        last, events = time.monotonic(), events + 1
    say("stream-ended", last=last, events=events)


# -- writer ---------------------------------------------------------------------------------------------------------


def write(figures: str = "{}") -> int:
    """Draft the summary for the CFO and announce it."""
    say("agent", role="writer", grant=os.environ.get("REMIT_GRANT"))
    quarters: dict[str, int] = json.loads(figures)
    text = "Revenue by quarter: " + ", ".join(f"{name} {amount:,}" for name, amount in quarters.items())
    stored = api("documents").call("PUT", "/v1/documents/summary", json.dumps({"text": text}).encode())
    posted = api("messages").call("POST", "/v1/messages", json.dumps({"channel": "#finance", "text": text}).encode())
    say("drafted", stored=stored.status, posted=posted.status, text=text)
    return 0 if stored.ok and posted.ok else 1


def _patience() -> float:
    return float(os.environ.get("DEMO_PATIENCE", "2"))


def main(role: str, *arguments: str) -> int:
    """Run one agent."""
    roles: dict[str, Callable[..., int]] = {
        "orchestrator": orchestrate,
        "analyst": analyse,
        "researcher": research,
        "writer": write,
    }
    return roles[role](*arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
