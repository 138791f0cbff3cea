"""The control plane: OAuth endpoints, ``/v1`` and problems, on unix sockets and on loopback TCP."""

from remit.api.app import Surface, build
from remit.api.listen import Listener, serve
from remit.api.proven import Keys, Verifier
from remit.api.who import Peer, Web

__all__ = ["Keys", "Listener", "Peer", "Surface", "Verifier", "Web", "build", "serve"]
