"""SPIFFE: SVIDs of the broker's own trust domain as leases, and the Workload API in every run."""
