"""audit: what pages of the audit log cost with --entries of them in --hours, written by --nodes.

Of all of them --busy are of one hour, the others are spread evenly. A node writes --own of them into the
partition of an hour, and what comes then into those of minutes. The log lies in a keyspace of its own in
the Cassandra that XMPPD_TEST_CASSANDRA names, or else in one that is started for it, or with --engine sqlite
in a file. Then --pages pages are read of each kind, one after the other: the newest one, pages at random
places, and what one of a hundred callers did (a page looks at 1,000 entries, whatever it finds).
"""

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop

from engines import Engines
from xmppd.access import hours
from xmppd.access.audit import AUDIT_LOG, DAY, HOUR, Audit, hour_of, hours_of, row_of
from xmppd.admin.commands import Caller, Description, Parameter
from xmppd.store.cassandra.store import CassandraOptions, CassandraStore
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Store

ABOUT = Description(
    "roster add", "", tuple(Parameter(name, "str") for name in ("account", "contact", "name"))
)
BEGIN = 1_700_000_000 // 3600 * 3600.0
CALLERS = 100
BATCH, UNDER_WAY = 50, 64


def moments(options: argparse.Namespace) -> Iterator[float]:
    """When each entry is made, in order."""
    usual = (options.entries - options.busy) / options.hours
    for hour in range(options.hours):
        count = round(usual) + (options.busy if hour == options.hours // 2 else 0)
        for number in range(count):
            yield BEGIN + hour * HOUR + number * HOUR / count


async def fill(store: Store, options: argparse.Namespace) -> Counter[str]:
    """Write them; how many there are in each partition."""
    columns = [name for name in (*AUDIT_LOG.key, *AUDIT_LOG.columns) if name != "receipt"]
    writer = store.writer(AUDIT_LOG, columns)
    nodes = [hours_of(store) for _ in range(options.nodes)]
    counts: Counter[str] = Counter()
    under_way: set[asyncio.Future[Any]] = set()
    rows: dict[str, list[Any]] = {}
    for number, at in enumerate(moments(options)):
        by = Caller("http", f"machine-{number % CALLERS}", "10.0.0.12")
        given = {
            "account": f"user{number}@example.org",
            "contact": f"user{number + 1}@example.org",
            "name": "N" * 20,
        }
        row = row_of(ABOUT, given, by, at, f"node{number % options.nodes}:5270")
        place = nodes[number % options.nodes].place(at)
        await nodes[number % options.nodes].mark(place, 90 * DAY)
        row |= {"hour": place, "outcome": "done", "ended": at + 0.02}
        counts[place] += 1
        some = rows.setdefault(place, [])
        some.append(tuple(row[name] for name in columns))
        if len(some) >= BATCH:
            await store.room()
            under_way.add(store.write([writer.rows(some)], ttl=90 * DAY))
            del rows[place]
            if len(under_way) >= UNDER_WAY:
                _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
    for some in rows.values():
        await store.write([writer.rows(some)], ttl=90 * DAY)
    await asyncio.gather(*under_way)
    return counts


def spread(name: str, times: list[float], rows: int) -> None:
    times.sort()
    p50, p99 = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
    took = f"p50 {p50 * 1e3:7.1f} ms  p99 {p99 * 1e3:7.1f} ms"
    print(f"{name:32} {len(times):5} pages  {took}  {rows / len(times):7.1f} rows", flush=True)


async def read(audit: Audit, options: argparse.Namespace) -> None:
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("newest", {"place": False}),
        ("anywhere", {"place": True}),
        ("anywhere, of one caller", {"place": True, "who": "machine-7"}),
        ("in the busy hour", {"place": True, "busy": True}),
    ]
    chance = random.Random(1)
    for name, kind in kinds:
        times, rows = [], 0
        for _ in range(options.pages):
            first, many = (options.hours // 2, 1) if kind.get("busy") else (0, options.hours)
            at = BEGIN + (first + chance.random() * many) * HOUR
            after = f"{hour_of(at)}/{int(at * 1e6):017d}-"
            begin = time.perf_counter()
            found, _, _ = await audit.some(BEGIN, kind.get("who", ""), "", after if kind["place"] else "")
            times.append(time.perf_counter() - begin)
            rows += len(found)
        spread(name, times, rows)
    begin, seen, after = time.perf_counter(), 0, ""
    while True:
        found, _, token = await audit.some(BEGIN, "", "", after)
        seen += len(found)
        if token is None:
            break
        after = token
    print(f"all of them: {seen} entries in {time.perf_counter() - begin:.1f} s")


async def run(options: argparse.Namespace) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="audit-")))
        store: Store
        if options.engine == "sqlite":
            store = SqliteStore(folder / "audit.db")
        else:
            named = os.environ.get("XMPPD_TEST_CASSANDRA", "")
            pairs = [it.rpartition(":") for it in named.split(",") if it]
            points = [(host, int(port)) for host, _, port in pairs]
            if not points:
                engines = Engines(folder, 1, redis=False, heap=options.heap, tied=True)
                engines.start()
                stack.callback(engines.stop)
                points = engines.contact_points
            keyspace = f"audit_{os.getpid()}"
            store = CassandraStore(CassandraOptions(tuple(points), keyspace=keyspace, request_timeout=30.0))
        await store.open([AUDIT_LOG])
        begin = time.perf_counter()
        counts = await fill(store, options)
        took = time.perf_counter() - begin
        place, most = counts.most_common(1)[0]
        print(f"{sum(counts.values())} entries in {len(counts)} partitions ({most} in {place}), {took:.0f} s")
        audit = Audit(store, asyncio.ensure_future, lambda: BEGIN + options.hours * HOUR, lambda: "", 90.0)
        await read(audit, options)
        await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--own", type=int, default=hours.OWN)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--engine", choices=("cassandra", "sqlite"), default="cassandra")
    parser.add_argument("--heap", type=int, default=1024)
    options = parser.parse_args()
    hours.OWN = options.own
    uvloop.run(run(options))


if __name__ == "__main__":
    main()
