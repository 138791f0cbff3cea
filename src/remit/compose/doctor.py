"""What the doctor looks at. A check looks, changes nothing, and never raises."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import subprocess
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from pathlib import Path
from typing import Any

from msgspec import structs

from remit.compose import identities, policy, probe
from remit.compose.embedded import reached
from remit.compose.kinds import installed, known
from remit.compose.probe import ProbeResult
from remit.config.settings import Settings, load
from remit.core import audit
from remit.errors import RemitError, UnavailableError
from remit.identity.documents import PublishedDocuments
from remit.identity.fetch import HttpFetch
from remit.run import sandbox
from remit.run.machine import bubblewrap, covers_proc, unbounded
from remit.sdk import Client, Place, admin, verbs
from remit.sdk.place import find
from remit.stores import sqlite_rows

SKEW = timedelta(seconds=60)
SOON = timedelta(days=7)  # left to renew a certificate
TAIL = 64 * 1024  # bytes of the log
WORRIES = frozenset({"WARNING", "ERROR", "CRITICAL"})  # the third word of its lines
ROLLED_BACK = "the audit log was rolled back"
RESTORE = "restore the newest state; or find out who else serves a copy of it, and begin a new second place"
OFTEN = 3  # restarts of a process that are worth a word
LOOSE = 0o077  # permissions of others


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check saw. ``level`` is good, warning or wrong; ``help`` says what to do."""

    name: str
    level: str
    text: str
    help: str = ""


Check = Callable[[Settings], Iterator[CheckResult]]
CHECKS: list[Check] = []


def good(name: str, text: str) -> CheckResult:
    return CheckResult(name, "good", text)


def refused(name: str, error: RemitError) -> CheckResult:
    return CheckResult(name, "wrong", error.detail, error.help or "")


def check(name: str) -> Callable[[Check], Check]:
    """Add a check, in the order in which a broker would trip over what is wrong; an error that it raises is found."""

    def added(look: Check) -> Check:
        @wraps(look)
        def looked(settings: Settings) -> Iterator[CheckResult]:
            try:
                yield from look(settings)
            except RemitError as error:
                yield refused(name, error)

        CHECKS.append(looked)
        return looked

    return added


def examine(environ: Mapping[str, str]) -> list[CheckResult]:
    """Run all checks; in a run those that are about the run."""
    if environ.get("REMIT_GRANT"):
        return [*nested(), channel(environ)]
    try:
        settings = structs.replace(load(environ), places=reached(environ))
    except RemitError as error:
        return [refused("configuration", error)]
    config = settings.places.config
    read = good("configuration", f"{config}" if config.exists() else "defaults: there is no configuration file")
    return [read, *(found for look in CHECKS for found in look(settings))]


@check("kinds")
def kinds(settings: Settings) -> Iterator[CheckResult]:
    there = known(settings)
    unused = [f"{name} {version}" for name, version in installed().items() if name not in there]
    yield good("kinds", ", ".join(there) + (f"; installed, not configured: {', '.join(unused)}" if unused else ""))


@check("files")
def modes(settings: Settings) -> Iterator[CheckResult]:
    state = settings.places.state
    if not state.exists():
        yield good("files", "there is no state yet")
        return
    loose = [path for path in (state, *sorted(state.rglob("*"))) if _loose(path)]
    for path in loose:
        text = f"`{path}` is open to others, or is not yours"
        yield CheckResult("files", "wrong", text, f"chmod go= '{path}', and find out who read it meanwhile")
    if not loose:
        yield good("files", f"all of `{state}` is yours alone")


