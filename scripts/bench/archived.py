"""`kill --archived`: SIGKILL under archived load, of a server or of one of two nodes, and managed clients."""

import asyncio
import random
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

from backend import Backend
from nodes import PORTS, Node, Site
from phones import Phone
from verdicts import Kill, about, judge, looked_up, missing, settled
from victim import PASSWORD, Server

PHONES = 8
SPARES = 5
STORED_SECONDS = 40.0
"""In which all that was acknowledged has come, once nothing is killed any more."""
LONG = 6
"""One life of so many is long enough for what is old to be acknowledged."""
STOPPED = 3
"""Before one kill of so many a node is stopped, and leaves its sessions to others."""
NOTICED_SECONDS = 8.0
"""After which nodes know that another one was killed."""
STOP_SECONDS = 30.0
TOLD, EXCUSED = 40, 10
"""Of so many messages with which something is wrong, or was excused, it is told what became of them."""


Command = Callable[..., Awaitable[Any]]
"""Has a server run one."""


class Victim(Protocol):
    """A server that is killed and started again."""

    port: int
    is_open: bool

    def kill(self) -> None: ...

    def close(self) -> None: ...

    async def start(self) -> float: ...


class Alone(Server):
    """The only one."""

    is_open = False

    async def start(self) -> float:
        """How many seconds it took."""
        took = await super().start()
        self.is_open = True
        return took

    def kill(self) -> None:
        """SIGKILL."""
        self.is_open = False
        super().kill()

    def close(self) -> None:
        """As an operator does it."""
        self.stop()


def nodes_of(backend: Backend, port: int, count: int) -> list[Node]:
    """So many nodes that know each other, and some to take the place of one that is killed: its name is free
    10 s after its last beat.
    """
    count += SPARES
    host, _, number = backend.points[0].rpartition(":")
    redis, _, rest = backend.redis.removeprefix("redis://").partition("/")[0].rpartition(":")
    site = Site(backend.redis, (redis, int(rest)), (host, int(number)), is_relayed=False)
    firsts = [port + PORTS * index for index in range(count)]
    names = [site.name(first) for first in firsts]
    nodes = [Node(i, first, backend.folder / f"node{i}", names, site) for i, first in enumerate(firsts)]
    chosen = {
        "engine": "cassandra",
        "cassandra": {
            "contact_points": backend.points,
            "keyspace": backend.keyspace,
            "local_dc": "datacenter1",
            "replication": {"datacenter1": 1},
        },
    }
    for node in nodes:
        node.configure(chosen, backend.keyspace, plugins=("ping", "offline", "archive"))
    return nodes


async def run(victims: Sequence[Victim], command: Command, **how: Any) -> int:
    """See `work`. Servers end before the loop that their relays are in."""
    try:
        return await work(victims, command, **how)
    finally:
        for victim in victims:
            victim.close()


