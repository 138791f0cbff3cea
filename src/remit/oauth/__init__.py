"""The authorization server: tokens for grants, and the flows in which a human decides."""
