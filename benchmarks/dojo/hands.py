"""The process of an agent, with nothing but the standard library: it does what its model says, whatever that is.

The model is elsewhere, as models are: an order is a line of JSON on standard input, what came of it a line on standard
output. The URL and the key of a toolkit are those of a run (``REMIT_URL_<KIT>``, ``REMIT_KEY_<KIT>``), else the usual
ones (``<KIT>_BASE_URL``, ``<KIT>_API_KEY``); with ``VAULT_URL`` it asks there for the key at each use.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

WAIT = 30.0  # seconds for an answer
HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2025-11-25",
}
_KEPT: dict[str, http.client.HTTPConnection] = {}

Json = dict[str, object]


def _of(kit: str, run: str, usual: str) -> str:
    label = kit.replace("-", "_").upper()
    return os.environ.get(f"{run}_{label}") or os.environ.get(f"{label}_{usual}", "")


def url(kit: str) -> str:
    """Return the URL of a toolkit's server; where there is none, what it would be at the gateway."""
    return _of(kit, "REMIT_URL", "BASE_URL") or f"{os.environ.get('REMIT_GATEWAY', 'http://127.0.0.1:1')}/{kit}"


def key(kit: str) -> str:
    """Return what this process has for a toolkit's key: its own, a placeholder, or what the vault says."""
    vault = os.environ.get("VAULT_URL")
    if vault is None:
        return _of(kit, "REMIT_KEY", "API_KEY")
    asked = urllib.request.Request(f"{vault}/{kit}", headers={"X-Vault-Token": os.environ["VAULT_TOKEN"]})  # noqa: S310
    with urllib.request.urlopen(asked, timeout=WAIT) as answer:  # noqa: S310 - the model says
        return str(answer.read().decode())


def post(to: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
    """Post; return the status and the text of the answer. A connection is kept for each host."""
    at = urlsplit(to)
    for _ in range(2):  # the other side may have closed it meanwhile
        connection = _KEPT.pop(at.netloc, None) or http.client.HTTPConnection(at.hostname or "", at.port, timeout=WAIT)
        try:
            connection.request("POST", at.path, body, dict(headers))
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except (http.client.HTTPException, OSError):
            connection.close()
            continue
        _KEPT[at.netloc] = connection
        return answer.status, text
    return 0, "no answer"


def call(kit: str, tool: str, arguments: Mapping[str, object]) -> Json:
    """Call a tool of a toolkit's MCP server."""
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    headers = {**HEADERS, "Authorization": f"Bearer {key(kit)}"}
    begun = time.perf_counter()
    status, text = post(url(kit), json.dumps(asked).encode(), headers)
    return {"status": status, "text": said(text), "seconds": time.perf_counter() - begun}


def said(text: str) -> str:
    """Return what a tool says, in JSON or in an event stream; all of an answer that is neither."""
    lines = [line.removeprefix("data:") for line in text.splitlines() if line.startswith("data:")] or [text]
    for line in lines:
        try:
            result = json.loads(line)["result"]
            return "\n".join(item["text"] for item in result["content"])
        except (ValueError, KeyError, TypeError):
            continue
    return text


def main() -> None:
    """Obey, line by line."""
    for line in sys.stdin:
        order = json.loads(line)
        match order["do"]:
            case "call":
                told = call(order["kit"], order["tool"], order["arguments"])
            case goal:
                from thief import collect  # type: ignore[import-not-found]  # lies beside this file

                told = {"text": collect(goal, order)}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
