"""The server for `instructions`: below callgrind it is fifty times slower than in life, and its clocks tell.

Slices of time would end after every stanza, and who causes work would rest for long. So the clocks that pace
work go on by LOOK each time somebody looks at them, as they do in life on average, whatever the machine does.
"""

import asyncio  # with what it imports: that has the clocks of the system
import itertools
import runpy
import sys
import time

LOOK = 3e-6
"""Seconds."""
SLOWNESS = 50
"""Of a server below callgrind."""

if asyncio:
    time.monotonic = time.perf_counter = itertools.count(0.0, LOOK).__next__
    sys.setswitchinterval(SLOWNESS * sys.getswitchinterval())
    sys.argv = ["xmppd", "serve"]
    runpy.run_module("xmppd", run_name="__main__", alter_sys=True)
