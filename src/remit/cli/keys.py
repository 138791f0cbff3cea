"""Signing keys: list, rotate, revoke."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from remit.cli import options, sdk
from remit.cli.connect import ask
from remit.cli.render import Table, answer

app = options.group(
    "The keys that the broker signs with: of tokens, audit checkpoints, events, its SPIFFE trust domain."
)

Ring = Annotated[str, typer.Argument(metavar="RING", help="Which keys: token, audit, spiffe or events.")]


@app.command("list")
def list_(json: options.Json = False) -> None:
    """List the keys that verify what the broker has signed, and which of them sign.

    \b
    Examples:
      remit keys list
      remit keys list --json
    """
    found = ask(sdk.admin.keys())
    rows = ((ring, key["kid"], key["alg"], _state(ring, key)) for ring, keys in found["rings"].items() for key in keys)
    answer(json, found, Table(("ring", "key", "algorithm", "state"), rows))


def _state(ring: str, key: dict[str, Any]) -> str:
    if key["signing"]:
        return "signs"
    if ring == "spiffe" and not key["until"]:  # published before it signs; of other rings: for good
        return "signs next"
    return f"verifies until {key['until']}" if key["until"] else "verifies"


@app.command("rotate")
def rotate(ring: Ring, json: options.Json = False) -> None:
    """Make a new key sign; the one before it verifies until everything that it signed has ended.

    \b
    Examples:
      remit keys rotate token
      remit keys rotate audit --json
    """
    done = ask(sdk.admin.rotate(ring))
    answer(json, done, f"{done['signing']} signs from now on; the key before it still verifies what it has signed")


@app.command("revoke", context_settings={"ignore_unknown_options": True})  # an id may begin with a hyphen
def revoke(
    ring: Ring,
    kid: Annotated[str, typer.Argument(metavar="KEY", help="The id of a key, as `remit keys list` shows it.")],
    json: options.Json = False,
) -> None:
    """End everything that a key has signed, at once: for a key that somebody else may have. A new one signs.

    \b
    Examples:
      remit keys revoke token 0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I
    """
    done = ask(sdk.admin.revoke(ring, kid))
    answer(json, done, f"what {done['revoked']} has signed is worth nothing any more; {done['signing']} signs")
