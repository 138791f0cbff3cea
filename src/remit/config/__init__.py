"""The configuration file: its sections as Structs, one loader, refusals that name file, line and what was meant."""
