"""What the dearest requests cost a loop at one go, as CPU of the thread: the authority's 5 ms, web's and an edge's 50.

The requests are made from the description of the API (``worst_requests.py``) and from the tables of details, and sent
to a broker on loops that are measured (``worst_scene.py``). What is over a bound is measured again, five times in all.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from remit.core.request import Bounds, GrantRequest
from remit.core.scope import TYPES
from remit.errors import InvalidRequestError, LimitError
from tests.compose.worst_requests import Operation, Request, Requests, heads, operations
from tests.compose.worst_scene import SPEAKERS, Answered, Scene, scene
from tests.support.measured import measured, pace
from tests.support.worst import pairs

TOKEN = "POST /oauth/token"  # a place, and no token
AUTHORITY, WORKER = 0.005, 0.050  # seconds at one go
READING = {  # what is said of a request that was not understood
    *(
        "invalid-request",
        "too-large",
        "unknown-detail",
        "unsupported-grant",
        "target",
        "unauthenticated",
        "page",
        "cut",
    ),
}


@pytest.fixture(scope="module")
def here() -> Iterator[Scene]:
    there = Path("/dev/shm")  # noqa: S108 - mode 0700, and of a name of its own; no disk is behind it
    with (
        tempfile.TemporaryDirectory(dir=there if there.is_dir() else None) as made,
        measured("authority", "worker") as loops,
        scene(Path(made), *loops) as it,
    ):
        it.bound(next(pairs("http"))[1])
        yield it


def _cost(it: Scene, who: str, asked: Request) -> tuple[Answered, float]:
    """Return the answer to a request, and its cost in multiples of what it may: the least of a few."""
    got, least = it.cost(who, asked), float("inf")
    for _ in range(5):
        cost = max(got.authority / AUTHORITY, got.worker / WORKER)
        least = min(least, cost if cost <= 1 else cost / pace())
        if least <= 1:
            break
        got = it.cost(who, asked)
    return got, least


def _asked(it: Scene, who: str, every: Iterable[tuple[str, Request]]) -> dict[str, set[str]]:
    """Send requests to routes; return what was said of each route."""
    said, over, dearest = defaultdict[str, set[str]](set), list[tuple[float, str]](), (0.0, "")
    for label, request in every:
        got, cost = _cost(it, who, request)
        told = f"{label}: {request.shape}; {got.status} {got.code}; {it.authority.where[:150]} {it.worker.where[:150]}"
        assert got.status not in {500, 503}, told  # nothing was broken by it
        said[label].add(got.code or ("page" if got.status >= 400 else "done"))
        dearest = max(dearest, (cost, told))
        if cost > 1:
            over.append((cost, told))
    sys.stdout.write(f"\nthe dearest of {who}: {dearest[0]:.2f} of what it may cost, {dearest[1]}\n")
    assert not over, max(over)
    return said


def _routes(it: Scene, who: str) -> Iterator[Operation]:
    """Yield the routes that are there for who speaks, but for what runs reach as strangers do."""
    for each in operations():
        own = {"operator": True, "run": each.who == "agent" or each.label == TOKEN, "stranger": each.who != "operator"}
        if own[who] and (who == "stranger" or each.label not in it.tcp):
            yield each


def _every(it: Scene, who: str) -> Iterator[tuple[str, Request]]:
    for each in _routes(it, who):
        it.fresh()
        for request in Requests(it.known(who)).of(each):
            yield each.label, request


@pytest.mark.slow
@pytest.mark.attack("DOS-09")
def test_no_request_holds_a_loop_for_long(here: Scene) -> None:
    said = defaultdict[str, set[str]](set)
    for who in SPEAKERS:
        for label, codes in _asked(here, who, _every(here, who)).items():
            said[label] |= codes
    assert said.keys() == {each.label for each in operations()}
    missed = {label: codes for label, codes in said.items() if codes <= READING}
    assert not missed, f"no request to these routes is understood: see `Scene.known` {missed}"


@pytest.mark.slow
@pytest.mark.attack("DOS-09")
@pytest.mark.parametrize("kind", sorted(TYPES))
def test_no_request_with_a_scope_holds_a_loop_for_long(here: Scene, kind: str) -> None:
    for about, pair in pairs(kind):
        here.bound(pair)
        for who in ("operator", "run"):
            routes = [each for each in _routes(here, who) if each.media]
            found = ((f"{about}; {each.label}", each) for each in routes)
            made = Requests(here.known(who))
            _asked(here, who, ((label, request) for label, each in found for request in made.scoped(each)))


@pytest.mark.slow
@pytest.mark.attack("DOS-09")
@pytest.mark.parametrize("who", SPEAKERS)
def test_no_head_holds_a_loop_for_long(here: Scene, who: str) -> None:
    here.fresh()
    for label in ("GET /v1/self", TOKEN, "GET /oauth/authorize"):
        [each] = [each for each in operations() if each.label == label]
        small = next(iter(Requests(here.known(who)).of(each)))
        _asked(here, who, ((label, small._replace(shape=shape, headers=headers)) for shape, headers in heads()))


@pytest.mark.slow
@pytest.mark.attack("DOS-09")
@pytest.mark.parametrize(
    "large", ["http.args: paths of 8 characters in 16", "http.uses: a number of 8 characters in 1 "]
)
def test_no_page_of_much_holds_a_loop_for_long(here: Scene, large: str) -> None:
    here.bound(next(pair for about, pair in pairs("http") if about.startswith(large)))
    here.authority.do(_filled(here, 300))
    for who, places in (("operator", ("tasks", "approvals", "audit?limit=1000", "resources")), ("run", ("approvals",))):
        task = here.holder(here.roots["run"]).task
        for place in (f"tasks/{task}", *places):
            got, cost = _cost(here, who, Request(place, "GET", f"/v1/{place}"))
            assert got.status == 200
            assert got.size > 500
            assert cost <= 1, (who, place, got, here.authority.where)


async def _filled(it: Scene, count: int) -> None:
    """Make so many children of a run's grant, or as many as there may be, and have humans asked as often as may be."""
    holder, broker = it.holder(it.roots["run"]), it.here.broker
    request = GrantRequest(it.pair.child, Bounds(timedelta(minutes=5)))
    with suppress(LimitError):
        for _ in range(count):
            await broker.delegate(holder, holder.grant, request)
    with suppress(LimitError, InvalidRequestError):
        while True:
            await broker.ask(holder, holder.grant, replace(request, bounds=Bounds(timedelta(minutes=1), depth=9)))
