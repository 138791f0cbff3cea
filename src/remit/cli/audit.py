"""The audit log: tail it, verify it offline, prove an entry."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli import options
from remit.cli.connect import ask
from remit.cli.render import answer, emit, pause, progress, safe, said

if TYPE_CHECKING:
    from remit.core.audit import Checkpoint
    from remit.errors import IntegrityError

app = options.group("The audit log, and proofs from it.")

Key = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="KEY", help="A verifier key (C2SP) from elsewhere; else the one beside the state."),
]


@app.command("tail")
def tail(
    count: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last entries.")] = 20,
    whole: Annotated[bool, typer.Option("--all", "-a", help="All entries, from the first.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one entry a line, exactly as it was hashed.")] = False,
) -> None:
    """Show the last entries of the audit log.

    \b
    Examples:
      remit audit tail
      remit audit tail --follow
      remit audit tail --all --json > log.jsonl
    """
    from remit.sdk import verbs

    start = 0 if whole else max(0, ask(verbs.audit())["size"] - count)
    if sys.stdout.isatty() and not json:
        said(f"{'#':<{len(str(start))}}  {'at':<23}  {'event':<16}  result  grant, resource, action, why")
    while True:
        for entry in _entries(start):
            emit_entry(entry, json)
            start = entry["seq"] + 1
        if not follow:
            return
        pause()


def _entries(start: int) -> Iterator[Mapping[str, Any]]:
    from remit.sdk import verbs

    while page := ask(verbs.entries(start)):
        yield from page
        start += len(page)


def emit_entry(entry: Mapping[str, Any], as_json: bool) -> None:
    """Print an entry."""
    if as_json:
        typer.echo(leaf(entry).decode())
        return
    parts = [str(entry["seq"]), entry["at"][:23], f"{entry['event']:<16}", f"{entry['decision']:<6}"]
    version = entry.get("policy") if entry["event"].startswith("policy.") else None
    about = (
        entry["grant"] or entry["task"],
        entry["resource"],
        entry["action"],
        entry["code"],
        version,
        entry["cause"],
    )
    said("  ".join([*parts, *(safe(item) for item in about if item)]))


def leaf(entry: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON of an entry: the bytes that were hashed."""
    from remit.core.orders import json_text

    return json_text(entry).encode("ascii")


@app.command("verify")
def verify(
    log: Annotated[
        Path | None,
        typer.Argument(metavar="[LOG]", help="Entries as `tail -a --json` prints them; else the broker's."),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option("--checkpoint", "-c", metavar="FILE", help="A checkpoint kept elsewhere.")
    ] = None,
    key: Key = None,
    self_consistent: Annotated[
        bool, typer.Option("--self-consistent", help="Accept entries that no signed checkpoint covers.")
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
    from remit.sdk import verbs

    texts = [_text(path) for path in checkpoint or ()]
    newest = ask(verbs.checkpoint()) if log is None else None
    keys = _given(key) or _own_keys()
    notes = [_checkpoint(text, keys) for text in [*texts, *([newest] if newest else [])]]
    notes += _second() if log is None else []
    total = None if log else max(note.size for note in notes)
    broker = (audit.Entry(int(item["seq"]), leaf(item)) for item in islice(_entries(0), total))
    entries = audit.read_log(_text(log)) if log else broker
    tree = audit.verify(progress(entries, total, "verifying"), notes)
    signed = max((note.size for note in notes), default=-1) if keys else -1
    shown = {"entries": tree.size, "root": tree.root().hex(), "checkpoints": len(notes)}
    shown |= {"signed": signed == tree.size, "signed_entries": max(signed, 0), "verified": signed == tree.size}
    custody = "as given" if key else "of the broker's own state" if keys else "none"
    answer(json, shown, {**shown, "keys": custody})
    if signed != tree.size and not self_consistent:
        raise _unproven(tree.size, max(signed, 0), bool(notes), bool(keys))


def _unproven(size: int, signed: int, noted: bool, keyed: bool) -> IntegrityError:
    """Say which entries are consistent with themselves only, and what would show more."""
    from remit.errors import IntegrityError

    if noted and not keyed:
        why, help_ = "no signature was checked", "pass --key with one you got from elsewhere (`remit audit key`)"
    else:
        why = f"a signed checkpoint covers the first {signed} only" if noted else "there is no checkpoint"
        help_ = "pass --checkpoint with a newer one (`remit audit checkpoint`)"
    text = f"the log's {size} entries are consistent with themselves only: {why}"
    return IntegrityError(text, help=f"{help_}, or --self-consistent to accept that")


@app.command("key")
def key_(json: options.Json = False) -> None:
    """Print the keys that verify checkpoints (C2SP), one a line. Note them elsewhere when the log begins.

    \b
    Examples:
      remit audit key > kept.vkey
    """
    from remit.errors import NotFoundError

    keys = _own_keys()
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
    from remit.sdk import verbs

    text = ask(verbs.checkpoint())
    if json:
        emit({"checkpoint": text})
        return
    typer.echo(text, nl=False)


def _given(keys: Sequence[str] | None) -> list[str]:
    return [line for text in keys or () for line in text.split()]


def _own_keys() -> list[str]:
    """Return the verifier keys that the broker keeps beside its state: good against others, not against its owner."""
    from remit.sdk.place import state

    try:
        return (state(os.environ) / "audit.vkey").read_text("ascii").split()
    except OSError:
        return []


def _checkpoint(text: str, keys: Sequence[str]) -> Checkpoint:
    from remit.core import audit

    known = [audit.read_verifier_key(item) for item in keys]
    if not known:
        return audit.read_unsigned(text)
    return audit.read_checkpoint(text, known[0][0], [public for _, public in known])


def _second() -> list[Checkpoint]:
    """Return what the configured second place keeps: a log that was rolled back does not reach it."""
    from remit.compose.probe import kept_checkpoint
    from remit.config.settings import load

    settings = load(os.environ)
    found = None if settings.audit.witness is None else kept_checkpoint(settings.places.state, settings.audit.witness)
    return [] if found is None else [found]


def _text(path: Path) -> str:
    from remit.errors import InvalidRequestError

    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise InvalidRequestError(f"`{path}` cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"`{path}` cannot be read as text") from error


@app.command("prove")
def prove(
    seq: Annotated[int, typer.Argument(metavar="SEQ", min=0, help="The number of the entry.")],
    key: Key = None,
    json: options.Json = False,
) -> None:
    """Prove that an entry is in the log that the newest checkpoint signs, and check the proof here.

    \b
    Examples:
      remit audit prove 17
      remit audit prove 17 --json > proof.json
    """
    from remit import jose
    from remit.core import tree
    from remit.errors import IntegrityError, NotFoundError
    from remit.sdk import verbs

    text = ask(verbs.checkpoint())
    keys = _given(key) or _own_keys()
    note = _checkpoint(text, keys)
    page = ask(verbs.entries(seq, 1))
    if not page or seq >= note.size:
        raise NotFoundError(f"there is no entry {seq} under the newest checkpoint")
    proof = ask(verbs.inclusion(seq, note.size))["proof"]
    tree.verify_inclusion(
        tree.leaf_hash(leaf(page[0])), seq, note.size, [jose.decode(node) for node in proof], note.root
    )
    document = {"entry": page[0], "checkpoint": text, "proof": proof, "signed": bool(keys)}
    shown = {"entry": seq, "size": note.size, "root": note.root.hex(), "hashes": len(proof), "signed": bool(keys)}
    answer(json, document, shown, *(["the entry is in the log"] if keys else []))
    if not keys:
        raise IntegrityError("no signature was checked", help="pass --key with one you got from elsewhere")