def _loose(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    shut = 0 if path.name == "audit.vkey" else LOOSE  # that one is public, and meant to be handed on
    return found.st_uid != os.geteuid() or bool(stat.S_IMODE(found.st_mode) & shut)


@check("keys")
def custody(settings: Settings) -> Iterator[CheckResult]:
    kek = settings.kek
    database = settings.places.database
    if not (kek.exists() and database.exists()):
        yield good("keys", "no key has been made yet")
    elif kek.stat().st_dev == database.stat().st_dev:
        text = "the key-encryption key is on the same disk as the database it protects"
        yield CheckResult("keys", "warning", text, "it protects copies of the database, not the disk: set `keys.kek`")
    else:
        yield good("keys", f"the key-encryption key is on another disk: `{kek}`")


@check("second place")
def second_place(settings: Settings) -> Iterator[CheckResult]:
    name, place = "second place", settings.audit.witness
    if place is None:
        text = "no second place keeps the audit log's checkpoints, so a rollback of the state cannot be seen"
        yield CheckResult(name, "warning", text, "set `audit.witness` to a directory under another custody")
        return
    try:
        probe.kept_checkpoint(settings.places.state, place)
    except RemitError as error:
        text = f"{error.detail}; until this is right no end is confirmed there, and no rollback seen"
        yield CheckResult(name, "wrong", text, error.help or "")
        return
    if settings.places.state.exists() and place.stat().st_dev == settings.places.state.stat().st_dev:
        text = f"`{place}` is on the same disk as the state: whoever restores one restores both"
        yield CheckResult(name, "warning", text, "put it under another custody")
    else:
        yield good(name, f"checkpoints are kept in `{place}`")


@check("policies")
def policies(settings: Settings) -> Iterator[CheckResult]:
    found, problems = policy.load(settings.policies) if settings.policies else (None, ())
    if problems:
        yield CheckResult("policies", "wrong", str(problems[0]), "`remit policy check` names all that is wrong")
    elif found is None:
        yield good("policies", "none are configured: the owner of this state alone may open tasks")
    else:
        yield good("policies", f"{len(found.policies)} are good: {found.version}")


@check("tls")
def certificate(settings: Settings) -> Iterator[CheckResult]:
    if settings.tls is None:
        return
    identities.server_tls(settings, identities.CertificateFiles(settings.tls).read, None)
    found = probe.leaf(settings.tls)
    now, ends = datetime.now(UTC), found.not_valid_after_utc
    until, renew = f"{ends:%Y-%m-%d %H:%M} UTC", "renew `tls.certificate`"
    missing = probe.unnamed(found, settings.tls.names)
    if missing:
        text = f"the certificate is not for {' and '.join(f'`{name}`' for name in missing)}: clients refuse it"
        yield CheckResult("tls", "wrong", text, "get one for all of `tls.names`, or correct these")
    if not found.not_valid_before_utc <= now < ends:
        text = f"the certificate is good from {found.not_valid_before_utc:%Y-%m-%d %H:%M} to {until} alone"
        yield CheckResult("tls", "wrong", text, renew)
    elif ends - now < SOON:
        yield CheckResult("tls", "warning", f"the certificate ends at {until}", renew)
    elif not missing:
        yield good("tls", f"the certificate is for {', '.join(settings.tls.names)}, until {until}, and has its key")


@check("issuers")
def issuers(settings: Settings) -> Iterator[CheckResult]:
    helps = "nobody of this issuer is let in before it answers: look at its URL, at the network, at `SSL_CERT_FILE`"
    for one in _probed(probe.issuers(settings, partial(datetime.now, UTC), HttpFetch())):
        name = f"issuer {one.name}"
        if one.failure is not None:
            yield CheckResult(name, "wrong", one.failure, helps)
        elif one.never:
            text = f"it says that it proves none of {', '.join(f'`{value}`' for value in one.never)}"
            helps_acr = "have `humans.acr` list values that the issuer issues, or leave it out"
            yield CheckResult(name, "warning", f"{text}, so nobody there can decide on approvals", helps_acr)
        elif one.mute:
            text = "it answers, but no client of it has a secret, so nobody there can decide on approvals"
            yield CheckResult(name, "warning", text, probe.CONFIDENTIAL)
        else:
            yield good(name, "it answers, and its keys can be read")


@check("trust domains")
def bundles(settings: Settings) -> Iterator[CheckResult]:
    helps = "no workload there is believed before there is a bundle: look at its source in `[[trust_domains]]`"
    for one in _probed(probe.bundles(settings, PublishedDocuments(identities.published(settings)))):
        name = f"trust domain {one.name}"
        if one.failure is not None:
            yield CheckResult(name, "wrong", one.failure, helps)
        else:
            yield good(name, "its bundle can be read")


def _probed(asking: Coroutine[Any, Any, Sequence[ProbeResult]]) -> Sequence[ProbeResult]:
    log, quiet = logging.getLogger("remit"), logging.NullHandler()
    log.addHandler(quiet)  # what cannot be asked is a finding, and needs no line of its own
    try:
        return asyncio.run(asking)
    finally:
        log.removeHandler(quiet)


@check("bubblewrap")
def namespaces(settings: Settings) -> Iterator[CheckResult]:
    del settings
    yield from _namespaces(("--proc", "/proc"))
    if lacking := unbounded():
        help_ = "docs/explanation/limits.md, of the machine: `systemd-run --user --scope -p MemoryMax=8G remit run …`"
        yield CheckResult("runs", "warning", f"a run is bounded less than it could be: {'; '.join(lacking)}", help_)


def nested() -> Iterator[CheckResult]:
    """Try what a run in this run needs: it shares this one's /proc where root's is covered."""
    yield from _namespaces(("--bind", "/proc", "/proc") if covers_proc() else ("--proc", "/proc"))


def _namespaces(proc: tuple[str, ...]) -> Iterator[CheckResult]:
    try:
        bwrap = str(bubblewrap())
    except RemitError as error:
        yield refused("bubblewrap", error)
        return
    yield good("bubblewrap", bwrap)
    known = sandbox.MachineFacts(os.getuid(), os.getgid(), {})
    tried = _try([bwrap, *sandbox.namespaces(known), "--ro-bind", "/", "/", *proc, "--", "/bin/true"])
    if tried:
        text = f"a namespace cannot be made: {tried}"
        yield CheckResult("namespaces", "wrong", text, "allow unprivileged user namespaces: `remit run` needs them")
    else:
        yield good("namespaces", "user, pid, mount, ipc and network namespaces can be made")


def _try(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip() or f"exit {done.returncode}")


@check("clock")
def clock(settings: Settings) -> Iterator[CheckResult]:
    """Compare the clock with what the state has seen: a clock that was set back extends nothing."""
    changed = (path.stat().st_mtime for path in settings.places.state.glob("remit.db*"))
    newest = max((datetime.fromtimestamp(seconds, UTC) for seconds in changed), default=None)
    now, last = datetime.now(UTC), None
    with suppress(RemitError, OSError):
        entry = sqlite_rows.last_entry(settings.places.database)
        last = None if entry is None else audit.read(entry).at
    if last is not None and last > now + SKEW:
        text = f"the clock says {now:%Y-%m-%d %H:%M}, but the log's last entry is of {last:%Y-%m-%d %H:%M}"
        ahead = "it was ahead, and nothing new is granted until that time: `remit down`, then `remit clock accept`"
        yield CheckResult("clock", "wrong", text, f"set the clock; if it is right, {ahead}")
    elif newest is not None and newest > now + SKEW:
        text = f"the clock says {now:%Y-%m-%d %H:%M}, but the database was written at {newest:%Y-%m-%d %H:%M}"
        yield CheckResult("clock", "wrong", text, "set the clock")
    elif now.year < 2025:  # noqa: PLR2004 - before remit was written
        yield CheckResult("clock", "wrong", f"the clock says {now:%Y-%m-%d}", "set the clock")
    else:
        yield good("clock", f"{now:%Y-%m-%d %H:%M} UTC")


@check("log")
def log(settings: Settings) -> Iterator[CheckResult]:
    path = settings.places.log
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            last = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        yield good("log", f"no broker has written `{path}` yet")
        return
    warned = next((line for line in reversed(last) if WORRIES & set(line.split()[2:3])), None)
    yield good("log", f"`{path}`" + ("" if warned is None else f", the last warning in it: {warned}"))


BEARERS = "it is served to whoever has a token of its own: a stolen one works until it ends, in minutes"
UNBEARER = "leave out `bearer` where every client can make DPoP proofs: tokens that were made end with it"


def channel(environ: Mapping[str, str]) -> CheckResult:
    try:
        with Client(find(environ)) as client:
            own = client.run(verbs.own())
    except RemitError as error:
        return refused("channel", error)
    return good("channel", f"the broker answers: this run holds {own.grant}")


@check("broker")
def broker(settings: Settings) -> Iterator[CheckResult]:
    with Client(Place(settings.places.control)) as client:
        try:
            about = client.run(verbs.audit())
            found = client.run(verbs.resources())
        except RemitError as error:
            down = error.code == "unavailable"
            yield CheckResult("broker", "warning" if down else "wrong", error.detail, error.help or "")
            return
        yield good("broker", f"answers on `{settings.places.control}`")
        if about["rolled_back"]:
            text = f"{about['second_place'] or ROLLED_BACK}: nothing is served"
            yield CheckResult("rollback", "wrong", text, RESTORE)
        for item in found:
            yield _resource(client, f"{item['kind']} {item['resource']}", str(item["resource"]))
            if item["settings"].get("bearer") is True:
                yield CheckResult(f"bearer {item['resource']}", "warning", BEARERS, UNBEARER)


def _resource(client: Client, about: str, name: str) -> CheckResult:
    """Have the broker look at a resource, its secret and its target as it did when the resource was added."""
    try:
        checked = client.run(verbs.check_resource(name))
    except RemitError as error:
        helps = error.help or "start it, or correct the resource's destination"
        return CheckResult(about, "wrong", error.detail, helps)
    if found := checked["findings"]:
        text = "; ".join(f"{item['name']}: {item['text']}" for item in found)
        if all(item["accepted"] for item in found):
            return CheckResult(about, "warning", f"accepted, and it stands: {text}", "fix it at the database")
        return CheckResult(about, "wrong", text, "fix it at the database, or accept by name what can be accepted")
    if not checked["contacted"]:
        return good(about, "its settings and its secret can be used; its target was not asked")
    return good(about, "the broker can log in, and the login is as it should be")


@check("processes")
def processes(settings: Settings) -> Iterator[CheckResult]:
    """Look at what this kernel cannot hold the processes of the broker that is up to, and which of them die."""
    with Client(Place(settings.places.control)) as client:
        try:
            found = client.run(admin.processes())
        except UnavailableError:
            return  # the check before has said so
    yield from supervised(found)


def supervised(found: Mapping[str, Any]) -> Iterator[CheckResult]:
    for line in found["lacks"]:
        yield CheckResult("kernel", "warning", line, "docs/explanation/processes.md says what that leaves open")
    for one in found["processes"]:
        if one["restarts"] >= OFTEN:
            text = f"`{one['name']}` died, and was started again, {one['restarts']} times"
            yield CheckResult("processes", "warning", text, "the log says why")
    if found["supervised"] and all(one["restarts"] < OFTEN for one in found["processes"]):
        yield good("processes", ", ".join(str(one["name"]) for one in found["processes"]))
