"""The pure middle of remit: values in, values out. No I/O, clock, randomness, logging or async."""
