"""Processes: one that forks the others anew, and the confinement of those that read what others send."""
