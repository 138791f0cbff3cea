"""The demo: one task on real servers, once with keys in the environment and once under remit."""

from __future__ import annotations

import asyncio
import json
import sys


def main(as_json: bool = False) -> int:  # noqa: FBT001, FBT002 - the command's flag
    """Run both halves; 0 when everything held. With ``as_json`` stdout is one JSON object alone."""
    from rich.console import Console

    from examples.demo import baseline, guarded, screen, world

    progress = Console(file=sys.stderr, highlight=False)
    with progress.status("starting three services, a thief and PostgreSQL") as status, world.started() as servers:

        def say(text: str) -> None:
            progress.print(text, markup=False)

        asyncio.run(world.seed(servers))
        status.update("first half: keys in environment variables")
        say("first half: the agents with keys in environment variables")
        before = baseline.run(servers)
        status.update("second half: under remit")
        say("second half: the same agents under remit")
        after = guarded.run(servers, say)
    if as_json:
        sys.stdout.write(json.dumps({"baseline": before.told(), "remit": after.told()}) + "\n")
    else:
        screen.show(Console(highlight=False), before, after)
    return 0 if screen.held(after) else 1
