"""seed DATADIR PORT DOMAIN N RINGS: accounts and rosters for a benchmark; RINGS is first:count:contacts,...

Makes the accounts user0..userN-1 with the password `secret`, and for each ring rosters in which user i knows
the users i±1 .. i±contacts/2 of the ring, subscribed both ways. With `first:count:contacts:away` each knows
others whom nobody else knows and who have no accounts. The server must not run; PORT is not used. What stands
in DATADIR/engines.yaml is added to the configuration: it may name another store.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import yaml

from xmppd.config import made_of
from xmppd.core.accounts import ACCOUNT, TABLES, derive
from xmppd.core.roster.item import ROSTER, RosterItem, row_of
from xmppd.engines import store_of
from xmppd.store.table import Put, Store

ITERATIONS = 4096
SALT = b"one-salt-for-all"
GROUP = "**Default"
IN_FLIGHT = 500
AWAY = ":away"


def accounts(store: Store, domain: str, count: int) -> Iterator[Awaitable[object]]:
    """One write for each account. All share one salt, so that their keys are derived once."""
    keys = derive("secret", SALT, ITERATIONS)
    for number in range(count):
        row = {"account": f"user{number}@{domain}", "created": time.time(), "disabled": False, **keys}
        yield store.put(ACCOUNT, row)


def rosters(store: Store, domain: str, ring: str) -> Iterator[Awaitable[object]]:
    """One batch for each account of a ring `first:count:contacts` or `first:count:contacts:away`."""
    first, count, contacts = map(int, ring.removesuffix(AWAY).split(":"))
    near = range(1, contacts // 2 + 1)
    for number in range(count):
        if ring.endswith(AWAY):
            names = [f"friend{n}-of-user{first + number}" for n in range(contacts)]
        else:
            ring_mates = [(number + step) % count for distance in near for step in (distance, -distance)]
            names = [f"user{first + mate}" for mate in ring_mates]
        items = [
            RosterItem(f"{name}@{domain}", subscription="both", name=f"Summoner {name[4:]}", groups=(GROUP,))
            for name in names
        ]
        puts = [Put(row_of(item)) for item in items]
        yield store.batch(ROSTER, (f"user{first + number}@{domain}",), puts, static={"version": 1})


async def write(writes: Iterable[Awaitable[object]]) -> None:
    """Await all writes, some hundred at a time, so that the store commits them in groups."""
    waiting = iter(writes)
    while chunk := list(islice(waiting, IN_FLIGHT)):
        await asyncio.gather(*chunk)


async def seed(data: Path, domain: str, count: int, rings: str) -> None:
    """Write everything into the store that `scripts/bench/start` uses for this folder."""
    engines = data / "engines.yaml"
    chosen = yaml.safe_load(engines.read_text()) or {} if engines.exists() else {}
    store = store_of(made_of({"server": {"data_folder": str(data)}, **chosen}))
    await store.open([*TABLES, ROSTER])
    try:
        await write(accounts(store, domain, count))
        for ring in filter(None, rings.split(",")):
            await write(rosters(store, domain, ring))
    finally:
        await store.close()


def main() -> None:
    """The command line."""
    if len(sys.argv) != 6:
        raise SystemExit(__doc__)
    data = Path(sys.argv[1])
    data.mkdir(parents=True, exist_ok=True)
    asyncio.run(seed(data, sys.argv[3], int(sys.argv[4]), sys.argv[5]))


if __name__ == "__main__":
    main()
