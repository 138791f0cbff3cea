"""What the garbage collector looks through in the process that decides, and how often: in a process of its own."""

from __future__ import annotations

import subprocess
import sys

SCENE = """
import gc, weakref
from remit.compose.planes import DAY, _once_a_day

class Circle:
    def __init__(self):
        self.me = self

now = [0.0]
gc.collect()
gc.callbacks.append(_once_a_day(lambda: now[0]))
kept = [{} for _ in range(50_000)]
old = Circle()
gc.collect()
assert gc.get_freeze_count() > 50_000
assert len(gc.get_objects()) < 50_000

fresh, seen = Circle(), weakref.ref(old)
new = weakref.ref(fresh)
del old, fresh
gc.collect(1)
gc.collect()
assert new() is None
assert seen() is not None  # it was there when others were looked for

now[0] = DAY + 1.0
gc.collect()
assert seen() is None
assert gc.get_freeze_count() > 50_000
"""


def test_what_lives_long_is_looked_through_once_a_day() -> None:
    done = subprocess.run([sys.executable, "-c", SCENE], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
