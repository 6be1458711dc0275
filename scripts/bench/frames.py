"""What presence, logins and frames cost where three nodes are one server, beside one node alone: instructions
below callgrind of all nodes in one process. What they write to each other is handed over in memory, and
clients read nothing; so the kernel's part of a frame, and its waking somebody, is not in it. Time passes only
as far as is said: one unit begins `--every` seconds after the one before.

With `--beside N` all clients are on one of the nodes, and the others have N sessions, or none, of nobody's
contacts: what local traffic costs beside them, without what passes while nobody asks anything and without the
collector.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import heapq
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

LOOK = 3e-6
"""Seconds that pass with each look at a clock: below callgrind slices of time would end after every step."""

INSIDE = "--inside"
if INSIDE in sys.argv:
    time.monotonic = time.perf_counter = itertools.count(0.0, LOOK).__next__

HERE = Path(__file__).resolve().parent
TREE = Path(os.environ.get("FRAMES_TREE", HERE.parents[1]))
sys.path[:0] = [str(TREE), str(TREE / "scripts" / "bench")]

import uvloop  # noqa: E402
from seed import accounts, rosters, write  # noqa: E402

from xmppd import ns  # noqa: E402
from xmppd.cluster.records import Place, Probe  # noqa: E402
from xmppd.testing import Client, World, world  # noqa: E402
from xmppd.testing.nodes import MemoryTrunk, NoTimer  # noqa: E402

WARM_UP = 2
TOTALS = re.compile(r"^totals: (\d+)", re.MULTILINE)
NODES = (1, 3)
IDLE = "nothing"
TEXT = {"type": "string", "maxLength": 20}
GAME = {"says": {"properties": {"mode": TEXT, "map": TEXT}, "required": ["mode"]}}
RICH = {"rich_presence": {"window": 0.0, "changes_per_minute": 1_000_000, "games": {"game": GAME}}}
"""What the plugin is told: all is shown at once."""
counted: Counter[str] = Counter()


class CountedTrunk(MemoryTrunk):
    """Counts what is written."""

    def write(self, frames: Sequence[bytes]) -> None:
        """See `MemoryTrunk`."""
        counted["writes"] += 1
        counted["frames"] += len(frames)
        counted["bytes"] += sum(map(len, frames))
        super().write(frames)


class TimedWorld(World):
    """A world in which what nodes do in some milliseconds is done when these have passed."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def _call_later(self, seconds: float, do: Callable[[], None]) -> Any:
        if seconds >= 1.0:
            return super()._call_later(seconds, do)
        heapq.heappush(self._alarms, (self.clock.seconds + seconds, next(self._numbers), do))
        return NoTimer()

    async def work(self, seconds: float) -> None:
        """Let so much time pass, with all that is done in the course of it."""
        calm, end, alarms = 0, self.clock.seconds + seconds, self._alarms
        works = [work for app in self.apps for work in (app.cork, app.sessions.rounds)]
        while calm < 2:
            await asyncio.sleep(0)
            calm += 1
            counted["turns"] += 1
            if self._due or (alarms and alarms[0][0] <= end and self._rings(end)):
                calm = 0
                continue
            for work in works:  # what looks costs as little as can be: no server has that
                if work.is_due:
                    calm = 0
                    break
        self.clock.seconds = end

    def _rings(self, end: float) -> bool:
        if not self._alarms or self._alarms[0][0] > end:
            return False
        counted["timers"] += 1
        at, _, do = heapq.heappop(self._alarms)
        self.clock.seconds = max(at, self.clock.seconds)
        do()
        return True


