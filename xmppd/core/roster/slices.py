"""Rows of a long roster looked at a few at a time, so that others have their turn meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

from xmppd.store.table import Row

_FEW = 32
_SLICE_SECONDS = 0.002
"""How many rows are looked at before the time is, and how long others wait for that."""


async def in_slices(rows: Sequence[Row]) -> AsyncGenerator[Sequence[Row], None]:
    """The rows, some at a time; others have their turn whenever that took long."""
    since = time.perf_counter()
    for start in range(0, len(rows), _FEW):
        if time.perf_counter() - since > _SLICE_SECONDS:
            await asyncio.sleep(0)
            since = time.perf_counter()
        yield rows[start : start + _FEW]
