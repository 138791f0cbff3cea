"""The composition root: reads configuration, builds adapters, starts edges; nothing else does.

Its modules: ``settings`` (pure), ``wiring`` (adapters), ``serving`` and ``runs`` (edges), ``up`` (in the foreground),
``embedded`` (a broker on demand).
"""
