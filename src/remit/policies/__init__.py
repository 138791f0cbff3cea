"""Policies written down, behind the question of ``core.policy``."""
