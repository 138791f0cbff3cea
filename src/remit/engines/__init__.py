"""Adapters that issue leases, one kind of target each."""
