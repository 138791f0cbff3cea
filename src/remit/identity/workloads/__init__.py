"""Workloads, by SVIDs, WITs and the OIDC tokens of platforms, each verified by its own trust domain or issuer."""
