"""Runs a program, and once more without the variables that are named; then waits, so that it can be looked at."""

import os
import runpy
import sys

program, *variables = sys.argv[1:]
first = runpy.run_path(program)
for name in variables:
    del os.environ[name]
second = runpy.run_path(program) if variables else {}
print("done", flush=True)
sys.stdin.read()
