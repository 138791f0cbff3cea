"""The audit log: tail it, verify it offline, prove an entry."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli import options, sdk
from remit.cli.options import argument, option
from remit.cli.render import answer, pause, progress, said
from remit.core.orders import json_text
from remit.errors import IntegrityError, InvalidRequestError, NotFoundError

if TYPE_CHECKING:
    from remit.core.audit import Checkpoint

app = options.group("audit", "The audit log, and proofs from it.")

Key = Annotated[
    list[str] | None, option("--key KEY", "A verifier key (C2SP) from elsewhere; else the one beside the state.")
]


@app.command("tail")
def tail(
    count: Annotated[int, option("--lines -n", "How many of the last entries.", min=0)] = 20,
    whole: Annotated[bool, option("--all -a", "All entries, from the first.")] = False,
    follow: Annotated[bool, option("--follow -f", "Wait for more.")] = False,
    json: Annotated[bool, option("--json", "Print one entry a line, exactly as it was hashed.")] = False,
) -> None:
    """Show the last entries of the audit log.

    \b
    Examples:
      remit audit tail
      remit audit tail --follow
      remit audit tail --all --json > log.jsonl
    """
    start = 0 if whole else max(0, sdk.ask(sdk.verbs.audit())["size"] - count)
    if sys.stdout.isatty() and not json:
        said(f"{'#':<{len(str(start))}}  {'at':<23}  {'event':<16}  result  grant, resource, action, why")
    while True:
        for entry in _entries(start):
            start = entry["seq"] + 1
            if json:
                typer.echo(json_text(entry))
                continue
            parts = [str(entry["seq"]), entry["at"][:23], f"{entry['event']:<16}", f"{entry['decision']:<6}"]
            about = [entry["grant"] or entry["task"], entry["resource"], entry["action"], entry["code"]]
            about += [entry.get("policy")] if entry["event"].startswith("policy.") else []
            said("  ".join([*parts, *(str(item) for item in [*about, entry["cause"]] if item)]))
        if not follow:
            return
        pause()


def _entries(start: int) -> Iterator[Mapping[str, Any]]:
    while page := sdk.ask(sdk.verbs.entries(start)):
        yield from page
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
