"""What requests for friendship, and their acceptance, cost: milliseconds of processor time of the whole
process for each, from the client's iq to its answer. Clients write all that they have at once; the server
does one after the other for each. With `--cassandra HOST:PORT` the store is that one, whose own time is not
counted.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import sys
import tempfile
import time
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

import uvloop  # noqa: E402
from seed import accounts, write  # noqa: E402

from xmppd import ns  # noqa: E402
from xmppd.store.sqlite.store import SqliteStore  # noqa: E402
from xmppd.store.table import Store  # noqa: E402
from xmppd.testing import Client, World  # noqa: E402

NS = "urn:xmppd:friends:0"
HEADER = f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' to='localhost' version='1.0'>"


def store_of(cassandra: str, folder: str) -> Store:
    """A new one."""
    if not cassandra:
        return SqliteStore(Path(folder) / "bench.sqlite")
    from xmppd.store.cassandra.store import CassandraOptions, CassandraStore  # noqa: PLC0415

    host, _, port = cassandra.rpartition(":")
    keyspace = f"bench_{uuid.uuid4().hex[:12]}"
    return CassandraStore(CassandraOptions(contact_points=((host, int(port)),), keyspace=keyspace))


class Player:
    """A client that is logged in."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._heard: asyncio.Queue[bytes] = asyncio.Queue()
        client.transport.receive = self._heard.put_nowait
        self._resume = client.transport.resume_reading
        client.transport.resume_reading = self._go_on  # type: ignore[method-assign]

    def _go_on(self) -> None:
        """The server reads again: what was written meanwhile goes on, which a world does when it settles."""
        self._resume()
        asyncio.get_running_loop().call_soon(self._client.pump)

    async def say(self, text: str, waits: bytes, times: int = 1) -> None:
        """Write, and read until an answer has come so many times; RuntimeError for an error among them."""
        self._client.write(text)
        heard = b""
        while heard.count(waits) < times:
            heard += await self._heard.get()
            if b"type='error'" in heard:
                raise RuntimeError(f"it was refused: {heard.decode()[-500:]}")


async def come(world: World, number: int) -> Player:
    """A player who has asked for his list."""
    client = world.connect(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    player = Player(client)
    world.clients.remove(client)
    token = base64.b64encode(b"\0user%d\0secret" % number).decode()
    await player.say(HEADER, b"</stream:features>")
    await player.say(f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{token}</auth>", b"<success")
    await player.say(HEADER, b"</stream:features>")
    await player.say(f"<iq type='set' id='b'><bind xmlns='{ns.BIND}'/></iq><presence/>", b"</iq>")
    await player.say(f"<iq type='get' id='l'><friends xmlns='{NS}'/></iq>", b"id='l'")
    return player


async def bench(options: argparse.Namespace) -> None:
    """A line for each deed."""
    with tempfile.TemporaryDirectory() as folder:
        store = store_of(options.cassandra, folder)
        world = World(
            accounts=(),
            plugins=("friends", "players"),
            plugin_config={"players": {"lookups": 1_000_000}},  # who asks for a JID guesses one, too
            store=store,
        )
        async with world:
            many = options.players
            await write(accounts(world.app.store, "localhost", 2 * many))
            players = [await come(world, number) for number in range(2 * many)]
            await step(options, "request", players[:many], lambda one, n: f"user{many + (one + n) % many}")
            await step(options, "accept", players[many:], lambda one, n: f"user{(one - n) % many}")


async def step(options: argparse.Namespace, deed: str, players: list[Player], peer: object) -> None:
    """All players do it, each to so many others."""
    began, cpu = time.perf_counter(), time.process_time()
    says = []
    for one, player in enumerate(players):
        text = "".join(
            f"<iq type='set' id='q{n}'><{deed} xmlns='{NS}' jid='{peer(one, n)}@localhost'/></iq>"  # type: ignore[operator]
            for n in range(options.each)
        )
        says.append(player.say(text, b"type='result'", options.each))
    await asyncio.gather(*says)
    count = options.each * len(players)
    cpu, took = time.process_time() - cpu, time.perf_counter() - began
    print(
        f"{deed}: {count}, {cpu / count * 1000:.3f} ms of processor each, {count / took:.0f} a second",
        flush=True,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="friends", description=__doc__)
    parser.add_argument(
        "--players", type=int, default=50, help="who ask, of as many others (default: %(default)s)"
    )
    parser.add_argument("--each", type=int, default=20, help="whom each asks (default: %(default)s)")
    parser.add_argument("--cassandra", default="", help="host:port of one (default: SQLite)")
    uvloop.run(bench(parser.parse_args()))


if __name__ == "__main__":
    main()
