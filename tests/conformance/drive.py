"""What the suite starts as a client: it hands on what it was told, and ends as it is told. `drive.py PORT URL`."""

from __future__ import annotations

import http.client
import json
import os
import sys

told = {name.lower(): os.environ.get(f"MCP_CONFORMANCE_{name}") for name in ("SCENARIO", "PROTOCOL_VERSION", "CONTEXT")}
web = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=90)
web.request("POST", "/", json.dumps({**told, "url": sys.argv[2]}))
answer = web.getresponse()
sys.stdout.write(answer.read().decode())
sys.exit(0 if answer.status == http.client.OK else 1)
