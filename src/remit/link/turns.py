"""Credit: how much of each task, and of all together, may be under way or named; what waits for it, by turns."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items wait by task and go by turns over the tasks, so that a flood of one delays no other."""

    def __init__(self, most: int, most_of_task: int) -> None:
        """Let ``most`` be under way at a time, and ``most_of_task`` of any one task."""
        self._most, self._most_of_task = most, most_of_task
        self._waiting: dict[str, deque[T]] = {}
        self._ready: deque[str] = deque()  # tasks that have something waiting, and credit
        self._under_way: Counter[str] = Counter()
        self._all = 0

    def put(self, task: str, item: T) -> None:
        """Let something wait for its turn."""
        waiting = self._waiting.get(task)
        if waiting is None:
            waiting = self._waiting[task] = deque()
            if self._under_way[task] < self._most_of_task:
                self._ready.append(task)
        waiting.append(item)

    def take(self) -> tuple[str, T] | None:
        """Return the next that may go, and its task; None: nothing may."""
        if not self._ready or self._all >= self._most:
            return None
        task = self._ready.popleft()
        waiting = self._waiting[task]
        item = waiting.popleft()
        self._under_way[task] += 1
        self._all += 1
        if not waiting:
            del self._waiting[task]
        elif self._under_way[task] < self._most_of_task:
            self._ready.append(task)
        return task, item

    def done(self, task: str) -> None:
        """Take note that something of a task is no longer under way."""
        self._all -= 1
        under_way = self._under_way[task]
        self._under_way[task] = under_way - 1
        if under_way == 1:
            del self._under_way[task]
        if under_way == self._most_of_task and task in self._waiting:
            self._ready.append(task)

    def drained(self) -> list[T]:
        """Return all that waits, which waits no more."""
        waiting = [item for items in self._waiting.values() for item in items]
        self._waiting.clear()
        self._ready.clear()
        return waiting

    def __bool__(self) -> bool:
        """Whether something may go now."""
        return bool(self._ready) and self._all < self._most


class Credit:
    """What is under way of one kind, at the end that enforces it."""

    def __init__(self, most: int, most_of_task: int) -> None:
        self._most, self._most_of_task = most, most_of_task
        self._of_task: Counter[str] = Counter()
        self._all = 0

    @property
    def left(self) -> bool:
        """Whether one more may be under way."""
        return self._all < self._most

    def take(self, task: str) -> bool:
        """Count one more, if its task may have it; what is for no task in particular counts for all alone."""
        if task and self._of_task[task] >= self._most_of_task:
            return False
        self._all += 1
        self._of_task[task] += 1
        return True

    def give(self, task: str) -> None:
        """Count one less."""
        self._all -= 1
        self._of_task[task] -= 1
        if not self._of_task[task]:
            del self._of_task[task]


class NamedGrants:
    """The grants that a worker may name. Beyond ``most``, one that has ended goes, else one of the task with most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._room: dict[str, str] = {}  # of each: its task, or empty where it has ended
        self._rooms = OrderedDict[str, OrderedDict[str, None]]()  # both by their last use

    def add(self, grant: str, task: str) -> None:
        """Take note of one that it was told of."""
        if grant not in self._room:
            self._move(grant, task)
        self.use((grant,))
        if len(self._room) > self._most:
            room = self._rooms.get("") or max(self._rooms.values(), key=len)
            self._move(next(iter(room)), None)

    def use(self, lineage: Iterable[str]) -> bool:
        """Return whether it may name one of these: who is used is kept before others of its task."""
        found = self._room.keys() & lineage
        for grant in found:
            self._rooms.move_to_end(self._room[grant])
            self._rooms[self._room[grant]].move_to_end(grant)
        return bool(found)

    def end(self, grants: frozenset[str]) -> None:
        """Take note of what has ended."""
        for grant in self._room.keys() & grants:
            self._move(grant, "")

    def _move(self, grant: str, to: str | None) -> None:
        before = self._room.pop(grant, None)
        if before is not None:
            del self._rooms[before][grant]
            if not self._rooms[before]:
                del self._rooms[before]
        if to is not None:
            self._room[grant] = to
            self._rooms.setdefault(to, OrderedDict())[grant] = None
