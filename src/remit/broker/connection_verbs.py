"""What humans and operators ask about connections, and what edges are lent of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from msgspec import structs

from remit.broker.connecting import Connecting
from remit.broker.resources import ResourceRegistry
from remit.broker.tasks import TaskCache
from remit.core.connection import ProviderConnection
from remit.core.principal import Human, Operator
from remit.core.task import TaskHeader
from remit.errors import ConflictError, NotFoundError, ScopeError
from remit.ports.broker import AccessToken, Use
from remit.ports.connections import BegunConnection, ConnectionView, ReturnedConnection, UsingTask

MOST_TASKS = 8  # that are named with a connection


class ConnectionVerbs:
    """The part of the broker that answers ``ports.connections.ConnectionPort``."""

    _tasks: TaskCache
    _registry: ResourceRegistry
    connecting: Connecting
    _used: dict[tuple[str, str], datetime]  # human, resource -> when their tasks last used it

    def note_uses(self, permitted: Iterable[Use]) -> None:
        """Remember when connections are used: in memory, as each use is in the log by itself."""
        for use in permitted:
            if "oauth" in self._registry.resource(use.resource).settings:
                self._used[self._tasks.task(use.task).head.subject.sub, use.resource] = self._tasks.now()

    async def access_token(self, grant_id: str, name: str, version: int, refused: str = "") -> AccessToken:
        """ConflictError for another version, ScopeError where the grant does not have the resource."""
        live, resource = self._tasks.check(grant_id), self._registry.resource(name)
        if all(detail.resource != name for detail in live.grant.scope):
            raise ScopeError
        subject = self._tasks.view(grant_id).subject
        task = self._tasks.task(live.task)
        # what a human approved beyond the root grant is in the one that asks
        needed = self._registry.needed(resource, (*task.grant(task.head.root).scope, *live.grant.scope))
        if needed == frozenset():  # a token for nothing cannot be asked for, and one for all is not what it takes
            raise ScopeError(f"what this task has of `{name}` takes no scope", help="grant what `oauth.lower` names")
        token = await self.connecting.kept.lend(subject, resource, refused, needed)
        self._tasks.check(grant_id)  # it may have ended meanwhile
        if self._registry.version(name) != version:
            raise ConflictError("the resource was changed meanwhile, so the request was not sent", help="try again")
        return token

    async def begin_connection(self, by: Operator | Human, name: str, browser: str = "") -> BegunConnection:
        return await self.connecting.begin(by, name, browser)

    async def answer_connection(self, name: str, answer: Mapping[str, str], browser: str) -> ReturnedConnection:
        return await self.connecting.answered(name, answer, browser)

    async def confirm_connection(self, name: str, begun: str, browser: str) -> ConnectionView:
        return _view(await self.connecting.confirm(name, begun, browser=browser))

    async def type_connection_code(self, by: Operator, name: str, begun: str, code: str) -> ConnectionView:  # noqa: ARG002 - what it can be asked by
        return _view(await self.connecting.confirm(name, begun, typed=code))

    async def connections(self, by: Operator | Human) -> list[ConnectionView]:
        if isinstance(by, Human):
            self.connecting.check(by)
        mine = [each for each in self.connecting.kept.all() if isinstance(by, Operator) or each.human == by.name]
        humans = {each.human for each in mine}
        theirs = [task for task in self._tasks if not task.head.closed and task.head.subject.sub in humans]
        using: dict[tuple[str, str], list[TaskHeader]] = {}
        for task in sorted(theirs, key=lambda one: one.head.opened_at, reverse=True):
            for name in task.resources:
                using.setdefault((task.head.subject.sub, name), []).append(task.head)
        return [
            self._seen(each, using.get((each.human, each.resource), []))
            for each in sorted(mine, key=lambda one: (one.resource, one.human))
        ]

    def _seen(self, found: ProviderConnection, using: Sequence[TaskHeader]) -> ConnectionView:
        view, used_at = _view(found), self._used.get((found.human, found.resource))
        if found.over:
            return view
        used_at = used_at if used_at is None or used_at >= found.made_at else None
        tasks = tuple(UsingTask(head.id, head.purpose) for head in using[:MOST_TASKS])
        return structs.replace(view, used_at=used_at, tasks=tasks, open_tasks=len(using))

    async def end_connection(self, by: Operator | Human, name: str, human: str | None = None) -> ConnectionView:
        whose = by.name if human is None else human
        if whose != by.name and not isinstance(by, Operator):
            raise NotFoundError
        if isinstance(by, Human):
            await self.connecting.log_in(by, name, ends=True)
        return _view(await self.connecting.kept.end((whose, name), "was ended here", by.name))


def _view(found: ProviderConnection) -> ConnectionView:
    issuer, unsure = found.provider.issuer, found.refreshing
    return ConnectionView(found.human, found.resource, issuer, found.scope, found.made_at, unsure, found.over)
