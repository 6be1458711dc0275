"""How often somebody may ask who has a name: counted in the store, so that it is the same on all nodes."""

from __future__ import annotations

import math
import secrets
from typing import Final

from xmppd.plugin import Element, StanzaError, Table, element

RETRY: Final = "{urn:xmppd:moderation:0}retry"
ATTEMPTS: Final = 8


def too_often(seconds: float, text: str) -> StanzaError:
    """What tells a client to wait so long."""
    return StanzaError("policy-violation", text, type="wait", detail=hint(seconds))


def hint(seconds: float) -> Element:
    """How long to wait."""
    return element(RETRY, {"seconds": str(max(1, math.ceil(seconds)))})


async def spend(table: Table, who: str, most: int, seconds: float, now: float) -> float:
    """Count one more of somebody's in the time that it is; 0, or in how many seconds he may again. The table
    has a row for each by one column, with `window`, `count` and `mark`.
    """
    window = int(now // seconds)
    for _ in range(ATTEMPTS):
        row = await table.get(who)
        count = row["count"] if row is not None and row["window"] == window else 0
        if count >= most:
            break
        spent = {
            table.declaration.partition[0]: who,
            "window": window,
            "count": count + 1,
            "mark": secrets.randbits(62),
        }
        expect = None if row is None else {"mark": row["mark"]}
        if await table.put_if(spent, expect, ttl=2 * seconds + 60):
            return 0.0
    return (window + 1) * seconds - now
