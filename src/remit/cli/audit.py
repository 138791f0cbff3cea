"""The audit log: tail it, verify it offline, prove an entry."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli import options, sdk
from remit.cli.options import argument, option
from remit.cli.render import answer, pause, progress, wrapped
from remit.core.orders import json_text
from remit.core.paths import check_path, matched, places
from remit.errors import IntegrityError, InvalidRequestError, NotFoundError

if TYPE_CHECKING:
    from remit.core.audit import Checkpoint

DECISIONS = ("allow", "deny", "done", "failed", "unknown")

app = options.group("audit", "The audit log, and proofs from it.")

Key = Annotated[
    list[str] | None, option("--key KEY", "A verifier key (C2SP) from elsewhere; else the one beside the state.")
]


@dataclass(frozen=True, slots=True)
class TailFilters:
    """Which entries are shown; all of it must be so."""

    task: Annotated[str | None, option("--task TASK", "Of this task, by its id or how it begins.")] = None
    resource: Annotated[str | None, option("--resource NAME", "At this resource.")] = None
    decision: Annotated[
        str | None, option("--decision DECISION", "So decided: allow, deny, done, failed or unknown.")
    ] = None
    path: Annotated[
        str | None, option("--path PATTERN", "Refused requests for these paths, as a grant would have them: /v1/**.")
    ] = None
    since: Annotated[
        str | None, option("--since TIME", "Not older than 90s, 15m, 1h, or than an instant: 2026-11-28T10:00Z.")
    ] = None

    def wanted(self, now: datetime) -> Callable[[Mapping[str, Any]], bool]:
        """Return what says of an entry whether it is shown."""
        if self.decision not in {None, *DECISIONS}:
            raise typer.BadParameter(f"a decision is {', '.join(DECISIONS)}")
        since = None if self.since is None else _instant(self.since, now)
        task = None if self.task is None else f"task_{self.task.removeprefix('task_')}"
        wide = None if self.path is None else places((check_path("--path", self.path),))

        def shown(entry: Mapping[str, Any]) -> bool:
            return (
                (task is None or str(entry["task"]).startswith(task))
                and self.resource in {None, entry["resource"]}
                and self.decision in {None, entry["decision"]}
                and (wide is None or ("path" in entry and matched(entry["path"], wide)))
                and (since is None or datetime.fromisoformat(entry["at"]) >= since)
            )

        return shown


def _instant(text: str, now: datetime) -> datetime:
    with suppress(ValueError):
        found = datetime.fromisoformat(text)
        return found if found.tzinfo else found.astimezone()
    return now - timedelta(seconds=options.seconds(text))


@app.command("tail")
@options.expanded
def tail(
    count: Annotated[int, option("--lines -n COUNT", "How many of the last entries.", min=0)] = 20,
    whole: Annotated[bool, option("--all -a", "All entries, from the first.")] = False,
    follow: Annotated[bool, option("--follow -f", "Wait for more.")] = False,
    *,
    filters: TailFilters,
    json: Annotated[bool, option("--json", "Print one entry a line, exactly as it was hashed.")] = False,
) -> None:
    """Show the last entries of the audit log: what was asked for, by which grant, and what came of it.

    \b
    Examples:
      remit audit tail
      remit audit tail --follow --decision deny
      remit audit tail --since 1h --task task_4pqRz0mZkq1uJb0f8w2c5A
      remit audit tail --resource notes --path '/v1/**'
      remit audit tail --all --json > log.jsonl
    """
    wanted = filters.wanted(datetime.now(UTC))
    start = sdk.ask(sdk.verbs.audit())["size"]
    last = filter(wanted, _entries(0, start)) if whole else _last(start, count, wanted)
    wide = len(str(start))
    if sys.stdout.isatty() and not json:
        wrapped(f"{'#':<{wide}}  {'at':<20}  {'event':<16}  result  grant, what was asked, why")
    while True:
        for entry in last:
            if json:
                typer.echo(json_text(entry))
            else:
                wrapped(_line(entry, wide))
        if not follow:
            return
        pause()
        page = list(_entries(start))
        start += len(page)
        last = filter(wanted, page)


def _line(entry: Mapping[str, Any], wide: int) -> str:
    parts = [f"{entry['seq']:<{wide}}", f"{entry['at'][:19]}Z", f"{entry['event']:<16}", f"{entry['decision']:<6}"]
    about = [entry["grant"] or entry["task"], entry["resource"], entry["action"], entry.get("path"), entry["code"]]
    about += [entry.get("policy")] if entry["event"].startswith("policy.") else []
    return "  ".join([*parts, *(str(item) for item in [*about, entry["cause"]] if item)])


def _last(size: int, count: int, wanted: Callable[[Mapping[str, Any]], bool]) -> Sequence[Mapping[str, Any]]:
    """Return the last entries that are wanted, looked for from the end of the log, a page at a time."""
    found: list[Mapping[str, Any]] = []
    while size and len(found) < count:
        begin = max(0, size - sdk.verbs.PAGE)
        found[:0] = filter(wanted, sdk.ask(sdk.verbs.entries(begin, size - begin)))
        size = begin
    return found[-count:] if count else found


def _entries(start: int, end: float = math.inf) -> Iterator[Mapping[str, Any]]:
    while start < end and (page := sdk.ask(sdk.verbs.entries(start))):
        yield from islice(page, None if end == math.inf else int(end) - start)
        start += len(page)


@app.command("verify")
def verify(
    log: Annotated[
        Path | None, argument("[LOG]", "Entries as `tail -a --json` prints them; else the broker's.")
    ] = None,
    checkpoint: Annotated[list[Path] | None, option("--checkpoint -c FILE", "A checkpoint kept elsewhere.")] = None,
    key: Key = None,
    self_consistent: Annotated[
        bool, option("--self-consistent", "Accept entries that no signed checkpoint covers.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Verify the log: no gap, every entry as it was hashed, every checkpoint extended and its signature checked.

    Given a LOG it needs no broker, but a checkpoint: anyone can write entries that are consistent with themselves.
    The log is verified when a signed checkpoint covers its last entry, and no further than the key is trusted.

    \b
    Examples:
      remit audit verify
      remit audit checkpoint > kept.checkpoint && remit audit key > kept.vkey
      remit audit verify log.jsonl -c kept.checkpoint --key "$(cat kept.vkey)"
    """
    from remit.core import audit

    texts = [_text(path) for path in checkpoint or ()]
    texts += [sdk.ask(sdk.verbs.checkpoint())] if log is None else []
    keys = _keys(key)
    notes = [_checkpoint(text, keys) for text in texts]
    if log is None and (place := options.settings().audit.witness):
        from remit.compose.probe import kept_checkpoint

        kept = kept_checkpoint(options.settings().places.state, place)  # which no log that was rolled back reaches
        notes += [kept] if kept else []
    total = None if log else max(note.size for note in notes)
    broker = (audit.Entry(int(item["seq"]), json_text(item).encode("ascii")) for item in islice(_entries(0), total))
    entries = audit.read_log(_text(log)) if log else broker
    tree = audit.verify(progress(entries, total, "verifying"), notes)
    signed = max((note.size for note in notes), default=-1) if keys else -1
    shown = {"entries": tree.size, "root": tree.root().hex(), "checkpoints": len(notes)}
    shown |= {"signed": signed == tree.size, "signed_entries": max(signed, 0), "verified": signed == tree.size}
    custody = "as given" if key else "of the broker's own state" if keys else "none"
    answer(json, shown, {**shown, "keys": custody})
    if signed == tree.size or self_consistent:
        return
    if notes and not keys:
        why, help_ = "no signature was checked", "pass --key with one you got from elsewhere (`remit audit key`)"
    else:
        why = f"a signed checkpoint covers the first {max(signed, 0)} only" if notes else "there is no checkpoint"
        help_ = "pass --checkpoint with a newer one (`remit audit checkpoint`)"
    raise IntegrityError(
        f"the log's {tree.size} entries are consistent with themselves only: {why}",
        help=f"{help_}, or --self-consistent to accept that",
    )