async def work(
    victims: Sequence[Victim],
    command: Command,
    *,
    count: int,
    kills: int,
    seed: int,
    within: float,
    rate: float,
) -> int:
    """All of it with `count` of the servers at once, most kills `within` so many seconds, some after ten
    times as many; the exit status.
    """
    chance = random.Random(seed)
    running, spare = [*victims[:count]], deque(victims[count:])
    starts = [await victim.start() for victim in running]
    names = [f"phone{number}" for number in range(PHONES)]
    for name in names:
        await command("user add", account=f"{name}@localhost", password=PASSWORD)
    phones = [
        Phone(
            name,
            victims,
            random.Random(f"{seed}/{name}"),
            asks=number % 2 == 1,
            resource="phone" if number % 4 < 2 else "",
        )
        for number, name in enumerate(names)
    ]
    is_over = asyncio.Event()
    for phone in phones:
        phone.others = [other for other in phones if other is not phone]
        phone.pause = PHONES / rate
        phone.noticed = NOTICED_SECONDS if count > 1 else 0.0
    living = [asyncio.create_task(phone.live(is_over)) for phone in phones]
    began, killed = time.monotonic(), list[tuple[float, int]]()
    for number in range(kills):
        longer = 10 if number % LONG == LONG - 1 else 1
        await asyncio.sleep(within * longer * (0.2 + 0.8 * chance.random()))
        if count > 1 and number % STOPPED == STOPPED - 1:
            await stopped(running, spare, chance.randrange(count), phones)
            await asyncio.sleep(chance.uniform(0, 1))
        index = chance.randrange(count)
        victim = running[index]
        victim.kill()
        killed.append((time.monotonic(), victim.port))
        for phone in phones:
            phone.hit(victim)
        spare.append(victim)
        if count > 1:
            await asyncio.sleep(chance.uniform(0.2, 2))
        running[index] = spare.popleft()
        starts.append(await running[index].start())
    is_over.set()
    await settled(phones, STORED_SECONDS)
    for life in living:
        life.cancel()
    await asyncio.gather(*living, return_exceptions=True)
    seconds, lost = time.monotonic() - began, missing(phones)
    for text, came in (await looked_up(phones, lost)).items() if lost else ():
        print(f"{text}: now {[(one.how, one.id) for one in came] or 'nowhere'}")
    known = [Kill(at, port, noticed(victims, at, port)) for at, port in killed]
    return report(phones, known, began, seed, starts, seconds)


def noticed(victims: Sequence[Victim], at: float, port: int) -> dict[int, float]:
    """When by the logs of other nodes one that was killed was lost to them, by their ports."""
    nodes = [victim for victim in victims if isinstance(victim, Node)]
    names = [node.name for node in nodes if node.port == port]
    found: dict[int, float] = {}
    since = time.time() - time.monotonic()
    for node in nodes:
        for line in node.log():
            if line["event"] == "node-lost" and line["node"] in names:
                when = datetime.fromisoformat(line["ts"]).timestamp() - since
                if when >= at:
                    found.setdefault(node.port, when)
    return found


async def stopped(running: list[Any], spare: deque[Any], index: int, phones: Sequence[Phone]) -> None:
    """Another node begins, and one stops in peace."""
    victim, running[index] = running[index], spare.popleft()
    await running[index].start()
    for phone in phones:
        phone.left(victim)
    victim.is_open = False
    victim.signal(signal.SIGTERM)
    assert await victim.ended(STOP_SECONDS), "it does not stop"
    spare.append(victim)


def report(
    phones: Sequence[Phone],
    kills: Sequence[Kill],
    began: float,
    seed: int,
    starts: Sequence[float],
    seconds: float,
) -> int:
    """Print it; the exit status."""
    verdict = judge(phones, kills)
    wrong = [f"{what}: {text}" if text else what for text, what in verdict.wrong]
    for some, most in ((verdict.wrong, TOLD), (verdict.excused, EXCUSED)):
        for text in [*dict.fromkeys(text for text, _ in some if text)][:most]:
            print("\n".join(about(text, phones, kills, began)))
    print(f"{len(kills)} kills in {seconds:.0f} s, seed {seed}; restart at most {max(starts):.1f} s")
    print(f"acknowledged: {sum(len(phone.acked) for phone in phones)}, lost: {len(missing(phones))}")
    for title, asks in (("without an archive", False), ("that ask their archive", True)):
        counts: dict[str, int] = {}
        for phone in phones:
            for what, count in phone.counts.items() if phone.asks_archive is asks else ():
                counts[what] = counts.get(what, 0) + count
        print(f"clients {title}: " + ", ".join(f"{what} {count}" for what, count in sorted(counts.items())))
    print("excused: " + (", ".join(f"{why} {count}" for why, count in verdict.counts.items()) or "nothing"))
    ended = sum(phone.counts["not to be resumed"] + phone.counts["forgot its id"] for phone in phones)
    if ended < len(kills):
        wrong.append("hardly any session was killed")
    said = ["FAILED:", *wrong[:TOLD]] if wrong else ["passed: nothing acknowledged is lost, or twice"]
    print("\n".join(said))
    return 1 if wrong else 0
