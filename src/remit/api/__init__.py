"""The control plane: OAuth endpoints, ``/v1`` and problems, on unix sockets and on loopback TCP."""

from remit.api.app import build
from remit.api.listen import Listener, serve
from remit.api.proven import Keys, Verifier
from remit.api.routes import Surface
from remit.api.who import Peer, Web

__all__ = ["Keys", "Listener", "Peer", "Surface", "Verifier", "Web", "build", "serve"]