@app.command("key")
def key_(json: options.Json = False) -> None:
    """Print the keys that verify checkpoints (C2SP), one a line. Note them elsewhere when the log begins.

    \b
    Examples:
      remit audit key > kept.vkey
    """
    keys = _keys(None)
    if not keys:
        raise NotFoundError("there is no verifier key beside the state", help="a broker writes it when it starts")
    answer(json, {"keys": keys}, *keys)


@app.command("checkpoint")
def checkpoint_(json: options.Json = False) -> None:
    """Print a checkpoint that signs the log as it is now (a C2SP note). Keep it where the operator cannot change it.

    \b
    Examples:
      remit audit checkpoint > kept.checkpoint
    """
    text = sdk.ask(sdk.verbs.checkpoint())
    answer(json, {"checkpoint": text}, *text.splitlines())


def _keys(given: Sequence[str] | None) -> list[str]:
    """Return verifier keys: those given, else the broker's beside its state, good against all but the state's owner."""
    named = [line for text in given or () for line in text.split()]
    if named:
        return named
    try:
        return (sdk.place.state(os.environ) / "audit.vkey").read_text("ascii").split()
    except OSError:
        return []


def _checkpoint(text: str, keys: Sequence[str]) -> Checkpoint:
    from remit.core import audit

    known = [audit.read_verifier_key(item) for item in keys]
    if not known:
        return audit.read_unsigned(text)
    return audit.read_checkpoint(text, known[0][0], [public for _, public in known])


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise InvalidRequestError(f"`{path}` cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"`{path}` cannot be read as text") from error


@app.command("prove")
def prove(
    seq: Annotated[int, argument("SEQ", "The number of the entry.", min=0)], key: Key = None, json: options.Json = False
) -> None:
    """Prove that an entry is in the log that the newest checkpoint signs, and check the proof here.

    \b
    Examples:
      remit audit prove 17
      remit audit prove 17 --json > proof.json
    """
    from remit import jose
    from remit.core import tree

    text = sdk.ask(sdk.verbs.checkpoint())
    keys = _keys(key)
    note = _checkpoint(text, keys)
    page = sdk.ask(sdk.verbs.entries(seq, 1))
    if not page or seq >= note.size:
        raise NotFoundError(f"there is no entry {seq} under the newest checkpoint")
    proof = sdk.ask(sdk.verbs.inclusion(seq, note.size))["proof"]
    leaf = tree.leaf_hash(json_text(page[0]).encode("ascii"))
    tree.verify_inclusion(leaf, seq, note.size, [jose.decode(node) for node in proof], note.root)
    document = {"entry": page[0], "checkpoint": text, "proof": proof, "signed": bool(keys)}
    shown = {"entry": seq, "size": note.size, "root": note.root.hex(), "hashes": len(proof), "signed": bool(keys)}
    answer(json, document, shown, *(["the entry is in the log"] if keys else []))
    if not keys:
        raise IntegrityError("no signature was checked", help="pass --key with one you got from elsewhere")
