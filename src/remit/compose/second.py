"""What the second place keeps, for who looks at it from outside of the broker."""

from __future__ import annotations

import asyncio
from pathlib import Path

from remit.broker.checkpoints import WAIT
from remit.core import audit
from remit.core.audit import Checkpoint
from remit.errors import UnavailableError
from remit.keys.witness import Aside, FileWitness


def kept(state: Path, place: Path) -> Checkpoint | None:
    """Return the checkpoint that is kept, by the keys beside the state; None when there is none yet.

    UnavailableError when the place is out or does not answer in two seconds, or what it keeps was not signed here.
    """
    path = state / "audit.vkey"
    keys = [audit.read_verifier_key(line) for line in path.read_text("ascii").split()] if path.exists() else []
    witness = FileWitness(place, keys[0][0] if keys else "", [public for _, public in keys])
    return asyncio.run(_within(witness))


async def _within(witness: FileWitness) -> Checkpoint | None:
    try:
        return await asyncio.wait_for(Aside().do(witness.last), WAIT)
    except TimeoutError as error:
        raise UnavailableError("the second place for checkpoints does not answer") from error
