"""The composition root: reads configuration, builds adapters, starts edges; nothing else does."""

from remit.compose.embedded import ensure
from remit.compose.settings import Places, Settings, load, places

__all__ = ["Places", "Settings", "ensure", "load", "places", "up"]


def up(settings: Settings) -> int:
    """Serve a state in the foreground; return the exit code."""
    from remit.compose import foreground  # commands that serve nothing start faster without

    return foreground.up(settings)
