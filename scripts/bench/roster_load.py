"""roster-load: how fast rosters are written into a real Cassandra, and read, through the server's own store.

Writes --accounts rosters of --contacts contacts, and --large of 200, in batches of one partition. Then whole
rosters are read by `Rosters.load`, past every cache of ours:

- cold: accounts never read before, right after the node was started again; its memory holds none of the rows
- next: other accounts never read before, when the node has run for a while
- warm: the accounts of the line before, again

The node is an own one with nothing else to do, and is gone afterwards. A node named by --cassandra is not
started again, so there `cold` only means never read. CPU is that of our process with all its threads.
"""

import argparse
import asyncio
import contextlib
import logging
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from cassandra.cluster import Cluster, Session
from cassandra.query import BatchStatement, BatchType
from seed import rosters

from engines import Engines
from xmppd.core.roster.rosters import ROSTER, Roster, Rosters
from xmppd.store.cassandra.store import CassandraOptions, CassandraStore

Address = tuple[str, int]
LARGE = 200
"""Contacts of a large roster."""
READERS = 16
ESTIMATES_SECONDS = 40
"""A node estimates the sizes of partitions 30 s after its start, then every five minutes."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some accounts with rosters of one size: `user<first>` and those behind it."""

    first: int
    count: int
    contacts: int

    @property
    def ring(self) -> str:
        return f"{self.first}:{self.count}:{self.contacts}"

    @property
    def rows(self) -> int:
        return self.count * self.contacts


class Place:
    """The Cassandra to use, and a keyspace in it."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.keyspace = f"xmppd_load_{uuid.uuid4().hex[:8]}"
        self._options = options
        self._engines: Engines | None = None
        self.points: list[Address] = []
        if options.cassandra:
            self.points = [address(point) for point in options.cassandra.split(",")]
        else:
            self._engines = Engines(folder, 1, redis=False, heap=options.heap, tied=True)
            self._engines.start()
            self.points = self._engines.contact_points
        self.started = time.monotonic()

    @property
    def is_own(self) -> bool:
        """Whether the node may be started again."""
        return self._engines is not None

    def restart(self) -> None:
        """Start an own node again: all rows are in its files then, and none in its memory."""
        if self._engines is not None:
            self._engines.stop()
            self._engines.start()
            self.started = time.monotonic()

    def bytes_on_disk(self, table: str) -> int:
        """What an own node's files of one table take."""
        assert self._engines is not None
        files = self._engines.folder.glob(f"cassandra1/data/{self.keyspace}/{table}-*/*")
        return sum(file.stat().st_size for file in files if file.is_file())

    def remove(self) -> None:
        """Leave nothing behind."""
        if self._engines is not None:
            self._engines.remove()
        else:
            with self.session() as session:
                session.execute(f"DROP KEYSPACE IF EXISTS {self.keyspace}")

    @contextlib.asynccontextmanager
    async def store(self) -> AsyncIterator[CassandraStore]:
        """The server's store on this keyspace."""
        store = CassandraStore(
            CassandraOptions(contact_points=tuple(self.points), keyspace=self.keyspace, request_timeout=30.0)
        )
        await store.open([ROSTER])
        try:
            yield store
        finally:
            await store.close()

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """A connection past the store."""
        cluster = Cluster(self.points)
        try:
            yield cluster.connect()
        finally:
            cluster.shutdown()


def address(point: str) -> Address:
    """Host and port."""
    host, _, port = point.rpartition(":")
    return host, int(port)


async def side_by_side(work: Iterable[Awaitable[object]], count: int) -> list[float]:
    """Await everything, `count` pieces at a time; how long each took, in milliseconds."""
    times: list[float] = []
    waiting = iter(work)

    async def worker() -> None:
        for piece in waiting:
            began = time.perf_counter()
            await piece
            times.append((time.perf_counter() - began) * 1e3)

    await asyncio.gather(*(worker() for _ in range(count)))
    return times


@dataclass(slots=True)
class Took:
    """What some work took: seconds, and seconds of CPU of our process."""

    seconds: float = 0.0
    cpu: float = 0.0


