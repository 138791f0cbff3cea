"""Leases at a PostgreSQL database (16 or newer): login roles with the powers of their grant, and no more.

Rules:

- A lease is a role ``remit_<lease id>`` that may log in and joins one bundle (``bundle``): that is all.
- Its password has 256 random bits; the server is sent a SCRAM verifier, never the password.
- ``VALID UNTIL`` is the lease's end, so that an unreachable broker leaves nothing behind that can log in.
- Revoked means: cannot log in, holds nothing, has no session (``close``). Dropping the role comes later.
- A plan names its destination; a plan for another destination is refused, never taken for absence.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, urlencode

from remit.core.secret import Secret
from remit.core.task import Plan, Revocation
from remit.errors import EngineError, EngineRefusedError
from remit.kinds.postgres import close as postgres_close
from remit.kinds.postgres import inspect as postgres_inspect
from remit.kinds.postgres import target
from remit.kinds.postgres.batches import LeaseBatches, PlannedRole, drop_empty
from remit.kinds.postgres.bundle import drop_idle
from remit.kinds.postgres.connections import Connections
from remit.kinds.postgres.scram import PasswordPool, iterations, new_password
from remit.ports import Clock, Finding, Issued, Resource

BUNDLES = (
    *("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"),  # Debian, Alpine; Fedora
    *("/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"),  # SUSE; macOS
)


class PostgresEngine:
    """Issues login roles at one database. Satisfies Engine, Renewable, Bulk, Cleanable, Inspectable and Closable."""

    revocation = Revocation.BY_NAME

    def __init__(
        self, resource: Resource, secret: Secret | None, *, clock: Clock, random: Callable[[int], bytes]
    ) -> None:
        """Read the destination, or raise InvalidRequestError; connect when first used. ``secret`` is a password."""
        self._resource, self._target = resource, target(resource)
        self._passwords, self._random = PasswordPool(iterations(resource), random), random
        self._connections = Connections(self._target, secret, clock)
        self._batches = LeaseBatches(self._connections, clock, random)
        self._waited: postgres_close.Waited = {}

    async def issue(self, plan: Plan, expires_at: datetime) -> Issued:
        """Create the role; EngineError when it may exist or not, EngineRefusedError when asking again is no use."""
        self._check(plan)
        await self._connections.standby.hold()  # no lease without the means to end it
        ready = await self._passwords.take()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            wanted = (plan.name, ready.verifier, plan.detail, expires_at, plan.issue_by, done)
            await self._batches.make(PlannedRole(*wanted))
        except TimeoutError as error:
            raise EngineError("there was no time left to issue") from error
        return Issued(self._credential(plan.name, ready.password))

    async def renew(self, plan: Plan, receipt: Mapping[str, str] | None, expires_at: datetime) -> None:
        """Move ``VALID UNTIL``; EngineRefusedError when the role is gone or was revoked."""
        self._check(plan)
        await postgres_close.extend(self._connections, plan.name, expires_at)

    async def revoke(self, plan: Plan, receipt: Mapping[str, str] | None) -> None:
        self._check(plan)
        if plan.name not in await self.revoke_many([plan]):
            raise EngineError("a session of the lease has not ended yet")

    async def revoke_many(self, plans: Sequence[Plan]) -> frozenset[str]:
        """End many leases at once: one transaction, then their sessions."""
        ours = [plan.name for plan in plans if self._ours(plan)]
        return await postgres_close.close(self._connections, ours, self._waited)

    async def clean(self, plans: Sequence[Plan]) -> frozenset[str]:
        """Drop revoked roles and what they own, then the bundles and creators that became idle."""
        gone = await postgres_close.clean(self._connections, [plan.name for plan in plans if self._ours(plan)])
        await self._batches.rest()
        async with self._connections.session() as connection:
            stuck = await drop_idle(connection)
            await drop_empty(connection)
        await postgres_close.disown(self._connections, stuck)
        return gone

    async def inspect(self) -> Sequence[Finding]:
        """Check the broker's login, whom the server believes, and what PostgreSQL gives everybody in this database."""
        async with self._connections.session() as connection:
            found = await postgres_inspect.inspect(connection, self._resource.bound)
            logins = await postgres_inspect.logins(connection)
        wrong = new_password(self._random).reveal()
        believed = [user for user in logins if await self._connections.admits(user, wrong)]
        return (*postgres_inspect.trusting(believed), *found)

    async def close(self) -> None:
        await self._passwords.close()
        await self._batches.close()
        await self._connections.close()

    def _ours(self, plan: Plan) -> bool:
        return plan.undo.get("destination") == self._resource.destination

    def _check(self, plan: Plan) -> None:
        if not self._ours(plan):
            raise EngineRefusedError(
                "the lease was issued at another destination", help="restore the resource's destination to end it"
            )

    def _credential(self, user: str, password: Secret) -> Mapping[str, str | Secret]:
        place = self._target
        address = f"[{place.host}]" if ":" in place.host else place.host
        options = {"options": "-c search_path=pg_catalog"}
        if place.tls == "verify-full":
            options |= {"sslmode": "verify-full", "sslrootcert": authorities()}  # as the engine itself verifies
        dsn = (
            f"postgresql://{quote(user, safe='')}:{quote(password.reveal(), safe='')}@{address}:{place.port}"
            f"/{quote(place.database, safe='')}?{urlencode(options, quote_via=quote)}"
        )
        where = {"host": place.host, "port": str(place.port), "dbname": place.database}
        return {**where, "user": user, "password": password, "dsn": Secret(dsn)}


def authorities() -> str:
    """Return the file with this system's certificate authorities, since most drivers read one; else what libpq knows.

    To ``system`` asyncpg and node's ``pg`` say that there is no such file.
    """
    found = (ssl.get_default_verify_paths().cafile, *BUNDLES)
    return next((path for path in found if path and Path(path).is_file()), "system")
