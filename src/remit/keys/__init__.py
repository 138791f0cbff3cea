"""Custody of keys: what seals, what signs, and the second place for checkpoints."""
