"""An agent in a run that speaks to an MCP server over HTTP: lines say what to send, and lines what was heard."""

from __future__ import annotations

import http.client
import json
import os
import sys
from typing import Any
from urllib.parse import urlsplit


class Session:
    """One session of a client."""

    def __init__(self, url: str) -> None:
        self.at, self.id = urlsplit(url), ""

    def send(self, method: str, message: Any = None, session: str | None = None) -> dict[str, Any]:
        """Send a request of HTTP; return its status, and the messages that came."""
        web = http.client.HTTPConnection(self.at.netloc, timeout=60)
        headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
        session = self.id if session is None else session
        headers |= {"Mcp-Session-Id": session} if session else {}
        web.request(method, self.at.path, None if message is None else json.dumps(message), headers)
        answer = web.getresponse()
        self.id = answer.headers.get("Mcp-Session-Id", self.id)
        body = answer.read().decode()
        lines = [line[6:] for line in body.splitlines() if line.startswith("data: ")]
        if answer.headers.get_content_type() == "application/json":
            lines = [body]
        return {"status": answer.status, "session": self.id, "heard": [json.loads(line) for line in lines if line]}


def main() -> None:
    sessions: dict[str, Session] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        name, method = asked.get("as", ""), asked.get("method", "POST")
        url = asked.get("url") or os.environ[sys.argv[1]]
        session = sessions.setdefault(name, Session(url))
        sys.stdout.write(json.dumps(session.send(method, asked.get("say"), asked.get("session"))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
