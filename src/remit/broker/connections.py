"""The tokens that humans let remit have at providers: kept sealed, lent for one use, renewed, ended.

A refresh token works once at many providers, so that what is lost here is lost for good:

- That a refresh goes out is durable before it does. So it goes out only while the store can be written, and one whose
  answer a crash took away is found: its token is shown once more, and where the provider has it used up, the connection
  is over, and its human is told.
- Of a connection one refresh goes out at a time, and nobody who stops waiting for it stops it.
- What the provider gave counts from then on. Where the store does not take it, it is offered until the store does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from remit.broker import sealed_records
from remit.broker.begun import Unwaited
from remit.broker.resources import ResourceRegistry
from remit.broker.tasks import TaskCache
from remit.core.audit import Event
from remit.core.connection import OAuthSetting, ProviderClient, ProviderConnection, ProviderTokens, setting
from remit.core.grant import LOCAL, WORKLOAD, Subject
from remit.core.secret import Secret
from remit.errors import (
    ConnectError,
    DeniedError,
    GrantTokenError,
    InvalidRequestError,
    NotFoundError,
    RemitError,
    UnavailableError,
    UnsupportedScopeError,
)
from remit.ports import PutRecord, Resource, Sealer
from remit.ports.broker import AccessToken
from remit.ports.connections import ProviderPort

KIND = "connection"
KEPT = timedelta(days=3_650)  # a connection, since it was last changed
TOLD = timedelta(days=90)  # why one is over
PATIENCE = 15.0  # seconds that a provider has for an answer
PAUSE = timedelta(seconds=15)  # until a provider that did not answer is asked again
DOUBTED = timedelta(minutes=1)  # for so long a token counts that was asked for because its resource refused another
TRIED = timedelta(days=1)  # for so long a provider is told that a connection is over, if it does not answer
UNMADE = "has not been connected for this human"
MOVED = "was connected before it was given another destination or provider"
SPENT = "had a refresh that was cut off, and the provider does not take its token again"
REFUSED = "is over at the provider"
ANEW = "was connected anew"
SHORT = "had an access token that ended, and the provider gave nothing to renew it with"
Key = tuple[str, str]  # human, resource

_LOG = logging.getLogger("remit.broker")


@dataclass(frozen=True, slots=True)
class Providers:
    """How providers are reached, and what of ours they are told."""

    port: ProviderPort
    issuer: str  # where the broker's own pages are
    draw: Callable[[], str]  # 256 random bits, as text


class HeldConnections:
    """All connections, by their human and resource."""

    def __init__(
        self,
        tasks: TaskCache,
        registry: ResourceRegistry,
        sealer: Sealer,
        providers: Providers | None,
        unwaited: Unwaited,
    ) -> None:
        self._tasks, self._registry, self._sealer, self._unwaited = tasks, registry, sealer, unwaited
        self._providers = providers
        self._of: dict[Key, ProviderConnection] = {}
        self._going: dict[tuple[Key, str], asyncio.Future[ProviderConnection]] = {}  # refreshes, each for a scope
        self._ending: set[Key] = set()
        self._unsaved: set[Key] = set()  # what the provider gave is in memory alone
        self._unrevoked: dict[Key, datetime] = {}  # when their providers are told that they are over
        self._again: dict[Key, datetime] = {}  # when a provider is asked again that did not answer
        self._doubted: dict[Key, datetime] = {}  # until when its resource is not believed that it refuses a token
        self._used: set[Key] = set()  # live ones that end with the tasks that they were used in
        self._locks: dict[Key, asyncio.Lock] = {}  # of which each step holds that of its connection

    async def load(self) -> None:
        found = [
            sealed_records.opened(self._sealer, record, ProviderConnection, "a connection")
            for record in await self._tasks.store.records(KIND)
        ]
        for each in sorted(found, key=lambda one: one.made_at):  # the newest counts
            self._of[each.human, each.resource] = each
        for each in self.all():
            self._settle(each)
            if each.refreshing:
                _LOG.warning("a refresh of a connection to `%s` was cut off: its token may be used up", each.resource)

    @property
    def providers(self) -> Providers:
        if self._providers is None:
            raise UnavailableError("this broker reaches no providers")
        return self._providers

    def all(self) -> list[ProviderConnection]:
        return list(self._of.values())

    async def lend(
        self, subject: Subject, resource: Resource, refused: str = "", needed: frozenset[str] | None = None
    ) -> AccessToken:
        """Return a human's access token for a resource, renewed where it is about to end; or ConnectError.

        One is renewed once, too, where its resource did not take it: ``refused`` is its digest. ``needed`` are the
        scopes that the task needs there, so that its token has no more, if the provider gives such.
        """
        found, now, key = self._current(subject, resource), self._tasks.serving(), (subject.sub, resource.name)
        if setting_of(resource).revoke_with_task and not found.used:
            await self._use(key)
        scope = found.lower(needed)
        lent, doubted = found.lent(now, scope), found.is_token(refused, scope) and found.refresh_token is not None
        if lent is not None and (not doubted or now < self._doubted.get(key, now)):
            return AccessToken(*lent)
        if lent is not None:
            self._doubted[key] = now + DOUBTED
        try:
            await self._refreshed(key, refused, scope)
        except RemitError:
            held = found.held(scope)
            ends = None if held is None else held.expires_at or (now if lent is None else now + PAUSE)
            if held is None or ends is None or now >= ends:
                raise
            return AccessToken(held.value, min(ends, now + PAUSE))
        fresh = self._current(subject, resource)  # or it is over by now
        if scope and not fresh.narrows:  # that is known since
            return await self.lend(subject, resource)
        held = fresh.held(scope)
        assert held is not None  # noqa: S101 - a provider gave it just now
        return AccessToken(held.value, held.renew_at)

    def _current(self, subject: Subject, resource: Resource) -> ProviderConnection:
        """Return the connection that counts for a use."""
        key = subject.sub, resource.name
        found = self._of.get(key)
        if found is None or key in self._ending:
            raise self._needed(subject, resource.name, f"`{resource.name}` {UNMADE}")
        if found.over:
            raise self._needed(subject, resource.name, f"`{resource.name}` {found.over}")
        if not fits(found, resource):
            raise self._needed(subject, resource.name, f"`{resource.name}` {MOVED}")
        return found

    def _needed(self, subject: Subject, name: str, why: str) -> RemitError:
        """Return what tells that a human has to connect, and where."""
        if subject.acr == WORKLOAD:
            return DeniedError(f"`{name}` is used by the connection of a human, and this task is a workload's own")
        if subject.acr == LOCAL:
            return ConnectError(why, help=f"on the broker's host: `remit connect {name}`")
        url = f"{self.providers.issuer}/connections/{name}"
        return ConnectError(why, help=f"the task's human connects at {url}", url=url)

    async def _refreshed(self, key: Key, refused: str, scope: str) -> ProviderConnection:
        """Return a connection with an access token that is good; all who need one wait for one refresh."""
        now = self._tasks.now()
        if (key, scope) not in self._going:
            if now < (at := self._again.get(key, now)):
                left = max(1, int((at - now).total_seconds()))
                raise UnavailableError(f"the provider of `{key[1]}` did not answer", retry_after=left)
            going = asyncio.get_running_loop().create_task(self._refresh(key, refused, scope))
            self._going[key, scope] = going
            going.add_done_callback(lambda done: self._over((key, scope), done))
        return await asyncio.shield(self._going[key, scope])

    def _over(self, which: tuple[Key, str], done: asyncio.Future[ProviderConnection]) -> None:
        self._going.pop(which, None)
        if not done.cancelled():
            done.exception()  # whoever waits is told

    async def _refresh(self, key: Key, refused: str, scope: str) -> ProviderConnection:
        async with self._alone(key):
            found = self._of[key]
            good = found.lent(self._tasks.now(), scope) is not None and not found.is_token(refused, scope)
            if found.over or good or (scope and not found.narrows):  # while this waited
                return found
            if found.refresh_token is None:
                return await self._ended(found, SHORT, "failed", keep=False)
            begun = found.begun()
            why = {"cause": "its resource refused the token"} if found.is_token(refused, scope) else {}
            await self.put(begun, "connection.refresh", "allow", **why)
            try:
                tokens = await self._asked(begun, found.refresh_token, scope)
            except GrantTokenError as error:
                over = SPENT if found.refreshing else REFUSED
                return await self._ended(begun, over, "failed", keep=False, code=error.code)
            except RemitError as error:
                if scope and isinstance(error, UnsupportedScopeError):
                    return await self._widest(begun, error)
                self._again[key] = self._tasks.now() + PAUSE
                failed = self._event("connection.refresh", "failed", begun, code=error.code, cause=error.detail)
                await self._tasks.store.commit((), (failed,))
                raise
            given = await self._given(begun.given(tokens, self._tasks.now(), scope))
            return given if given.narrows else await self._widest(given)

    async def _widest(self, found: ProviderConnection, error: RemitError | None = None) -> ProviderConnection:
        """Say that a provider gives no narrow tokens; from now on it is asked for none for this connection."""
        _LOG.warning("the provider of `%s` gives no token for less than all of a connection", found.resource)
        fresh = found.widest()
        await self.put(fresh, "connection.lower", "failed", **({} if error is None else {"code": error.code}))
        return fresh

    async def _asked(self, found: ProviderConnection, refresh: Secret, scope: str) -> ProviderTokens:
        form = {"grant_type": "refresh_token", "refresh_token": refresh.reveal()}
        form |= {"resource": found.audience} if found.audience else {}
        form |= {"scope": scope} if scope else {}
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.providers.port.obtain_tokens(found.provider, await self.client(found), Secret(form))
        except TimeoutError:
            raise UnavailableError(f"the provider of `{found.resource}` did not answer in time") from None

    async def _given(self, fresh: ProviderConnection) -> ProviderConnection:
        """Keep what a provider gave, which counts from now on, whatever the store says."""
        key = _key(fresh)
        self._of[key] = fresh
        try:
            await self.put(fresh, "connection.refresh", "done")
        except RemitError as error:
            _LOG.error("what the provider of `%s` gave is in memory alone: %s", fresh.resource, error.detail)
            self._unsaved.add(key)
        return fresh

    async def client(self, found: ProviderConnection) -> ProviderClient:
        """Return the client of a connection, with its secret: the resource's, unless the provider gave one."""
        known = found.client
        if known.method == "none" or known.secret is not None:
            return known
        return ProviderClient(known.id, known.method, await self._registry.secret(found.resource))

    async def made(self, fresh: ProviderConnection, by: str) -> None:
        """Keep a new connection in the place of the one before."""
        async with self._alone(_key(fresh)):
            before = self._of.get(_key(fresh))
            forget = [] if before is None else [self._written(before.wiped(), self._tasks.now())]
            events = [self._event("connection.make", "allow", fresh, cause=by)]
            if before is not None and before.access_token is not None:
                _LOG.error("the provider of `%s` was not told that a connection is over", fresh.resource)
                events.append(self._event("connection.revoke", "failed", before))
            await self._tasks.store.commit((self._written(fresh, self._until(fresh)), *forget), events)
            self._settle(fresh)
        await self._changed(fresh)

    async def clear(self, key: Key) -> None:
        """Make room for a new connection: end the one before, and have its provider told before that gives a new one.

        Told later, one that knows a single grant of a human for a client would end the new one, too.
        """
        if (before := self._of.get(key)) is not None and not before.over:
            await self.end(key, ANEW, key[0])
        if key in self._unrevoked:
            await self._revoke(key)

    async def end(self, key: Key, why: str, by: str) -> ProviderConnection:
        """End a connection; nothing of it is lent from now on, and its provider is told."""
        if key not in self._of or self._of[key].over:
            raise NotFoundError(f"there is no connection to `{key[1]}`")
        self._ending.add(key)
        try:
            async with self._alone(key):
                found = self._of[key]
                keep = found.provider.revocation_endpoint is not None
                found = found if found.over else await self._ended(found, why, "done", keep=keep, cause=by)
        finally:
            self._ending.discard(key)
        await self._changed(found)
        return found

    def sweep(self) -> None:
        """Begin what is due: offer the store what it did not take, tell providers, end what was for tasks that ended.

        Nothing is waited for: a provider may take its time.
        """
        for key in filter(self._free, tuple(self._unsaved)):
            self._unwaited(self._save(key))
        now = self._tasks.now()
        for key in [key for key, at in self._unrevoked.items() if at <= now and self._free(key)]:
            self._unrevoked[key] = now + PAUSE
            self._unwaited(self._revoke(key))
        for key in filter(self._free, self._left() if self._used else ()):
            self._unwaited(self.end(key, "ended with the task that it was used in", "task"))

    def _free(self, key: Key) -> bool:
        """Whether no step of a connection is under way."""
        return key not in self._locks or not self._locks[key].locked()

    async def _save(self, key: Key) -> None:
        async with self._alone(key):
            pass

    def _left(self) -> list[Key]:
        """Return the connections that were used in tasks of which none is open, and are to end with them."""
        humans = {human for human, _ in self._used}
        tasks = [task for task in self._tasks if not task.head.closed and task.head.subject.sub in humans]
        needed = {(task.head.subject.sub, name) for task in tasks for name in task.resources}
        return [key for key in self._used if key not in needed]

    async def _revoke(self, key: Key) -> None:
        async with self._alone(key):
            found = self._of[key]
            token = found.refresh_token or found.access_token
            if not found.over or token is None:
                self._unrevoked.pop(key, None)
                return
            decision = "done"
            try:
                async with asyncio.timeout(PATIENCE):
                    await self.providers.port.revoke_token(found.provider, await self.client(found), token)
            except (RemitError, TimeoutError) as error:
                if self._tasks.now() < (found.over_at or found.made_at) + TRIED:
                    return
                _LOG.error("the provider of `%s` was not told that a connection is over: %r", found.resource, error)
                decision = "failed"
            await self.put(found.wiped(), "connection.revoke", decision)
            self._unrevoked.pop(key, None)

    async def _use(self, key: Key) -> None:
        """Put down that a task has used a connection that ends with its tasks."""
        async with self._alone(key):
            if not (found := self._of[key]).used and not found.over:
                await self.put(found.marked(), "connection.use", "done")

    async def _ended(
        self, found: ProviderConnection, why: str, decision: str, *, keep: bool, **more: str
    ) -> ProviderConnection:
        now = self._tasks.now()
        ended = found.ended(why, now, keep=keep)
        await self.put(ended, "connection.end", decision, **{"cause": why, **more})
        return ended

    async def put(self, found: ProviderConnection, event: str, decision: str, **more: str) -> None:
        """Make a step of a connection durable; it counts from then on."""
        told = self._event(event, decision, found, **more)
        await self._tasks.store.commit((self._written(found, self._until(found)),), (told,))
        self._settle(found)

    def _settle(self, found: ProviderConnection) -> None:
        key = _key(found)
        self._of[key] = found
        self._again.pop(key, None)
        self._unsaved.discard(key)
        self._used.discard(key)
        if found.over and found.access_token is not None:
            self._unrevoked.setdefault(key, self._tasks.now())
        elif found.used and not found.over:
            self._used.add(key)

    def _event(self, name: str, decision: str, found: ProviderConnection, **more: str) -> Event:
        return self._tasks.event(name, decision, None, subject=found.human, resource=found.resource, **more)

    def _until(self, found: ProviderConnection) -> datetime:
        return self._tasks.now() + (TOLD if found.over else KEPT)

    def _written(self, found: ProviderConnection, until: datetime) -> PutRecord:
        return sealed_records.sealed(self._sealer, KIND, (found.id, found.rev), found, until)

    async def _changed(self, found: ProviderConnection) -> None:
        """Have edges forget what they hold of it, and wait until they have."""
        self._tasks.notices.tell(resources=frozenset({found.resource}))
        await self._tasks.notices.acted_on()

    @asynccontextmanager
    async def _alone(self, key: Key) -> AsyncIterator[None]:
        """Take a step of a connection alone, on what is on record of it."""
        async with self._locks.setdefault(key, asyncio.Lock()):
            if key in self._unsaved:
                await self.put(self._of[key], "connection.refresh", "done")
            yield


def _key(found: ProviderConnection) -> Key:
    return found.human, found.resource


def setting_of(resource: Resource) -> OAuthSetting:
    """Return the setting ``oauth`` of a resource, or raise InvalidRequestError where it has none."""
    if (found := setting(resource.settings)) is None:
        raise InvalidRequestError(f"`{resource.name}` is used with a key, not with connections of humans")
    return found


def fits(found: ProviderConnection, resource: Resource) -> bool:
    """Whether a connection is for a resource as it is configured now: its tokens go to no other place."""
    asked = setting_of(resource)
    same = asked.client_id in {None, found.client.id} and asked.issuer in {None, found.provider.issuer}
    return same and found.destination == resource.destination
