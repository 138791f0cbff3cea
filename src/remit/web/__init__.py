"""The web: listeners, TLS, who speaks, strict reading, problems."""
