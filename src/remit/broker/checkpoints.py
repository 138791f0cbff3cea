"""The second place for checkpoints, as the broker meets it.

- An end is `closed` when a checkpoint that covers its commit is kept there; one write serves all who wait for one.
- A checkpoint kept there that this log does not extend counts at any time: this state is an older copy, or another
  broker works on one. Then nothing is served any more, and everything ends.
- Each start raises the epoch there. One above ours says that another broker has started on this state: as above.
- A place that is out, or holds what was not signed here, is an absent one: it confirms nothing, and stops nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from remit.broker.revocation import LeaseRevoker
from remit.broker.tasks import TaskCache
from remit.core.audit import Checkpoint
from remit.core.task import Closure, Report
from remit.errors import IntegrityError, RemitError, UnavailableError
from remit.ports import Witness

WAIT = 2.0  # seconds: longer than that no answer waits for the second place
TRIES = 5  # when others write there at the same time
Sign = Callable[[int, bytes], Checkpoint]  # a size of the log, and its root
CAUSE = "the audit log was rolled back"


def unsigned(size: int, root: bytes) -> Checkpoint:
    """Refuse to sign a checkpoint: nobody has lent a key for it."""
    raise UnavailableError(f"no key signs checkpoints of {size} entries with the root {root.hex()}")


class Checkpoints:
    """What is kept there of this log. ``trouble`` says why it confirms nothing now."""

    def __init__(self, tasks: TaskCache, revoker: LeaseRevoker, witness: Witness | None) -> None:
        self._tasks, self._revoker, self._witness = tasks, revoker, witness
        self._covers = 0  # entries
        self._epoch, self._raised = 0, False  # which start this is, and whether the place knows of it
        self._known: Checkpoint | None = None  # what lay there when we last looked, and this log extends
        self._round: asyncio.Task[RemitError | None] | None = None
        self.trouble: RemitError | None = None

    async def look(self) -> None:
        """Compare the log with what is kept, and keep a checkpoint of it as it is now, signed by the key of now.

        UnavailableError when that is not done in two seconds, IntegrityError when the log was rolled back.
        """
        if self._witness is None:
            return
        try:
            async with asyncio.timeout(WAIT):
                if self._round is not None:  # it may have begun before what the caller wants kept
                    await asyncio.shield(self._round)
                self.trouble = await asyncio.shield(self._going(self._witness))
        except TimeoutError:
            self.trouble = UnavailableError("the second place for checkpoints does not answer")
        if self.trouble is not None:
            raise type(self.trouble)(self.trouble.detail, help=self.trouble.help) from self.trouble

    async def covered(self) -> bool:
        """Whether a checkpoint that covers all that is durable by now is kept; known after two seconds at most."""
        if self._witness is None:
            return True
        size = await self._tasks.store.size()
        try:
            async with asyncio.timeout(WAIT):
                while self._covers < size:
                    if await asyncio.shield(self._going(self._witness)) is not None:
                        return False
        except TimeoutError:
            return False
        return True

    async def reported(self, report: Report) -> Report:
        """Return the report of an end once workers have acted on it; `closed` only when the end is covered.

        One that is not on record is covered by none, and is not waited for.
        """
        if not await self._tasks.notices.acted_on():  # one may still be at work under it
            report = replace(report, state=Closure.UNKNOWN)
        if self._witness is None or (report.recorded and await self.covered()):
            return report
        state = Closure.PARTIAL if report.state is Closure.CLOSED else report.state
        return replace(report, state=state, covered=False)

    def _going(self, witness: Witness) -> asyncio.Task[RemitError | None]:
        """Return the round that is under way, or begin one. Nobody's leaving ends it."""
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._tried(witness))
        return self._round

    async def _tried(self, witness: Witness) -> RemitError | None:
        try:
            if await self._kept(witness):
                return None
            self._tasks.rolled_back = True
            over = [task for task in self._tasks if not task.head.closed]
            # side by side: none waits for another's targets
            await asyncio.gather(*(self._revoker.end(i, i.head.root, "task.close", cause=CAUSE) for i in over))
        except RemitError as error:
            return error
        return IntegrityError(f"{CAUSE}, or another broker works on a copy of this state", help="see `remit doctor`")

    async def _kept(self, witness: Witness) -> bool:
        """Keep a checkpoint of the log as it is now; return whether it extends what was kept, served here alone."""
        store = self._tasks.store
        for _ in range(TRIES):
            if self._tasks.rolled_back:
                return False
            size, root = await store.root()
            # of an empty log nothing is kept; what is there says whether it was always empty
            there, ours = await self._asked(witness, size, root)
            epoch = 0 if there is None else there.epoch
            if self._raised and epoch > self._epoch:
                return False
            if there is not None and not await self._extends(there):
                return False
            if ours or not size:
                self._known, self._covers, self._raised = there, size, ours
                return True
            if not self._raised:
                self._epoch = epoch + 1
            self._known = there
        raise UnavailableError("others keep writing checkpoints in the second place")

    async def _asked(self, witness: Witness, size: int, root: bytes) -> tuple[Checkpoint | None, bool]:
        """Return what is there, and whether it is what we have it keep now."""
        if size and self._epoch:
            return await witness.keep(size, root, self._epoch, self._known)
        return await witness.last(), False

    async def _extends(self, kept: Checkpoint) -> bool:
        """Whether the log as it is now begins with what a checkpoint is of."""
        store = self._tasks.store
        return kept.size <= await store.size() and (await store.root(kept.size))[1] == kept.root
