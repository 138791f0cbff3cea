"""Verifying who somebody is: humans by their issuers, workloads by what attests them."""
