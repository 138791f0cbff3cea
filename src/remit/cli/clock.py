"""The clock: taking its time where the audit log's is ahead of it."""

from __future__ import annotations

import os
import sys

from remit.cli import options
from remit.cli.render import answer, safe

app = options.group("clock", "The time that the broker goes by.")


@app.command("accept")
def accept(json: options.Json = False) -> None:
    """Go by the clock again where a clock that was wrong has left the audit log in the future.

    Stop the broker before, and look at the clock: what it says counts from now on. Every task is ended, each lease
    revoked at its target, and every key of tokens revoked. Nothing is changed where the log is not ahead; and where a
    target has not ended what is there, the log's time still counts.

    \b
    Examples:
      remit clock accept
      remit clock accept --json
    """
    from remit.compose.accept import accept as taken

    done = taken(os.environ, lambda line: print(safe(line), file=sys.stderr))
    if done is None:
        answer(json, {"accepted": False}, "the log is not ahead of the clock: nothing was changed")
        return
    before, now = done.before.isoformat(timespec="seconds"), done.now.isoformat(timespec="seconds")
    told = {"accepted": True, "before": before, "now": now}
    answer(json, told, f"the broker goes by the clock again: it is {now}, and the log was at {before}")
