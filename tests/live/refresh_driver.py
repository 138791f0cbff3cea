"""A broker on a real provider that kills itself with SIGKILL at its N-th step of a refresh.

Run as ``python -m tests.live.refresh_driver STATE STEP``. A step is the moment before or after a call to the store or
to the provider, once an access token is asked for. STEP 0 is never reached: the script then prints how many there were.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from remit.broker import Broker
from remit.broker.connections import Providers
from remit.core import scope
from remit.core.connection import AuthorizationServer, ProviderClient, ProviderTokens
from remit.core.request import Bounds, GrantRequest
from remit.core.secret import Secret
from remit.identity.providers import ReachedProviders
from remit.keys.file import FileSealer, load_kek
from tests.live.crash_driver import OPERATOR, DyingStore, Step, nothing
from tests.support.kinds import NOTHING_LENT, register, simulated

HERE = "http://127.0.0.1:8470"
DETAIL = {"type": "http", "resource": "tracker", "actions": ["GET"], "paths": ["/**"], "args": "any"}
LATER = timedelta(seconds=580)  # when a token for ten minutes is renewed


class DyingProviders(ReachedProviders):
    """Providers, asked by a process that may die before it asks, and once it was answered."""

    step: Step = staticmethod(nothing)

    async def obtain_tokens(
        self, provider: AuthorizationServer, client: ProviderClient, form: Secret
    ) -> ProviderTokens:
        self.step()
        given = await super().obtain_tokens(provider, client, form)
        self.step()
        return given


def broker(state: Path, later: timedelta = timedelta()) -> tuple[Broker, Callable[[Step], None]]:
    """Return a broker over ``state``, and what has it die where a step says."""
    sealer = FileSealer(load_kek(state.parent / "kek", create=not (state.parent / "kek").exists()))
    store, providers = DyingStore(state, sealer), DyingProviders()

    def dying(step: Step) -> None:
        store.step = providers.step = step

    made = Broker(
        store=store,
        kinds=simulated(),
        context=NOTHING_LENT,
        sealer=sealer,
        clock=lambda: datetime.now(UTC) + later,
        new_id=lambda prefix: f"{prefix}_{secrets.token_urlsafe(16)}",
        providers=Providers(providers, HERE, lambda: secrets.token_urlsafe(32)),
    )
    return made, dying


async def lent(made: Broker, detail: Mapping[str, object] = DETAIL) -> str:
    """Open a task, and return the access token that is lent to it."""
    wanted = GrantRequest(scope.parse([dict(detail)]), Bounds(timedelta(minutes=1)), purpose="look")
    grant = (await made.open(OPERATOR, wanted)).grant
    return (await made.access_token(grant.id, "tracker", (await made.target("tracker")).version)).value.reveal()


async def story(state: Path, die_at: int) -> int:
    count, taken = itertools.count(1), [0]

    def step() -> None:
        taken[0] = next(count)
        if taken[0] == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    made, dying = broker(state, LATER)
    await made.start()
    lend = made.connecting.kept.lend

    async def stepping(*given: object) -> object:
        dying(step)
        return await lend(*given)  # type: ignore[arg-type]

    made.connecting.kept.lend = stepping  # type: ignore[method-assign, assignment]
    await lent(made)
    dying(nothing)
    await made.stop()
    return taken[0]


if __name__ == "__main__":
    register()
    sys.stdout.write(f"{asyncio.run(story(Path(sys.argv[1]), int(sys.argv[2])))}\n")
