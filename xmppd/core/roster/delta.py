"""What a client that knows an older version of its roster is sent instead of the whole (RFC 6121 2.6.3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from xmppd.core.roster.change import push_of, seen
from xmppd.core.roster.log import LogEntry

MAX_CHANGES = 50
"""How many changes a client may lag behind and still be told of them one by one."""

_DIGITS = 16
"""The longest version that the log can hold."""

PUSH_BYTES = 80
"""About what a push costs beside its payload."""


def lag(asked: str, version: int) -> int | None:
    """The version that a client asked with, if it may be an older one of ours; None for all others."""
    if not (asked.isascii() and asked.isdecimal() and len(asked) <= _DIGITS):
        return None
    since = int(asked)
    return since if since < version and str(since) == asked else None


def deltas(entries: Sequence[LogEntry], since: int, version: int) -> list[bytes] | None:
    """The payloads of the pushes that lead a client from `since` to `version` or beyond; None when the
    entries do not prove that they are all that happened.

    Each brings an item as it is after its last change that can be seen, and the version of that change. So
    who gets a part of them may ask from there: whatever changed later is told again, also what came and went
    or is as it was, for nobody knows what the client has seen of it.
    """
    if not entries or len(entries) > MAX_CHANGES or not all(entry.is_whole for entry in entries):
        return None
    is_chain = entries[0].before == since and all(a.version == b.before for a, b in pairwise(entries))
    if not is_chain or entries[-1].version < version:
        return None
    last = {entry.contact: entry for entry in entries if seen(entry.old) != seen(entry.new)}
    changes = sorted(last.values(), key=lambda entry: entry.version)
    return [push_of(entry.contact, entry.new, entry.version) for entry in changes]


def cost(pushes: Sequence[bytes]) -> int:
    """About how many bytes of pushes a client is sent."""
    return sum(map(len, pushes)) + PUSH_BYTES * len(pushes)
