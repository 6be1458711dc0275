"""Clients that read slowly."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from xmppd.testing import Client

LIMITS: Mapping[str, int] = {"write_buffer_soft": 20_000, "write_buffer_hard": 60_000}


async def read_a_little(client: Client, turns: int = 60) -> None:
    """Take what is there, and let the server go on until the client is clogged again."""
    client.transport.stalled = False
    held = bytes(client.transport.held)
    client.transport.held.clear()
    client._receive(held)
    client.transport.stalled = True
    client._wire.resume_writing()
    for _ in range(turns):
        await asyncio.sleep(0)
    assert len(client.transport.held) < LIMITS["write_buffer_hard"]


async def read_slowly(client: Client) -> list[str]:
    """All that comes to a client that takes a little at a time; from whom, with the type."""
    while client.transport.held:
        await read_a_little(client, 30)
    received = await client.receive_all()
    return [f"{s.get('from')} {s.get('type') or ''}".strip() for s in received]
