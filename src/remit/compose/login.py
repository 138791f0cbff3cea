"""What `remit login` has to know, picked from ``[[humans]]``: each issuer that has a public client for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def native(parts: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    """Return issuer, client, scopes and the name of the groups claim of every issuer; nothing of it is secret.

    A client with a secret is not one that a terminal can be. ``compose.humans`` has validated the table.
    """
    table = parts.get("humans", [])
    rows = [row for row in table if isinstance(row, Mapping)] if isinstance(table, list) else []
    return tuple(_public(row) for row in rows if "client_secret_file" not in row and "issuer" in row)


def _public(row: Mapping[str, object]) -> Mapping[str, object]:
    names = ("issuer", "client_id", "scopes", "groups_claim", "name")
    return {name: row[name] for name in names if name in row}