class Crowd:
    """Clients of a ring in which everybody knows everybody near, on the first `nodes`, and what some of them
    do.
    """

    def __init__(self, here: TimedWorld, every: float, nodes: int) -> None:
        self._world = here
        self._nodes = nodes
        self._every = every
        self._clients: dict[int, Client] = {}
        self._units = itertools.count()

    async def login(self, number: int) -> None:
        """One comes, and waits for each answer."""
        app = self._world.apps[number % self._nodes]
        client = self._clients[number] = Client(self._world, app, "127.0.0.1", starttls=True)
        heard: list[bytes] = []
        client.transport.receive = heard.append
        token = base64.b64encode(b"\0user%d\0secret" % number).decode()
        header = (
            f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' to='localhost' version='1.0'>"
        )
        for said in (
            header,
            f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{token}</auth>",
            header,
            f"<iq type='set' id='b'><bind xmlns='{ns.BIND}'><resource>game</resource></bind></iq>",
            f"<iq type='get' id='r'><query xmlns='{ns.ROSTER}'/></iq>",
            "<presence/>",
        ):
            before = len(heard)
            client.write(said)
            await self._world.work(0.0)
            while len(heard) == before:  # passwords are looked at in another thread
                await asyncio.sleep(0.0002)
                await self._world.work(0.0)
        client.jid = f"user{number}@localhost/game"
        client.transport.receive = nobody

    async def rest(self) -> None:
        """Nobody does anything."""
        await self._world.work(self._every)

    async def say(self) -> None:
        """One says something to another one."""
        one, to = self._one, self._one
        one.write(f"<message to='{to.jid}' type='chat'><body>number {next(self._units)}</body></message>")
        await self._world.work(self._every)

    async def change(self) -> None:
        """One changes its status."""
        status = f"<status>in game {next(self._units)}</status>"
        self._one.write(f"<presence><show>dnd</show>{status}</presence>")
        await self._world.work(self._every)

    async def play(self) -> None:
        """One says something of its game (plugin rich_presence)."""
        number = next(self._units)
        state = f'{{"mode": "ranked", "map": "m{number}"}}'
        one = self._one
        one.write(
            f"<iq type='set' id='g{number}'><game xmlns='urn:xmppd:rich-presence:0' id='game'>"
            f"<state>{state}</state></game></iq>"
        )
        await self._world.work(self._every)

    async def leave_and_come(self) -> None:
        """One becomes unavailable and available again."""
        one = self._one
        for said in ("<presence type='unavailable'/>", "<presence><show>chat</show></presence>"):
            one.write(said)
            await self._world.work(self._every)

    async def log_in(self) -> None:
        """One logs out and in again."""
        number = [*self._clients][next(self._units) * 7 % len(self._clients)]
        self._clients[number].transport.close()
        await self._world.work(self._every)
        await self.login(number)
        await self._world.work(self._every)

    async def say_nothing(self) -> None:
        """Each node sends each other one a record in which nothing is."""
        for number in range(len(self._world.apps) if len(self._world.apps) > 1 else 0):
            mesh = self._world.cluster(number).mesh
            for member in mesh.present():
                mesh.send(member, Probe("nobody@localhost/game", []))
        await self._world.work(self._every)

    @property
    def _one(self) -> Client:
        return self._clients[[*self._clients][next(self._units) * 7 % len(self._clients)]]


def nobody(data: bytes) -> None:
    """Nobody reads it."""
    counted["writes to clients"] += 1


async def strangers(here: TimedWorld, count: int) -> None:
    """The other nodes tell the first one of so many sessions."""
    others = range(1, len(here.apps))
    for number in range(count if others else 0):
        mesh = here.cluster(others[number % len(others)]).mesh
        member = mesh.members[here.cluster(0).mesh.name]
        mesh.send(member, Place(f"stranger{number}@localhost", "game", 0, 1 + number, member.trunk.taken))
        if number % 100 == 99:
            await here.work(0.1)
    await here.work(1.0)


