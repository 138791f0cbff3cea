"""Measurements against the peers, side by side in one run: ``make bench``, ``make bench ONLY=gateway_cpu_32``."""