@contextlib.contextmanager
def measured() -> Iterator[Took]:
    """Measures what is done inside."""
    took = Took()
    began, cpu = time.perf_counter(), time.process_time()
    yield took
    took.seconds, took.cpu = time.perf_counter() - began, time.process_time() - cpu


async def load(place: Place, parts: Sequence[Part], in_flight: int) -> float:
    """Write all rosters; how many rows a second."""
    print("| written | rows | in flight | seconds | rows/s | batches p50 / p99 ms | CPU us a row |")
    print("|---" * 7 + "|", flush=True)
    rows, seconds = 0, 0.0
    async with place.store() as store:
        for part in parts:
            with measured() as took:
                times = await side_by_side(rosters(store, "localhost", part.ring), in_flight)
            show_load(f"{part.count:,} rosters of {part.contacts}", part, in_flight, took, times)
            rows, seconds = rows + part.rows, seconds + took.seconds
    await asyncio.to_thread(
        reference, place, Part(0, max(parts[0].count // 5, 1), parts[0].contacts), in_flight
    )
    print()
    return rows / seconds


def reference(place: Place, part: Part, in_flight: int) -> None:
    """The same rows by nothing but the driver, into a table of its own: what could be had at best."""
    with place.session() as session:
        table = f"{place.keyspace}.reference"
        session.execute(
            f"CREATE TABLE {table} (account text, part text, name text, value text, version bigint static, "
            "PRIMARY KEY (account, part, name))"
        )
        insert = session.prepare(f"INSERT INTO {table} (account, part, name, value) VALUES (?, ?, ?, ?)")
        update = session.prepare(f"UPDATE {table} SET version = 1 WHERE account = ?")
        free = threading.Semaphore(in_flight)
        times: list[float] = []

        def send(number: int) -> None:
            account = f"user{number}@localhost"
            batch = BatchStatement(BatchType.UNLOGGED)
            for contact in range(part.contacts):
                value = f"both\x1fSummoner {contact}\x1f\x1f**Default"
                batch.add(insert, (account, "item", f"user{contact}@localhost", value))
            batch.add(update, (account,))
            began = time.perf_counter()

            def done(_: object) -> None:
                times.append((time.perf_counter() - began) * 1e3)
                free.release()

            free.acquire()
            session.execute_async(batch).add_callbacks(done, done)

        with measured() as took:
            for number in range(part.count):
                send(number)
            for _ in range(in_flight):
                free.acquire()
        show_load(f"driver alone, {part.count:,} of {part.contacts}", part, in_flight, took, times)


def show_load(what: str, part: Part, in_flight: int, took: Took, times: Sequence[float]) -> None:
    """A line of the table of writes."""
    print(
        f"| {what} | {part.rows:,} | {in_flight} | {took.seconds:.1f} | {part.rows / took.seconds:,.0f} "
        f"| {quantiles(times)} | {took.cpu / part.rows * 1e6:.1f} |",
        flush=True,
    )


async def read(place: Place, parts: Sequence[Part], count: int) -> None:
    """Read rosters of each size: cold, next, warm."""
    print("| read | contacts | one at a time, p50 / p99 ms | CPU us | 16 at a time, rosters/s | CPU us |")
    print("|---" * 6 + "|", flush=True)
    async with place.store() as store:
        samples = {part: drawn(part, count) for part in parts}
        for part in parts:
            await read_some("cold", store, part, samples[part][0])
        for part in parts:
            await read_some("next", store, part, samples[part][1])
            await read_some("warm", store, part, samples[part][1])
    print()


def drawn(part: Part, count: int) -> tuple[list[str], list[str]]:
    """Twice so many accounts, no account twice."""
    count = min(count, part.count // 2)
    numbers = random.Random(5).sample(range(part.first, part.first + part.count), 2 * count)
    names = [f"user{number}@localhost" for number in numbers]
    return names[:count], names[count:]


async def read_some(what: str, store: CassandraStore, part: Part, accounts: Sequence[str]) -> None:
    """Read half of the accounts one after the other, the others side by side."""
    read_one = reader(store, part.contacts)
    half = len(accounts) // 2
    with measured() as alone:
        times = await side_by_side(map(read_one, accounts[:half]), 1)
    with measured() as together:
        await side_by_side(map(read_one, accounts[half:]), READERS)
    rest = len(accounts) - half
    print(
        f"| {what} | {part.contacts} | {quantiles(times)} | {alone.cpu / half * 1e6:,.0f} "
        f"| {rest / together.seconds:,.0f} | {together.cpu / rest * 1e6:,.0f} |",
        flush=True,
    )


def reader(store: CassandraStore, contacts: int) -> Callable[[str], Coroutine[Any, Any, None]]:
    """Loads a roster as a login does, and keeps nothing."""
    loaded = Rosters(store)

    async def read_one(account: str) -> None:
        loading = loaded.load(account)
        roster = loading if isinstance(loading, Roster) else await loading
        if len(roster.followers) != contacts:
            raise SystemExit(f"{account} has {len(roster.followers)} contacts, not {contacts}")
        loaded.forget(account)

    return read_one


def show_sizes(place: Place, parts: Sequence[Part]) -> None:
    """How large partitions are: as the node estimates, and on its disk."""
    partitions = sum(part.count for part in parts)
    if place.is_own:
        size = place.bytes_on_disk("roster")
        print(
            f"{partitions:,} partitions take {size / 1e6:,.1f} MB on disk: "
            f"{size / partitions:,.0f} bytes each, {size / sum(part.rows for part in parts):.1f} a row."
        )
        time.sleep(max(0.0, place.started + ESTIMATES_SECONDS - time.monotonic()))
    with place.session() as session:
        found = session.execute(
            "SELECT partitions_count, mean_partition_size FROM system.size_estimates "
            "WHERE keyspace_name = %s AND table_name = 'roster'",
            (place.keyspace,),
        )
        for count, mean in found:
            print(f"The node estimates {count:,} partitions of {mean:,} bytes (before compression).")


def quantiles(times: Sequence[float]) -> str:
    """The median, and what 99 of 100 stay below."""
    ordered = sorted(times)
    return f"{statistics.median(ordered):.1f} / {ordered[len(ordered) * 99 // 100]:.1f}"


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="roster-load"
    )
    parser.add_argument("--accounts", type=int, default=20_000, help="rosters of the usual size")
    parser.add_argument("--contacts", type=int, default=50, help="contacts of each, an even number")
    parser.add_argument("--large", type=int, default=2_000, help=f"rosters of {LARGE} contacts")
    parser.add_argument("--in-flight", type=int, default=24, help="batches under way at once")
    parser.add_argument("--reads", type=int, default=1_000, help="rosters in each line of reads")
    parser.add_argument("--heap", type=int, default=512, help="MiB of heap for the node")
    parser.add_argument("--cassandra", metavar="HOST:PORT", help="use this one, in a keyspace of its own")
    parser.add_argument("--at-least", type=float, default=0, metavar="ROWS/S", help="exit with 1 below this")
    options = parser.parse_args()
    if options.accounts <= options.contacts or options.large <= LARGE:
        parser.error("there have to be more accounts than each has contacts")
    return options


async def run(place: Place, options: argparse.Namespace) -> bool:
    """Everything in turn; whether it was as fast as asked."""
    usual = Part(0, options.accounts, options.contacts)
    parts = [usual, Part(options.accounts, options.large, LARGE)]
    rate = await load(place, parts, options.in_flight)
    place.restart()
    await read(place, parts, options.reads)
    show_sizes(place, parts)
    return rate >= options.at_least


def main() -> None:
    """The command line."""
    options = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or the keyspace would stay
    # The driver would tell of each connection that a restart breaks.
    logging.disable()
    with tempfile.TemporaryDirectory(prefix="xmppd-load-") as folder:
        place = Place(options, Path(folder) / "engines")
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                is_fast = runner.run(run(place, options))
        finally:
            place.remove()
    if not is_fast:
        raise SystemExit(f"fewer than {options.at_least:,.0f} rows/s")


if __name__ == "__main__":
    main()
