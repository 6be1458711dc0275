"""What a client with some contacts is sent in an hour, active and inactive (XEP-0352): by a server in memory,
from contacts who change their presence, type, and write now and then. See `client-state`.
"""

from __future__ import annotations

import argparse
import asyncio
import random

from xmppd import ns
from xmppd.testing import Client, World

MINUTES = 60
INACTIVE = f"<inactive xmlns='{ns.CSI}'/>"
TYPING = "<message to='alice@localhost' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>"
CHANGES = 6
"""How often a contact changes its presence in an hour."""


async def hour(contacts: int, messages: int, *, is_inactive: bool) -> tuple[int, int, int]:
    """Bytes, stanzas, and in how many seconds anything came: so often the radio is woken."""
    names = [f"user{number}" for number in range(contacts)]
    async with World(accounts=("alice", *names), settings={"sessions": {"ping_after": 0}}) as world:
        alice = await world.login("alice")
        others: list[Client] = []
        for name in names:
            other = await world.login(name)
            others.append(other)
            await world.befriend(alice, other)
        if is_inactive:
            await alice.send(INACTIVE)
        await alice.receive_all()
        start, wakes, stanzas, dice = len(alice.raw), 0, 0, random.Random(1)
        moments = [
            *((dice.uniform(0, MINUTES), "presence") for _ in range(CHANGES * contacts)),
            *((dice.uniform(0, MINUTES), "message") for _ in range(messages)),
        ]
        second = -1
        for minute, what in sorted(moments):
            before, sender = len(alice.raw), dice.choice(others)
            if what == "presence":
                show = dice.choice(["away", "xa", "dnd", "chat"])
                await sender.send(f"<presence><show>{show}</show><status>{minute:.3f}</status></presence>")
            else:
                await sender.send(TYPING)
                await sender.send(
                    "<message to='alice@localhost' type='chat'><body>hello there</body></message>"
                )
            if len(alice.raw) > before and int(minute * 60) != second:
                second, wakes = int(minute * 60), wakes + 1
            stanzas += len(await alice.receive_all())
        return len(alice.raw) - start, stanzas, wakes


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contacts", type=int, default=100)
    parser.add_argument("--messages", type=int, default=20)
    given = parser.parse_args()
    print(f"{'':10}{'bytes':>10}{'stanzas':>10}{'wakes':>10}")
    for name, is_inactive in (("active", False), ("inactive", True)):
        size, stanzas, wakes = await hour(given.contacts, given.messages, is_inactive=is_inactive)
        print(f"{name:10}{size:10}{stanzas:10}{wakes:10}")


asyncio.run(main())
