"""Ended sessions, in both directions: security events of issuers (SSF, CAEP, logout), and ours for others."""
