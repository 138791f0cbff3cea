"""The SPIFFE Workload API for runs: each listener answers for one grant."""
