"""A small service that insists on a static key: ``python examples/upstream.py PORT KEY``. For trying remit out."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NOTES = {"/v1/today": "water the plants", "/v1/secret-plans": "take over the garden"}


def main(port: int, key: str) -> None:
    """Serve until interrupted."""

    class Notes(BaseHTTPRequestHandler):
        """Answers those who show the key."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Answer with a note."""
            if self.headers.get("Authorization") != f"Bearer {key}":
                self._answer(401, {"error": "wrong key"})
            elif self.path in NOTES:
                self._answer(200, {"note": NOTES[self.path]})
            else:
                self._answer(404, {"error": "no such note"})

        def _answer(self, status: int, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    ThreadingHTTPServer(("127.0.0.1", port), Notes).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
