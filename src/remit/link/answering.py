"""What answers the calls of one worker, in the authority: whoever it names is who the authority knows them to be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from remit.core.principal import Human, Workload
from remit.core.request import Binding, GrantRequest
from remit.errors import DeniedError, IntegrityError
from remit.link.messages import functions
from remit.ports import Clock
from remit.ports.broker import Presented
from remit.ports.runs import HeldByRun, LaunchRequest

SHOWN = 4_096  # workloads that a worker may name at a time, the newest
SHOWN_OF_ONE = 256  # credentials of each of these: as many are looked at in 1.2 ms
SHOWING = "named"  # the method that tells of a workload whose key is not proven
ASKING = frozenset({"to_open", "ask_to_open"})  # a human is asked; who is named shows who they are when they open it


@dataclass(frozen=True, slots=True)
class _ShownCredential:
    """A workload by one of its credentials."""

    workload: Workload
    held: bool  # it has shown more than what anybody may have read
    once: str | None  # the digest of a credential that counts once, whether it has or not

    @property
    def key(self) -> str:
        return f"{self.once} {self.workload.jkt} {self.workload.x5t} {self.held}"


class ShownWorkloads:
    """The workloads that one worker was told of: it speaks for no others, and for none longer than their credentials.

    One that counts once is good for one call, after ``spend`` or with it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shown: dict[str, dict[str, _ShownCredential]] = {}  # by the workload's name, the oldest first

    def told(self, shown: _ShownCredential) -> None:
        """Let a worker speak for a workload."""
        of_one = self._shown.pop(shown.workload.id, {})
        of_one[shown.key] = shown
        self._shown[shown.workload.id] = of_one
        if len(of_one) > SHOWN_OF_ONE:
            del of_one[next(iter(of_one))]
        if len(self._shown) > SHOWN:
            del self._shown[next(iter(self._shown))]

    def named(self, arguments: Mapping[str, object]) -> _ShownCredential | None:
        """Return the workload that a call names, if any; DeniedError for one that was not told of, or not so."""
        names = _names(arguments)
        if not names:
            return None
        of_one = self._shown.get(names.pop(), {}) if len(names) == 1 else {}
        now = self._clock()
        for key, shown in tuple(of_one.items()):
            if now >= (shown.workload.until or shown.workload.expires_at):
                del of_one[key]
            elif _fits(shown, arguments):
                if shown.once is not None:
                    del of_one[key]
                return shown
        raise DeniedError("no workload has shown here that it is the one that is named")


class Answering:
    """The implementations of the protocols that a worker knows, by the names of their methods."""

    def __init__(self, ports: Sequence[object], clock: Clock) -> None:
        """A human is believed only if one of ``ports`` is ``SignedHumans``."""
        self._does: dict[str, Callable[..., Awaitable[object]]] = {
            name: getattr(port, name) for port in reversed(ports) for name in functions() if hasattr(port, name)
        }
        self._humans: list[Callable[[Human], Awaitable[Human]]] = [
            port.confirm for port in ports if hasattr(port, "confirm")
        ]
        self._workloads = ShownWorkloads(clock)

    async def answer(self, name: str, arguments: Mapping[str, object]) -> object:
        """Answer a call. Who is named in it is who their issuer's or trust domain's signature names."""
        does = self._does.get(name)
        if does is None:
            raise IntegrityError("there is no such call here")
        known: dict[str, object] = {}
        for each, value in arguments.items():
            if isinstance(value, Human):
                known[each] = await self._confirmed(value)
        shown = None if name in ASKING else self._workloads.named(arguments)
        if shown is not None:
            known |= {each: shown.workload for each, value in arguments.items() if isinstance(value, Workload)}
        answer = await does(**{**arguments, **known})
        if isinstance(answer, Workload):
            self._workloads.told(_ShownCredential(answer, name != SHOWING, answer.digest))
        if name == "spend" and shown is not None:
            self._workloads.told(replace(shown, workload=replace(shown.workload, digest=None)))
        return answer

    async def _confirmed(self, value: Human) -> Human:
        if not self._humans:
            raise DeniedError("nobody is believed to be a human here: no issuer is configured")
        return await self._humans[0](value)


def _bindings(arguments: Mapping[str, object]) -> list[Binding]:
    """Return what the grants that a call asks for are to be bound to."""
    launches = [value.authority for value in arguments.values() if isinstance(value, LaunchRequest)]
    asked = [each.request for each in launches if not isinstance(each, HeldByRun)]
    return [value.binding for value in (*asked, *arguments.values()) if isinstance(value, GrantRequest)]


def _names(arguments: Mapping[str, object]) -> set[str]:
    """Return the names of workloads that a call says are attested."""
    found = {value.id for value in arguments.values() if isinstance(value, Workload)}
    found |= {value.client for value in arguments.values() if isinstance(value, Presented) and value.attested}
    return found | {each.identity or "" for each in _bindings(arguments) if each.identity is not None or each.claims}


def _fits(shown: _ShownCredential, arguments: Mapping[str, object]) -> bool:
    """Whether a workload may be named so: with its claims, its key, and by a credential that has counted, or does."""
    workload, bound = shown.workload, _bindings(arguments)
    claims = tuple(sorted(workload.claims.items()))
    keys = {each.jkt for each in bound} | {each.jkt for each in arguments.values() if isinstance(each, Presented)}
    if any(each.identity is not None and each.claims != claims for each in bound):
        return False
    if workload.jkt is not None and not keys <= {workload.jkt}:
        return False
    counts = [value for name, value in arguments.items() if isinstance(value, Workload) and name != "opener"]
    if not counts:  # it opens a task, or is the client that does
        return shown.held and workload.digest is None
    return all(value.digest == workload.digest for value in counts)
