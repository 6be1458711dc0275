"""Moments as operators write them."""

from __future__ import annotations

from datetime import UTC, datetime

from xmppd.admin.commands import USAGE
from xmppd.errors import CommandError


def moment(text: str) -> float:
    """Seconds since the epoch of a date, or of date and time (UTC unless said otherwise); CommandError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(f"{text} is no date such as 2026-11-28 or 2026-11-28T20:00:00Z", USAGE) from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
