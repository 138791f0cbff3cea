"""A broker with few descriptors, a run's gateway listener and its channel: ``python -m tests.live.crowd_driver STATE``.

It says on standard output where everything is, in JSON, and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
from datetime import timedelta
from pathlib import Path

import uvloop

from remit.compose import app as control
from remit.compose import kinds
from remit.compose.listeners import harden
from remit.config import settings
from remit.core import scope
from remit.core.principal import Holder
from remit.core.request import Bounds, GrantRequest
from remit.gateway.server import Channel
from remit.ports import Resource
from remit.web import listen
from remit.web.authentication import SocketAuth
from tests.support.one_process import served

DESCRIPTORS = 512
DETAIL = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any"}


async def serve(state: str) -> None:
    """Serve until standard input ends."""
    made = settings.read(settings.places({"REMIT_STATE_DIR": state}), {})
    kinds.known()
    detail = scope.parse([DETAIL])
    async with served(made, tcp=False) as edges:
        house = edges.application
        search = Resource("search", "http", "http://127.0.0.1:1", detail, None, {})
        await house.broker.put_resource(house.operator, search)
        grant = (
            await house.broker.open(house.operator, GrantRequest(detail, Bounds(timedelta(minutes=5)), purpose="crowd"))
        ).grant
        task = house.broker._tasks.task_of(grant.id).id
        gateway = socket.create_server(("127.0.0.1", 0))
        await edges.edge.gateway.listen(gateway, Channel(grant.id, {}))
        channel = socket.create_server(("127.0.0.1", 0))
        app = control.build(edges.authority.deps)
        kept = await listen.serve(app, channel, SocketAuth(Holder(task, grant.id)))
        ports = [gateway.getsockname()[1], channel.getsockname()[1]]
        sys.stdout.write(json.dumps([str(made.places.control), task, grant.id, *ports]) + "\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        kept.close()


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(mode=0o700, exist_ok=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS // 2, DESCRIPTORS))
    harden()

    uvloop.run(serve(sys.argv[1]))
