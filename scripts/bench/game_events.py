"""What an event of the plugin `game_events` costs for many players: seconds of processor time of all nodes in
one process, by calls for 10,000 of them. Some are there and want events, the others have it kept for them.
Clients read nothing, and what nodes write to each other is handed over in memory. With
`--cassandra HOST:PORT` the store is that one, whose own time is not counted.
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
from xmppd.testing import World  # noqa: E402

MOST = 10_000
HEADER = f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' to='localhost' version='1.0'>"
ENABLE = "<iq type='set' id='e'><enable xmlns='urn:xmppd:game-events:0'/></iq>"


def store_of(cassandra: str, folder: str) -> Store:
    """A new one."""
    if not cassandra:
        return SqliteStore(Path(folder) / "bench.sqlite")
    from xmppd.store.cassandra.store import CassandraOptions, CassandraStore  # noqa: PLC0415

    host, _, port = cassandra.rpartition(":")
    keyspace = f"bench_{uuid.uuid4().hex[:12]}"
    return CassandraStore(CassandraOptions(contact_points=((host, int(port)),), keyspace=keyspace))


async def come(world: World, number: int) -> None:
    """A client that wants events, and reads nothing."""
    client = world.connect(node=number % len(world.apps))
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    client.transport.receive = heard.put_nowait
    token = base64.b64encode(b"\0user%d\0secret" % number).decode()
    bind = f"<iq type='set' id='b'><bind xmlns='{ns.BIND}'/></iq>"
    auth = f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{token}</auth>"
    for said, waits in (
        (HEADER, b"</stream:features>"),
        (auth, b"<success"),
        (HEADER, b"</stream:features>"),
        (bind, b"</iq>"),
        (ENABLE, b"id='e'"),
    ):
        client.write(said)
        text = b""
        while waits not in text:
            text += await heard.get()
    client.transport.receive = unread
    world.clients.remove(client)


def unread(data: bytes) -> None:
    """Nobody reads it."""


async def bench(options: argparse.Namespace) -> None:
    """One line for each version."""
    with tempfile.TemporaryDirectory() as folder:
        config = {"game_events": {"rate": 0.0}}
        store = store_of(options.cassandra, folder)
        world = World(
            accounts=(), plugins=("game_events",), plugin_config=config, store=store, nodes=options.nodes
        )
        async with world:
            await write(accounts(world.app.store, "localhost", options.players))
            for number in range(options.there):
                await come(world, number)
            for version in range(1, options.versions + 1):
                await push(world, options, version)


async def push(world: World, options: argparse.Namespace, version: int) -> None:
    """A version for all."""
    reached = copies = 0
    began, cpu, latest = time.perf_counter(), time.process_time(), 0.0
    for start in range(0, options.players, MOST):
        lines = "\n".join(f"user{n}" for n in range(start, min(start + MOST, options.players)))
        given = {"resource": "match/7", "version": version, "players": lines, "payload": '{"state": "found"}'}
        call = asyncio.create_task(world.app.commands.call("game-events push", given))
        while not call.done():
            turn = time.perf_counter()
            await asyncio.sleep(0)
            latest = max(latest, time.perf_counter() - turn)
        reached, copies = reached + call.result()["reached"], copies + call.result()["sessions"]
    cpu, took = time.process_time() - cpu, time.perf_counter() - began
    each = cpu / options.players * 1e6
    print(
        f"version {version}: {options.players} players, {reached} reached, {copies} copies: {cpu:.2f} s of "
        f"processor, {each:.1f} us each, {took:.2f} s in all, the loop at most {latest * 1000:.1f} ms late",
        flush=True,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="game_events", description=__doc__)
    parser.add_argument("--players", type=int, default=100_000, help="(default: %(default)s)")
    parser.add_argument("--there", type=int, default=2_000, help="who are connected (default: %(default)s)")
    parser.add_argument("--nodes", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--versions", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--cassandra", default="", help="host:port of one (default: SQLite)")
    uvloop.run(bench(parser.parse_args()))


main()
