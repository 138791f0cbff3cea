"""A broker over a directory of policies and a real state, and over its restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from remit.compose import wiring
from remit.compose.wiring import Application
from remit.config import settings
from remit.core import audit, scope
from remit.core.audit import Event
from remit.core.request import Bounds, GrantRequest
from remit.core.secret import Secret
from remit.core.task import Grant, Posture
from remit.errors import GrantEndedError
from remit.keys.file import FileSealer
from remit.ports import Resource
from tests.grant_requests import changed

SEARCH = scope.parse([{"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/**"], "args": "any"}])
MAIL = scope.parse([{"type": "http", "resource": "mail", "actions": ["GET"], "paths": ["/**"], "args": "any"}])
OPEN = '@id("all")\npermit (principal, action, resource);\n'
NO_MAIL = OPEN + '@id("no-mail")\nforbid (principal, action, resource == Resource::"mail");\n'
BAD = '@id("all")\npermit (principal, action, resource)\nwhen { context.nonsense };\n'
BOOM = OPEN + '@id("boom")\nforbid (principal, action, resource) when { context.ttl + 9223372036854775807 > 0 };\n'
SEALER = FileSealer(b"k" * 32)
KEPT, BARE = Posture("namespace"), Posture("unsandboxed")

Body = Callable[[Application], Awaitable[None]]


class Deployment:
    """A state and a directory of policies, over restarts."""

    def __init__(self, tmp_path: Path) -> None:
        self.state, self.directory = tmp_path / "state", tmp_path / "policies"
        self.directory.mkdir(mode=0o755)

    def write(self, text: str, name: str = "main.cedar") -> None:
        (self.directory / name).write_text(text)

    def settings(self, *, policies: bool = True) -> settings.Settings:
        raw = {"policy": {"directory": str(self.directory)}} if policies else {}
        return settings.read(settings.places({"REMIT_STATE_DIR": str(self.state)}), raw)

    def up(self, body: Body, *, policies: bool = True) -> None:
        """Serve once, as ``remit up`` does but without edges, and stop."""

        async def main() -> None:
            app = wiring.build(self.settings(policies=policies))
            try:
                await app.broker.load()
                await app.policies.started(app.operator)
                await app.broker.settle()
                await body(app)
            finally:
                await app.broker.stop()

        asyncio.run(main())


async def resources(app: Application) -> None:
    for bound in (SEARCH, MAIL):
        name = bound[0].resource
        made = Resource(name, "http", f"https://{name}.test", bound, None, {})
        await app.broker.put_resource(app.operator, made, Secret("key-0123456789ab"))


async def delegated(app: Application, parent: str, more: Mapping[str, Any]) -> Grant:
    members = dict(more)
    posture = members.pop("posture", None)
    return (
        await app.broker.delegate(app.operator, parent, changed(GrantRequest(SEARCH), members), posture=posture)
    ).grant


async def opened(app: Application, wanted: scope.Scope) -> Grant:
    return (
        await app.broker.open(
            app.operator, GrantRequest(wanted, Bounds(timedelta(minutes=5), depth=1, fan_out=9), purpose="why")
        )
    ).grant


async def events(app: Application, name: str) -> list[Event]:
    entries = await app.broker.entries(0, 1_000)
    return [event for event in map(audit.read, entries) if event.event == name]


def lives(app: Application, grant: Grant) -> bool:
    try:
        app.broker._tasks.check(grant.id)
    except GrantEndedError:
        return False
    return True


def reloaded(app: Application) -> Awaitable[object]:
    return app.policies.reload(app.operator)


def version(app: Application) -> object:
    return app.policies.shown()["version"]


def listed(found: object) -> list[Any]:
    assert isinstance(found, list)
    return found


def policy_directory(tmp_path: Path, text: str) -> Path:
    made = tmp_path / "written"
    made.mkdir(mode=0o755)
    (made / "main.cedar").write_text(text)
    return made
