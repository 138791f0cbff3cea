"""Going by the clock again where one that was wrong has left the log ahead of it. No broker serves meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from remit.compose import stop, wiring
from remit.compose.key_rings import TOKEN, KeyRing, KeyRings
from remit.compose.wiring import Application
from remit.config.settings import load
from remit.core.task import Closure
from remit.errors import ConflictError, NotFoundError

LEFT = "run `remit up` until `remit stop --all` says that nothing is outstanding, then `remit down`, and this again"


@dataclass(frozen=True, slots=True)
class AcceptedClock:
    """The time that the log was at, and that of now."""

    before: datetime
    now: datetime


def accept(environ: Mapping[str, str], say: stop.Say) -> AcceptedClock | None:
    """End every task, revoke the keys of tokens, and go by the clock from now on; None where the log is not ahead.

    UnavailableError while a broker serves the state; ConflictError while a target has not ended what is there: then the
    log's time still counts.
    """
    settings = load(environ)
    if not settings.places.database.exists():
        raise NotFoundError("there is no state here", help="is REMIT_STATE_DIR the right one?")
    return asyncio.run(_accepted(wiring.build(settings), say))


async def _accepted(app: Application, say: stop.Say) -> AcceptedClock | None:
    try:
        await app.broker.load()
        if not app.broker.wall.behind:
            return None
        if any(task["state"] != Closure.CLOSED for task in await stop.ended(app, say)):
            raise ConflictError("something is outstanding, so the clock is not accepted", help=LEFT)
        # none of their tokens counts any more, also when the time comes at which they were made
        rings = KeyRings(app.broker, {TOKEN: KeyRing(app.tokens)})
        for key in app.tokens.published():
            await rings.revoke(app.operator, TOKEN, key.kid)
        return AcceptedClock(*await app.broker.wall.accept(app.operator))
    finally:
        await app.broker.stop()