def tell(*commands: str) -> None:
    """Tell callgrind."""
    for command in commands:
        vgdb = ["vgdb", f"--pid={os.getpid()}", command]
        subprocess.run(vgdb, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def inside(options: argparse.Namespace) -> None:
    """Measure one number of nodes."""
    world.MemoryTrunk = CountedTrunk  # type: ignore[misc]
    limits = {"loop_share": 1.0, "presence_copy_rate": 0}
    settings = {"server": {"data_folder": tempfile.mkdtemp()}, "limits": limits}
    rich: dict[str, Any] = {"plugins": ("rich_presence",), "plugin_config": RICH} if options.rich else {}
    async with TimedWorld(accounts=(), nodes=options.nodes, settings=settings, **rich) as here:
        await write(accounts(here.app.store, "localhost", options.contacts + 1))
        await write(rosters(here.app.store, "localhost", f"0:{options.contacts + 1}:{options.contacts}"))
        is_beside = options.beside is not None
        crowd = Crowd(here, options.every, 1 if is_beside else options.nodes)
        for number in range(options.there or options.contacts + 1):
            await crowd.login(number)
        await here.work(1.0)
        await strangers(here, options.beside or 0)
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "a change of presence": crowd.change,
            "leaves and comes": crowd.leave_and_come,
            "logs out and in": crowd.log_in,
            "a record in which nothing is, each to each": crowd.say_nothing,
        }
        if options.rich:
            parts = {
                "a change of presence": crowd.change,
                "a change of rich presence": crowd.play,
            }
        if is_beside:
            gc.disable()
            parts = {
                IDLE: crowd.rest,
                "a message": crowd.say,
                "a change of presence": crowd.change,
                "leaves and comes": crowd.leave_and_come,
            }
        for name, do in parts.items():
            for _ in range(WARM_UP):
                await do()
            counted.clear()
            tell("instrumentation on", "zero")
            for _ in range(options.units):
                await do()
            tell("dump", "instrumentation off")
            told = ", ".join(f"{value / options.units:.1f} {what}" for what, value in counted.items())
            print(f"{name}: {told}", flush=True)


def measured(tree: Path, nodes: int, options: Sequence[str], units: int) -> dict[str, tuple[float, str]]:
    """Instructions of a unit of each part, and what was counted besides."""
    with tempfile.TemporaryDirectory() as folder:
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet"]
        program = [sys.executable, __file__, *options]
        run = subprocess.run(
            [*valgrind, f"--callgrind-out-file={folder}/dump", *program, INSIDE, "--nodes", str(nodes)],
            env={**os.environ, "FRAMES_TREE": str(tree), "PYTHONHASHSEED": "1", "PYTHONMALLOC": "malloc"},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        found = {}
        for number, line in enumerate(run.stdout.splitlines(), 1):
            total = TOTALS.search(Path(f"{folder}/dump.{number}").read_text())
            assert total is not None, "a dump has no totals"
            name, _, told = line.partition(": ")
            found[name] = int(total[1]) / units, told
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="frames", description=__doc__)
    parser.add_argument("base", nargs="?", type=Path, help="another checkout to compare with")
    parser.add_argument("--contacts", type=int, default=200, help="how many each has (default: %(default)s)")
    parser.add_argument("--there", type=int, default=0, help="how many are there (default: all)")
    parser.add_argument("--units", type=int, default=40, help="how often each is done (default: %(default)s)")
    parser.add_argument("--every", type=float, default=0.010, help="seconds (default: %(default)s)")
    parser.add_argument(
        "--rich", action="store_true", help="rich presence, with its plugin, beside the plain one"
    )
    parser.add_argument("--beside", type=int, metavar="N", help="all on one node, N strangers on others")
    parser.add_argument("--nodes", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        uvloop.run(inside(options))
        return
    given = [word for word in sys.argv[1:] if word != str(options.base)]
    for tree in filter(None, (options.base, HERE.parents[1])):
        one, several = (measured(tree, nodes, given, options.units) for nodes in NODES)
        idle = [found.pop(IDLE, (0.0, ""))[0] for found in (one, several)]
        for name, (cost, told) in several.items():
            alone, cost = one[name][0] - idle[0], cost - idle[1]
            price = f"{alone:,.0f} on one node, {cost:,.0f} on three, {cost / alone:.3f}"
            print(f"{tree.name}: {name}: {price}; {told}", flush=True)


main()
