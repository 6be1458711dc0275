"""An in-memory server for tests: our own, and those of plugin authors.

    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send("<message to='bob@localhost' type='chat'><body>hi</body></message>")
        await bob.expect("<message type='chat' ...><body>hi</body></message>")

Everything is real (streams, SASL, router, SQLite in memory) but sockets and time: connections are joined in
memory, and time stands still until `world.advance(seconds)`.
"""

from __future__ import annotations

from xmppd.testing.client import (
    PASSWORD,
    START,
    STREAM_HEADER,
    Client,
    Clock,
    MemoryTransport,
    canonical,
    refusal,
)
from xmppd.testing.nodes import MemoryTrunk
from xmppd.testing.world import World

__all__ = [
    "PASSWORD",
    "START",
    "STREAM_HEADER",
    "Client",
    "Clock",
    "MemoryTransport",
    "MemoryTrunk",
    "World",
    "canonical",
    "refusal",
]
