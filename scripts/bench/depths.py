"""depths: what a page costs at random depths of one archive of --messages, by the archive's own reader.

The archive lies in --folder (SQLite), or in the keyspace --name of the Cassandra that XMPPD_TEST_CASSANDRA
names, and is filled up to --messages first, for --seconds at most: call it again to go on. Its messages are
spread evenly over --months. Of 100,000 messages 20,000 are with one peer and one is with a rare one, the
others with 200 in turn.

With --crowd all of them are of one day, with as many peers each, as that of a bot: but for the first the
server has rows for them by peer. One peer said something at the beginning of that day and at its end alone.

Then --pages pages of 50 are read of each kind, one after the other. Times are those of the call, in ms; CPU
is that of this process with all its threads, in us a page. Then words are looked for among 100,000 messages.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvloop
from cassandra.cluster import Cluster

from plugins.archive import Archive
from plugins.archive.conversations import OWN, ListQuery, Lists, listed
from plugins.archive.crowds import MANY, SOON
from plugins.archive.ids import DAY, LAST, Pool, at_of, bound, day_of, month_of
from plugins.archive.query import Query
from plugins.archive.search import Searcher
from plugins.archive.seeking import Seeker
from plugins.archive.words import Words
from xmppd.plugin import Table
from xmppd.store.cassandra.store import CassandraOptions, CassandraStore
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Store

OWNER = 1
PAGE = 50
FREQUENT, RARE, TWICE = "frequent@localhost", "rare@localhost", "twice@localhost"
SEARCHED = 100_000
EACH, SOME, PEERS = 100_000, 20_000, 200
PIECES = {"sqlite": (100, 8), "cassandra": (10, 96)}
"""Rows of a write, and writes under way: Cassandra warns of batches of more than 5,000 bytes."""
NEVER = Query(
    id="",
    after=b"",
    before=b"",
    named=(),
    peer="",
    address="",
    ids=None,
    reverse=False,
    size=PAGE,
    is_flipped=False,
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Where the messages of an archive are in time."""

    first: int
    months: int
    count: int
    is_crowd: bool = False

    def at(self, number: int) -> int:
        """The microsecond of a message."""
        return self.first + number * (DAY if self.is_crowd else self.months * 30 * DAY) // self.count

    @property
    def since(self) -> bytes:
        """From which id on there are rows by peer; b"": never."""
        return bound(self.at(MANY) + SOON) if self.is_crowd else b""

    def peer_of(self, number: int) -> str:
        """Whom a message is with."""
        return TWICE if self.is_crowd and number in (5, self.count - 5) else peer_of(number)


