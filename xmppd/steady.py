"""A clock that nobody sets, and that goes on while the machine sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

steady: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Seconds since some moment. `time.monotonic` of Linux does not count those in which the machine was
suspended: what others may have done meanwhile is judged by this one.
"""
