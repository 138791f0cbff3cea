"""The demo: one task on real servers, once with keys in the environment and once under remit."""
