"""A run that an attacker owns from some instant on: what is reached from where, for how long, as one number.

The universe is 12 services of 8 things each, to be read (which weighs 1), written (3) and deleted (10). The agent's
task may read one thing of each of four services and write one of two. What the attacker does at a place weighs as much
as it is unlikely to be seen there: 0.2 in the run, 0.3 on its machine, 0.5 elsewhere. A triple counts for the seconds
after the breach in which it works, as a part of 30 days. In a real run, with all that such a process can look at, no
key is found: `test_inj_agentdojo.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from examples.demo.canary import leaked
from tests.broker.world import OPERATOR
from tests.gateway.rig import PLACEHOLDER, SECRET, Rig, play, rig

WEIGHTS = {"GET": 1, "POST": 3, "DELETE": 10}
UNIVERSE = [(method, f"/s{service}/r{thing}") for service in range(12) for thing in range(8) for method in WEIGHTS]
READ, WRITTEN = [f"/s{service}/r0" for service in range(4)], ["/s0/r0", "/s1/r0"]
TASK = [
    {"type": "http", "resource": "api", "actions": ["GET"], "paths": READ},
    {"type": "http", "resource": "api", "actions": ["POST"], "paths": WRITTEN},
]
PLACES = {"run": 0.2, "machine": 0.3, "elsewhere": 0.5}
HORIZON, DAY = 30 * 86_400, 86_400
LOOKS = (0, 1, 10, 60, 61, 300, 899, 900, 3_600, DAY)  # seconds after the breach

Triple = tuple[str, str]


@dataclass
class Breach:
    """An attacker who has all that the run has, and asks for everything from everywhere."""

    rig: Rig
    ports: Mapping[str, int]
    works: dict[tuple[str, Triple], int] = field(default_factory=dict)  # the look before which it no longer did
    seen: list[bytes] = field(default_factory=list)

    async def tries(self, place: str, triple: Triple) -> bool:
        """Ask with everything there is: the placeholder, the grant's id, its URL. Return what the upstream saw."""
        method, path = triple
        lines = (f"Authorization: Bearer {PLACEHOLDER}", f"X-Grant: {self.rig.grant.id}")
        before = len(self.rig.upstream.seen)
        for front in ("", f"/@{self.rig.grant.id}"):
            reply = await self.rig.get(f"{front}/api{path}", *lines, method=method, port=self.ports[place])
            self.seen.append(reply.raw)
        return len(self.rig.upstream.seen) > before

    async def looks(self, *, killed_at: int | None = None) -> None:
        """Ask at each look for what worked at the one before, first and last for all of it."""
        last = 0
        for at, after in itertools.pairwise((*LOOKS, HORIZON)):
            self.rig.now[0] += timedelta(seconds=at - last)
            last = at
            if at == killed_at:
                await self.rig.broker.close(OPERATOR, self.rig.broker._tasks.task_of(self.rig.grant.id).id)
            for place in PLACES:
                before = [one for where, one in self.works if where == place]
                for triple in UNIVERSE if at in {0, DAY} else before:
                    if await self.tries(place, triple):
                        self.works[place, triple] = after

    @property
    def radius(self) -> float:
        """The number: 0 where nothing is reached, 1 where everything is from everywhere for 30 days."""
        parts = (WEIGHTS[method] * PLACES[place] * seconds for (place, (method, _)), seconds in self.works.items())
        return sum(parts) / HORIZON / sum(WEIGHTS[method] for method, _ in UNIVERSE)


@pytest.mark.attack("INJ-03")
@pytest.mark.parametrize(("killed_at", "most", "seconds"), [(None, 5.2e-7, 900), (60, 3.5e-8, 60)])
def test_a_breach_reaches_what_the_task_may_from_its_run_until_the_task_ends(
    killed_at: int | None, most: float, seconds: int
) -> None:
    async def scene() -> None:
        async with rig(*TASK) as r:
            away = await r.listen(None)
            breach = Breach(r, {"run": r.port, "machine": away, "elsewhere": away})
            await breach.looks(killed_at=killed_at)
            granted = {*(("GET", path) for path in READ), *(("POST", path) for path in WRITTEN)}
            assert breach.works == {("run", triple): seconds for triple in granted}
            assert 0 < breach.radius <= most
            assert r.upstream.heard(SECRET) == len(r.upstream.seen)
            assert leaked({"secret": SECRET}, breach.seen) == {}

    play(scene)