def peer_of(number: int) -> str:
    place = number % EACH
    if place == EACH // 2:
        return RARE
    return FREQUENT if place % (EACH // SOME) == 0 else f"user{place % PEERS}@localhost"


def stanza_of(number: int, peer: str = "") -> bytes:
    """One of some 300 bytes, as the archive has them."""
    text = f"message {number}: " + "so it goes on and on " * 4
    return (
        f"<message from='{peer or peer_of(number)}/device' to='owner@localhost' type='chat' id='m{number}'>"
        f"<body>{text}</body><origin-id xmlns='urn:xmpp:sid:0' id='m{number}'/></message>"
    ).encode()


class Tables:
    """The archive's tables in a store."""

    def __init__(self, store: Store, since: bytes = b"") -> None:
        self.store = store
        self.since = since
        server: Any = SimpleNamespace(store=store)
        self.log = Archive.messages.bind("archive", "messages", server)
        self.days = Archive.days.bind("archive", "days", server)
        self.months = Archive.months.bind("archive", "months", server)
        self.by_peer = Archive.by_peer.bind("archive", "by_peer", server)
        self.shown = Archive.shown.bind("archive", "shown", server)

    async def open(self) -> None:
        await self.store.open([table.declaration for table in self.all])

    @property
    def all(self) -> tuple[Table, ...]:
        return self.log, self.days, self.months, self.by_peer, self.shown

    @property
    def reader(self) -> Searcher:
        return Searcher(self.log, self.days, self.months, OWNER, self.by_peer, self.since)

    @property
    def lists(self) -> Lists:
        seeker = Seeker(self.log, self.days, self.months, OWNER, self.by_peer, self.since)
        return Lists(seeker, self.shown, OWNER)


async def fill(tables: Tables, shape: Shape, begin: int, seconds: float, engine: str) -> int:
    """Write messages from number `begin` on; how many there are when the time is over."""
    message = tables.log.writer(("owner", "month", "id", "peer", "stanza"))
    days, months = tables.days.writer(("owner", "peer", "day")), tables.months.writer(("owner", "month"))
    by_peer = tables.by_peer.writer(("owner", "month", "peer", "id"))
    pool, noted = Pool(), set[Any]()
    size, under_way = PIECES[engine]
    over = time.monotonic() + seconds

    def pieces() -> Iterator[tuple[int, list[Any]]]:
        for start in range(begin, shape.count, size):
            if time.monotonic() > over:
                return
            end, rows = min(start + size, shape.count), []
            for number in range(start, end):
                id, peer = pool.new_id(shape.at(number)), shape.peer_of(number)
                rows.append(message.row(OWNER, month_of(id), id, peer, stanza_of(number, peer)))
                if shape.since and id >= shape.since:
                    rows.append(by_peer.row(OWNER, month_of(id), peer, id))
                elif (key := (peer, day_of(id))) not in noted:
                    noted.add(key)
                    rows.append(days.row(OWNER, *key))
                if month_of(id) not in noted:
                    noted.add(month_of(id))
                    rows.append(months.row(OWNER, month_of(id)))
            yield end, rows

    made, done = pieces(), begin

    async def write() -> None:
        nonlocal done
        for end, rows in made:
            await tables.store.room()
            await tables.store.write(rows)
            done = max(done, end)

    await asyncio.gather(*(write() for _ in range(under_way)))
    return done


async def read_all(tables: Tables, count: int) -> None:
    """The owner has read the conversations of the newest messages, up to now."""
    page = await tables.reader.page(changed(reverse=True, size=count), 0, b"")
    found = await tables.reader.found([message[0] for message in page.messages])
    for peer, id in {peer: id for id, peer, _ in found}.items():
        row = {"owner": OWNER, "peer": peer, "side": OWN, "id": id, "at": at_of(id)}
        await tables.shown.put_newest(row)


def lists(tables: Tables, size: int, name: str, peer: str = "") -> dict[str, Callable[[], Awaitable[int]]]:
    """Lists of so many conversations."""
    query = ListQuery(b"", b"", peer, size)

    async def ask() -> int:
        walk = await tables.lists.page("owner@localhost", query, b"", bound(LAST))
        listed("owner@localhost", walk)
        return walk.examined

    return {name: ask}


def kinds(reader: Searcher, shape: Shape) -> dict[str, Callable[[], Awaitable[int]]]:
    """Each kind of page at a random depth; how many messages it had."""
    chance = random.Random(1)

    def moment() -> bytes:
        return bound(shape.at(chance.randrange(shape.count)))

    def asks(**about: Callable[[], Any] | Any) -> Callable[[], Awaitable[int]]:
        async def ask() -> int:
            given = {name: value() if callable(value) else value for name, value in about.items()}
            page = await reader.page(changed(**given), 0, b"")
            return len(page.messages)

        return ask

    async def named() -> int:
        """As clients go on: behind a message that has to be there."""
        some = await reader.page(changed(after=moment(), size=1), 0, b"")
        if not some.messages:
            return 0
        id = some.messages[0][0]
        return len((await reader.page(changed(after=id, named=(id,)), 0, b"")).messages)

    async def ends() -> int:
        return len(await reader.ends(0, b"") or ())

    crowd = {
        "forward, with who spoke at both ends": asks(after=moment, peer=TWICE),
        "backward, with who spoke at both ends": asks(before=moment, peer=TWICE, reverse=True),
        "the first, with who spoke at both ends": asks(peer=TWICE),
        "the newest, with who spoke at both ends": asks(peer=TWICE, reverse=True),
    }
    return {
        **(crowd if shape.is_crowd else {}),
        "forward": asks(after=moment),
        "backward": asks(before=moment, reverse=True),
        "two: one message, then behind its id": named,
        "newest": asks(reverse=True),
        "forward, with a frequent peer": asks(after=moment, peer=FREQUENT),
        "backward, with a frequent peer": asks(before=moment, peer=FREQUENT, reverse=True),
        "backward, with one of 200": asks(before=moment, peer="user7@localhost", reverse=True),
        "backward, with a rare peer": asks(before=moment, peer=RARE, reverse=True),
        "nobody": asks(before=moment, peer="nobody@localhost", reverse=True),
        "metadata": ends,
    }


def changed(**about: Any) -> Query:
    return NEVER._replace(**about)


async def measure(asked: dict[str, Callable[[], Awaitable[int]]], pages: int) -> None:
    for name, ask in asked.items():
        times, found, cpu = [], 0, time.process_time()
        for _ in range(pages):
            begun = time.perf_counter()
            found += await ask()
            times.append(time.perf_counter() - begun)
            await asyncio.sleep(0)
        cost = (time.process_time() - cpu) / pages * 1e6
        times.sort()
        p50, p99 = (times[min(int(pages * part), pages - 1)] * 1e3 for part in (0.5, 0.99))
        print(f"{name:40} {p50:8.2f} {p99:8.2f} {cost:8.0f} {found / pages:9.1f}", flush=True)


async def searches(reader: Searcher, shape: Shape) -> None:
    """Looks for words among the newest SEARCHED messages; and how long it held the loop at a time."""
    longest, is_over = 0.0, False  # of CPU: others may hold the machine

    async def watch() -> None:
        nonlocal longest
        last = time.thread_time()
        while not is_over:
            await asyncio.sleep(0)
            now = time.thread_time()
            longest, last = max(longest, now - last), now

    watching = asyncio.create_task(watch())
    for text in ("nowhere", "нигде", "on", f"message {shape.count - SEARCHED // 2}"):
        begun, cpu, longest = time.perf_counter(), time.process_time(), 0.0
        query = changed(reverse=True)
        page = await reader.search(query, Words(text), 0, b"", most=SEARCHED, is_over=lambda: False)
        took, cpu = time.perf_counter() - begun, time.process_time() - cpu
        print(
            f"search for {text!r}: {len(page.messages)} found, {took * 1e3:.1f} ms, CPU {cpu * 1e3:.1f} ms,"
            f" {longest * 1e3:.1f} ms of CPU at a time at most",
            flush=True,
        )
    is_over = True
    await watching


async def partitions(tables: Tables) -> None:
    """How large the months are."""
    months = [row["month"] for row in (await tables.months.scan(OWNER)).rows]
    middle = months[len(months) // 2]
    rows = size = 0
    async for piece in tables.log.stream(OWNER, middle, columns=("id", "peer", "stanza")):
        rows += len(piece)
        size += sum(len(id) + len(peer) + len(stanza) for id, peer, stanza in piece)
    print(f"{len(months)} months; one of the middle: {rows:,} messages, {size / 1e6:.1f} MB of values")


def on_disk(engine: str, folder: Path, points: tuple[tuple[str, int], ...], keyspace: str) -> None:
    """What the engine says of its files."""
    if engine == "sqlite":
        size = sum(file.stat().st_size for file in folder.glob("store.db*"))
        print(f"on disk: {size / 1e6:,.0f} MB")
        return
    with Cluster(points, connect_timeout=20) as cluster:
        session = cluster.connect()
        for table in ("disk_usage", "max_partition_size"):
            for row in session.execute(f"SELECT * FROM system_views.{table}"):
                if row.keyspace_name == keyspace:
                    print(f"{table}: {row.table_name} {row.mebibytes} MiB")


async def main(args: argparse.Namespace) -> int:
    args.folder.mkdir(parents=True, exist_ok=True)
    nodes = (node.rpartition(":") for node in os.environ.get("XMPPD_TEST_CASSANDRA", "").split(",") if node)
    points = tuple((host, int(port)) for host, _, port in nodes)
    store: Store = SqliteStore(args.folder / "store.db")
    if args.engine == "cassandra":
        store = CassandraStore(CassandraOptions(contact_points=points, keyspace=args.name))
    note = args.folder / f"{args.engine}.json"
    first = int(time.time() * 1e6) - args.months * 30 * DAY
    about = {"first": first // DAY * DAY if args.crowd else first, "done": 0, "count": args.messages}
    about |= json.loads(note.read_text()) if note.exists() else {"crowd": args.crowd}
    if about["count"] != args.messages or about.get("crowd", False) != args.crowd:
        print(f"in {args.folder} is the archive of {about['count']:,} messages", file=sys.stderr)
        return 1
    shape = Shape(about["first"], args.months, args.messages, args.crowd)
    tables = Tables(store, b"" if args.unlisted else shape.since)
    await tables.open()
    try:
        if about["done"] < shape.count:
            begun, cpu = time.perf_counter(), time.process_time()
            done = await fill(tables, shape, about["done"], args.seconds, args.engine)
            took, cpu = time.perf_counter() - begun, time.process_time() - cpu
            wrote = max(done - about["done"], 1)
            print(f"{wrote:,} written, {wrote / took:,.0f}/s, CPU {cpu / wrote * 1e6:.1f} us", flush=True)
            note.write_text(json.dumps({**about, "done": done}))
            if done < shape.count:
                print(f"{done:,} of {shape.count:,}: call it again to go on")
                return 0
        print(f"{args.engine}: {shape.count:,} messages of {len(stanza_of(shape.count))} bytes")
        await partitions(tables)
        on_disk(args.engine, args.folder, points, args.name)
        print(f"{'page':40} {'p50 ms':>8} {'p99 ms':>8} {'CPU us':>8} {'messages':>9}")
        await measure(kinds(tables.reader, shape), args.pages)
        await tables.shown.delete(OWNER)
        await measure(lists(tables, 20, "20 conversations, none read"), args.pages)
        await read_all(tables, 2000)
        await measure(lists(tables, 20, "20 conversations, all read"), args.pages)
        await measure(lists(tables, 1, "the one with a frequent peer, read", FREQUENT), args.pages)
        await searches(tables.reader, shape)
    finally:
        await store.close()
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--engine", choices=("sqlite", "cassandra"), default="sqlite")
    parser.add_argument("--folder", type=Path, required=True, help="where the archive, or a note of it, is")
    parser.add_argument("--name", default="depths", help="the keyspace")
    parser.add_argument("--months", type=int, default=40)
    parser.add_argument("--crowd", action="store_true", help="all in one day")
    parser.add_argument(
        "--unlisted", action="store_true", help="read by days, as if there were no other rows"
    )
    parser.add_argument("--pages", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=300.0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main(parser.parse_args())))
