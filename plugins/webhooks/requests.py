"""One request to a receiver, and what it may say about when it wants the next."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from xmppd.plugin import HttpAnswer, HttpClient

from .signing import live, signature
from .subscription import Subscription
from .window import Batch, payload

LONGEST_PAUSE: Final = 3600.0


async def post(
    client: HttpClient, subscription: Subscription, batch: Batch, now: float, version: str
) -> HttpAnswer:
    """Send events, signed; HttpFailed."""
    delivery, timestamp = secrets.token_hex(16), str(int(now))
    body = payload(subscription.name, delivery, now, batch)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"xmppd/{version}",
        "Xmppd-Delivery": delivery,
        "Xmppd-Timestamp": timestamp,
        "Xmppd-Signature": signature(live(subscription.keys, now), timestamp, delivery, body),
    }
    return await client.post(subscription.url, body, headers)


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """Seconds that a receiver asks for (RFC 9110 10.2.3), an hour at most; 0.0 where it says none."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(LONGEST_PAUSE, float(text[:9]))
    try:
        moment: Any = parsedate_to_datetime(text)
        return min(LONGEST_PAUSE, max(0.0, moment.timestamp() - now))
    except (ValueError, TypeError, OverflowError):
        return 0.0
