"""What the worst input of each kind costs the loop of a server, and what a canary notices of 1 MB/s of it.

usage: worst [--only NAME,...] [--seconds N] [--json FILE]

The rows are in `worst_kinds.py`. A plugin of the server (`plugins/turns.py`) adds up the processor time of
the loop's turns, so other work on the machine does not count: the mean is what a stanza takes in all its
turns, the maximum one turn. The canary is a process of its own that pings the server; --seconds 0 leaves it
out. Prints Markdown; `!` marks what is beyond 5 ms, or more than doubles the canary's p50.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from stream import HEADER, Refused, Stream, connect
from worst_kinds import CONTACTS, KINDS, Kind

HERE = Path(__file__).parent
PORTS = range(17_900, 18_900, 2)
REPEATS = 8
RATE = 1_000_000
MOST_MS = 5.0
BEFORE = ("nice", "-n", "-10") if os.geteuid() == 0 else ()
"""Who sends and the canary share a core: what is looked for is how long the server took."""
WATCH = "<turns xmlns='urn:xmppd:bench:turns' on='{}'/>"


@dataclass(slots=True)
class Row:
    """Microseconds of the loop for a stanza, and milliseconds of the canary's ping."""

    name: str
    size: int
    mean: float
    longest: float
    p50: float = 0.0
    p99: float = 0.0


async def watch(watcher: Stream, *, on: bool) -> tuple[float, float]:
    """Microseconds of the longest turn and of all since the last call."""
    answer = await watcher.ask("get", WATCH.format(int(on)), to="localhost")
    found = {name: float(value) for name, value in re.findall(rb"(longest|sum)='([0-9.]+)'", answer)}
    return found[b"longest"] * 1e6, found[b"sum"] * 1e6


async def ready(kind: Kind, port: int) -> Stream:
    """A stream on which the input may be sent."""
    stream = await connect(port)
    if kind.before_login:
        stream.write(HEADER)
        await stream.until(b"</stream:features")
        return stream
    await stream.log_in(kind.user, "secret")
    if kind.input(0) != b"<presence/>":
        stream.write("<presence/>")
    if kind.prepare:
        stream.write(kind.prepare)
    await stream.ping()
    return stream


async def send(kind: Kind, stream: Stream, number: int) -> None:
    """Send one, and wait until it was dealt with."""
    stream.write(kind.input(number))
    if kind.before_login:
        await stream.until(b"</failure" if "PLAIN" in kind.name else b">")
    else:
        await stream.ping()


async def costs(kind: Kind, watcher: Stream, port: int) -> tuple[float, float]:
    """Mean and maximum."""
    total = longest = 0.0
    stream: Stream | None = None
    for number in range(REPEATS):
        if stream is None or stream.is_over:
            stream = await ready(kind, port)
        if kind.leaves:
            await send(kind, stream, number)
        await watch(watcher, on=True)
        with contextlib.suppress(ConnectionError, TimeoutError, Refused):
            await (stream.leave() if kind.leaves else send(kind, stream, number))
        most, spent = await watch(watcher, on=False)
        longest, total = max(longest, most), total + spent
        if kind.before_login:
            stream.cut()
    if stream is not None and not stream.is_over:
        stream.cut()
    return total / REPEATS, longest


async def pour(kind: Kind, port: int) -> None:
    """1 MB/s of it, until it is cancelled."""
    stream: Stream | None = None
    number = 0
    due = time.monotonic()
    try:
        while True:
            try:
                if stream is None or stream.is_over:
                    stream = await ready(kind, port)
                    due = time.monotonic()
                data = kind.input(number)
                number += 1
                stream.write(data)
                await stream.drain()
                if kind.leaves:
                    await stream.ping()
                    await stream.leave()
                elif kind.before_login:
                    await stream.until(b">")
                    stream.cut()
                stream._seen = stream._seen[-1000:]  # answers are not read otherwise
                due = max(due + len(data) / RATE, time.monotonic() - 0.1)
                await asyncio.sleep(due - time.monotonic())
            except (ConnectionError, TimeoutError, Refused):
                stream = None
    finally:
        if stream is not None:
            stream.cut()


async def canary(port: int, seconds: float) -> None:
    """Ping all the time; what it took."""
    stream = await connect(port)
    await stream.log_in("user0", "secret")
    took = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.monotonic()
        await stream.ping()
        took.append((time.monotonic() - start) * 1000)
        await asyncio.sleep(0.002)
    took.sort()
    print(json.dumps([took[len(took) // 2], took[len(took) * 99 // 100]]))


async def pinged(kind: Kind | None, port: int, seconds: float) -> tuple[float, float]:
    """The canary's p50 and p99 in ms beside this."""
    pouring = asyncio.create_task(pour(kind, port)) if kind else None
    await asyncio.sleep(0.2)
    command = [*BEFORE, sys.executable, __file__, "--canary", str(port), "--seconds", str(seconds)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    said, _ = await process.communicate()
    if pouring:
        pouring.cancel()
        await asyncio.wait([pouring])
        await asyncio.sleep(0.5)  # what the server has read is dealt with
    p50, p99 = json.loads(said) if said else (float("inf"), float("inf"))
    return p50, p99


async def table(kinds: list[Kind], port: int, seconds: float) -> list[Row]:
    """All rows; the first is that of a ping alone."""
    watcher = await connect(port)
    await watcher.log_in("user0", "secret")
    online = [await connect(port) for _ in range(200)]
    for number, stream in enumerate(online):
        await stream.log_in(f"user{2 + number}", "secret")
        stream.counts = None
        stream.write("<presence/>")
    idle = Kind("a ping alone", lambda _: b" ")
    rows = []
    for kind in [idle, *kinds]:
        mean, longest = await costs(kind, watcher, port)
        p50, p99 = await pinged(None if kind is idle else kind, port, seconds) if seconds else (0.0, 0.0)
        rows.append(Row(kind.name, len(kind.input(0)), mean, longest, p50, p99))
        print(line(rows[-1], rows[0]), flush=True)
        for stream in online:
            stream._seen = b""
    return rows


def line(row: Row, idle: Row) -> str:
    """A row of the table."""
    late, slow = row.longest > MOST_MS * 1000, row.p50 > 2 * idle.p50
    return (
        f"| {row.name} | {row.size} | {row.mean:.0f} | {row.longest:.0f}{' !' * late} "
        f"| {row.p50:.2f}{' !' * slow} | {row.p99:.2f} |"
    )


def is_free(port: int) -> bool:
    """Whether nobody listens on this one and the next."""
    for each in (port, port + 1):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", each)) == 0:
                return False
    return True


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--canary", type=int)
    options = parser.parse_args()
    if options.canary:
        asyncio.run(canary(options.canary, options.seconds))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server does not stay
    kinds = [kind for kind in KINDS if any(name in kind.name for name in options.only.split(","))]
    with tempfile.TemporaryDirectory() as name:
        port = next(filter(is_free, PORTS))
        rings = f"1:1:{CONTACTS}:away,2:201:200"
        subprocess.run([HERE / "seed", name, str(port), "localhost", "203", rings], check=True)
        started = subprocess.run([HERE / "start", name, str(port), "turns"], check=True, capture_output=True)
        pid = int(started.stdout.split()[1])
        try:
            print("| input | bytes | µs, mean | µs, longest turn | canary p50, ms | p99 |")
            print("|---|---|---|---|---|---|")
            rows = asyncio.run(table(kinds, port, options.seconds))
        finally:
            os.kill(pid, signal.SIGTERM)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
