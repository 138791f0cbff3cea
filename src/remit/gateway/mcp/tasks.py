"""Tasks: requests whose answers are fetched later, by an id of the server's (2025-11-25; SEP-2663 in 2026-07-28). Pure.

All grants share the upstream's account, so an id is sealed for the grant that it was given to, wherever it stands, and
another one opens none. Which ids those were is kept as well, for lists and notifications: there the server names all
that it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from remit.errors import DeniedError
from remit.gateway.mcp.messages import META, Json, Message
from remit.gateway.mcp.seals import HandleSeal

EXTENSION = f"{META}tasks"  # among the capabilities (2026-07-28)
RELATED = f"{META}related-task"  # in `_meta`
LIST = "tasks/list"
NEWEST = frozenset({"tasks/cancel", "tasks/get", "tasks/update"})
OF_ONE = NEWEST | {"tasks/result"}
TELLS = frozenset({"notifications/tasks", "notifications/tasks/status"})
MOST = 256  # ids that are kept of a grant and resource; the oldest are forgotten

Rename = Callable[[str], str | None]  # an id -> what stands for it; None: nothing does


@dataclass(frozen=True, slots=True)
class TaskHandles:
    """A grant's end of the ids of tasks. Without a ``seal`` they go on: the server is the client's own."""

    seal: HandleSeal | None = None
    given: dict[str, None] = field(default_factory=dict)  # to this grant, the newest last

    def said(self, message: Message) -> Message:
        """Return what a client says as the server knows it, or raise DeniedError for an id that it was not given."""
        if self.seal is None:
            return message
        if message.method is None:
            return _with(message, "result", _related(message.result, self._opened))
        params = _related(message.params, self._opened)
        if message.method in OF_ONE and not removed(message):
            params = {**params, "taskId": self._opened(params.get("taskId"))}
        return _with(message, "params", _watched(params, self._opened))

    def told(self, message: Message) -> Message | None:
        """Return what a server says as the client knows it; None where that is of a task that is not its own."""
        if self.seal is None:
            return message
        if message.method is not None:
            params = message.params
            if message.method in TELLS:
                sealed = self._own(params)
                if sealed is None:
                    return None
                params = sealed
            return _with(message, "params", _watched(_related(params, self._known), self._known))
        result = _related(message.result, self._known)
        if isinstance(task := result.get("task"), dict):
            result = {**result, "task": self._made(task)}
        if isinstance(tasks := result.get("tasks"), list):
            owned = (self._own(task) for task in tasks if isinstance(task, dict))
            result = {**result, "tasks": [task for task in owned if task is not None]}
        return _with(message, "result", self._made(result))

    def _made(self, task: Json) -> Json:
        """Return a task that an answer has, which is so one of the grant that asked."""
        id_ = task.get("taskId")
        if self.seal is None or not isinstance(id_, str):
            return task
        self.given.pop(id_, None)
        if len(self.given) >= MOST:
            del self.given[next(iter(self.given))]
        self.given[id_] = None
        return {**task, "taskId": self.seal.sealed(id_)}

    def _own(self, task: Json) -> Json | None:
        found = self._known(task.get("taskId"))
        return None if found is None else {**task, "taskId": found}

    def _known(self, id_: object) -> str | None:
        return self.seal.sealed(id_) if self.seal is not None and isinstance(id_, str) and id_ in self.given else None

    def _opened(self, text: object) -> str:
        found = self.seal.opened(text) if self.seal is not None and isinstance(text, str) else None
        if found is None:
            raise DeniedError("the task is not one that this grant was given")
        return found


def removed(said: Message) -> bool:
    """Whether a message is by a method that its revision has no more: there it is none, whichever task it names."""
    return said.version is not None and said.method in {LIST, *OF_ONE} - NEWEST


def _related(held: Json, rename: Callable[[object], str | None]) -> Json:
    """Return params or a result in which the task that it belongs to is named otherwise, or not at all."""
    meta = held.get("_meta")
    if not isinstance(meta, dict) or RELATED not in meta:
        return held
    related = meta[RELATED]
    named = rename(related.get("taskId") if isinstance(related, dict) else None)
    left = {name: value for name, value in meta.items() if name != RELATED}
    return {**held, "_meta": left if named is None else {**left, RELATED: {"taskId": named}}}


def _watched(params: Json, rename: Callable[[object], str | None]) -> Json:
    """Return params in which the tasks that notifications are wanted of are named otherwise."""
    wanted = params.get("notifications")
    ids = wanted.get("taskIds") if isinstance(wanted, dict) else None
    if not isinstance(wanted, dict) or not isinstance(ids, list):
        return params
    return {**params, "notifications": {**wanted, "taskIds": [found for id_ in ids if (found := rename(id_))]}}


def _with(message: Message, name: str, held: Mapping[str, object]) -> Message:
    return message if name not in message.body else Message({**message.body, name: held}, message.method, message.id)
