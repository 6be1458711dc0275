"""Moments as they are written in stanzas and shown to programs (XEP-0082)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal


def utc_stamp(at: float, *, to: Literal["seconds", "milliseconds"] = "seconds") -> str:
    """Seconds since the epoch as XEP-0082 has them, in UTC (`2026-11-30T13:00:00Z`): what is less than a
    second, or a millisecond, is cut off. ValueError outside of the years 1 to 9999.
    """
    try:
        moment = datetime.fromtimestamp(at, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(f"no date: {error}") from None
    return moment.isoformat(timespec=to).replace("+00:00", "Z")
