"""The composition root: builds adapters from the configuration and starts edges; nothing else does.

Its modules: ``wiring`` (adapters), ``serving`` (edges), ``up`` (in the foreground), ``embedded`` (a broker
on demand), ``doctor`` and ``probe`` (what can be wrong).
"""
