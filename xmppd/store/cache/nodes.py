"""The list of nodes in Redis: the port `NodeList` of `xmppd.cluster.registry`.

Two keys behind `cache.prefix`, which may vanish at any time: the hash `nodes` (name -> JSON with the
incarnation as 16 hexadecimal digits, the time of the last beat by Redis' own clock, and the rest of the
entry), and `secret`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from xmppd.cluster.registry import FRESH_SECONDS, KEPT_SECONDS, Entry, Listing
from xmppd.errors import NodesUnavailable
from xmppd.store.cache import scripts
from xmppd.store.cache.link import Link, LinkDown

MOST_NODES: Final = 1000
"""Entries that are looked at."""

_Text = Annotated[str, Meta(max_length=300)]


class _Stored(msgspec.Struct, frozen=True):
    """An entry as it is in Redis; a later version may write more."""

    beat: float
    incarnation: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
    addresses: Annotated[tuple[_Text, ...], Meta(max_length=8)] = ()
    state: _Text = ""
    version: _Text = ""
    protocols: tuple[int, int] = (1, 1)


_DECODER: Final = msgspec.json.Decoder(_Stored)


class RedisNodes:
    """The list, by way of the link that the cache has. Nothing raises because of Redis but
    NodesUnavailable.
    """

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._nodes = f"{prefix}:nodes"
        self._secret = f"{prefix}:secret"

    async def beat(self, own: Entry, secret: bytes, *, is_first: bool) -> Listing:
        """Write this node's entry, and read all."""
        incarnation = f"{own.incarnation:016x}"
        text = json.dumps(
            {
                "incarnation": incarnation,
                "addresses": own.addresses,
                "state": own.state,
                "version": own.version,
                "protocols": own.protocols,
            }
        )
        beaten = (
            own.name,
            incarnation,
            text,
            int(is_first),
            int(FRESH_SECONDS * 1000),
            int(KEPT_SECONDS * 1000),
        )
        try:
            beating = self._link.run(scripts.BEAT, [self._nodes], *beaten)
            sharing = self._link.run(scripts.SHARE, [self._secret], secret) if secret else None
            now, state, others = await beating
            there = (await sharing) if sharing is not None else None
        except LinkDown:
            raise NodesUnavailable("Redis cannot be asked") from None
        if state == scripts.FULL:
            raise NodesUnavailable("Redis is full")
        found = dict(zip(others[: 2 * MOST_NODES : 2], others[1 : 2 * MOST_NODES : 2], strict=True))
        return Listing(state == scripts.TAKEN, _entries(found, now), there or b"")

    async def leave(self, own: Entry) -> None:
        """Take this node's entry away."""
        try:
            await self._link.run(scripts.LEAVE, [self._nodes], own.name, f"{own.incarnation:016x}")
        except LinkDown:
            raise NodesUnavailable("Redis cannot be asked") from None


def _entries(found: Mapping[bytes, bytes], now: int) -> list[Entry]:
    """The entries that can be read, by name."""
    entries = []
    for name, text in sorted(found.items()):
        try:
            stored = _DECODER.decode(text)
            known = name.decode()
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # of a version that nobody knows here
        entries.append(
            Entry(
                known,
                int(stored.incarnation, 16),
                stored.addresses,
                stored.state,
                stored.version,
                stored.protocols,
                abs(now - stored.beat) / 1000,
            )
        )
    return entries
