"""The command line: parse, call, render. One file a noun; no logic."""

from remit.cli.entry import main as main
