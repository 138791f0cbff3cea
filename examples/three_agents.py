"""Sub-agents inside one process: ``remit run -r notes --depth 1 --fan-out 3 -- python examples/three_agents.py``.

Each gets a grant of its own, narrower than the run's, and nobody registered any of them. That separates them against a
fooled model; against code they need a run of their own.
"""

from __future__ import annotations

import httpx

import remit

WISHES = {"reader": ["/v1/today"], "planner": ["/v1/secret-plans"], "nosy": ["/v1/today"]}


def main() -> None:
    """Let three sub-agents ask for the same two notes."""
    own = remit.current()
    for name, paths in WISHES.items():
        with own.delegate(name, grants=[remit.detail("notes", paths=paths)], ttl="1m") as sub:
            for path in ("/v1/today", "/v1/secret-plans"):
                answer = httpx.get(sub.url("notes") + path)  # the URL names the grant
                print(name, path, answer.status_code, answer.json().get("note") or answer.json().get("detail"))


if __name__ == "__main__":
    main()
