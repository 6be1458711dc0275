"""webhooks [--store sqlite|cassandra] [--nodes N] [--kills N] [--within S] [--seed S] [--port P]: SIGKILL to
a server while a receiver of web hooks fails half of the time, and an oracle.

Accounts are made, rosters changed and messages sent. Of each of these that was acknowledged the receiver has
to be told at least once, and of each account in order, whatever was killed and however often it was refused.
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web
from archived import Alone, nodes_of
from backend import DEFAULT, STORES, Backend
from nodes import Node
from stream import Refused, connect
from victim import PASSWORD

from xmppd.admin.client import request
from xmppd.errors import CommandError

ACTORS = 4
"""Of each kind."""
HOOKS = {
    "allowed": ["127.0.0.0/8"],
    "pause": 0.05,
    "pause_most": 2.0,
    "lease": 4.0,
    "attempts": 50,
}
EVENTS = ["account.created", "roster.changed", "message.routed"]
LAST_SECONDS = 90.0
"""How long what is left may take in the end."""

Victim = Alone | Node


class Receiver:
    """Takes half of what it is asked to; `first` has what it took for the first time, in that order."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.first: dict[str, dict[str, Any]] = {}
        self.again = 0
        self.answers: Counter[str] = Counter()
        self.lags: list[float] = []
        self.is_kind = False

    async def start(self) -> str:
        """Where it is."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/hook", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"

    async def close(self) -> None:
        """It is gone."""
        await self._runner.cleanup()

    async def more(self) -> None:
        """Wait a moment for it."""
        await asyncio.sleep(0.25)

    async def _take(self, request: web.Request) -> web.Response:
        events = (await request.json())["events"]
        throw = 1.0 if self.is_kind else self._chance.random()
        if throw < 0.40:
            return self._said("500", 500)
        if throw < 0.45:
            return self._said("503", 503)
        if throw < 0.49:
            assert request.transport is not None
            request.transport.abort()
            return self._said("cut", 500)
        for event in events:
            if event["id"] in self.first:
                self.again += 1
            else:
                self.first[event["id"]] = event
                self.lags.append(time.time() - event["time"])
        return self._said("taken, said 500", 500) if throw < 0.51 else self._said("taken", 200)

    def _said(self, what: str, status: int) -> web.Response:
        self.answers[what] += 1
        return web.Response(status=status)


class Load:
    """Does things, and remembers what was acknowledged: `told` are keys of kind and account, with numbers."""

    def __init__(self, pick: Callable[[], Victim | None]) -> None:
        self._pick = pick
        self.told: dict[tuple[str, str], list[int]] = {}
        self.unanswered = 0
        self.is_over = False

    async def act(self, kind: str, do: Callable[[Victim, int], Awaitable[None]], whose: str) -> None:
        """One thing after the other, each with the next number."""
        count = 0
        while not self.is_over:
            victim = self._pick()
            if victim is None:
                await asyncio.sleep(0.02)
                continue
            count += 1
            try:
                await do(victim, count)
            except (CommandError, OSError, EOFError, Refused, TimeoutError):
                self.unanswered += 1
                await asyncio.sleep(0.05)
            else:
                self.told.setdefault((kind, whose), []).append(count)

    async def look(self, victim: Victim) -> None:
        """Accounts that are there were made, acknowledged or not. (Of several nodes a mark may wait for its
        own to come again.)
        """
        for row in await ask(victim, "user list"):
            whose, _, number = row["account"].partition("@")[0].partition("-")
            numbers = self.told.setdefault(("account.created", whose), []) if number else []
            if number and int(number) not in numbers:
                numbers.append(int(number))


async def ask(victim: Victim, command: str, /, **arguments: Any) -> Any:
    """Have it run a command."""
    path = victim.folder / "xmppd.sock"
    return await asyncio.to_thread(request, path, command, arguments, seconds=15.0)


class Chatter:
    """Writes to somebody who is away; what a later ping is answered for is acknowledged."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stream: Any = None
        self._of: Victim | None = None

    async def __call__(self, victim: Victim, count: int) -> None:
        try:
            if self._stream is None or self._of is not victim:
                if self._stream is not None:
                    self._stream.cut()
                self._stream, self._of = None, victim
                stream = await connect(victim.port)
                self._stream = stream
                await stream.log_in(self.name, PASSWORD)
            self._stream.write(
                f"<message to='away@localhost' id='{count}' type='chat'><body>{count}</body></message>"
            )
            async with asyncio.timeout(10):
                await self._stream.ping()
        except BaseException:
            if self._stream is not None:
                self._stream.cut()
            self._stream = None
            raise


def found(first: dict[str, dict[str, Any]]) -> dict[tuple[str, str], list[int]]:
    """What was told, in the order in which it came first."""
    came: dict[tuple[str, str], list[int]] = {}
    for event in first.values():
        name = event["account"].partition("@")[0]
        kind, data = event["kind"], event["data"]
        if kind == "account.created":
            whose, _, number = name.partition("-")
        elif kind == "roster.changed":
            whose, number = name, data["contact"].partition("@")[0].removeprefix("c")
        else:
            whose, number = name, data["id"]
        if str(number).isdigit():
            came.setdefault((kind, whose), []).append(int(number))
    return came


async def run(victims: Sequence[Victim], nodes: int, arguments: argparse.Namespace) -> int:
    """All of it; the exit status."""
    chance = random.Random(arguments.seed)
    receiver = Receiver(random.Random(arguments.seed + 1))
    url = await receiver.start()
    up, idle = [*victims[:nodes]], [*victims[nodes:]]
    for victim in up:
        await victim.start()
    for name in ("away", *(f"m{n}" for n in range(ACTORS)), *(f"r{n}" for n in range(ACTORS))):
        await ask(up[0], "user add", account=f"{name}@localhost", password=PASSWORD)
    await ask(up[0], "webhook add", name="game", url=url, event=EVENTS)
    await asyncio.sleep(6.0 if nodes > 1 else 0.0)  # until the other nodes know of it
    load = Load(lambda: chance.choice(up) if up else None)

    async def make(victim: Victim, count: int, name: str) -> None:
        await ask(victim, "user add", account=f"{name}-{count}@localhost", password=PASSWORD)

    async def know(victim: Victim, count: int, name: str) -> None:
        await ask(victim, "roster add", account=f"{name}@localhost", contact=f"c{count}@localhost")

    tasks = []
    for n in range(ACTORS):
        for kind, name, do in (
            ("account.created", f"a{n}", lambda v, c, name=f"a{n}": make(v, c, name)),
            ("roster.changed", f"r{n}", lambda v, c, name=f"r{n}": know(v, c, name)),
            ("message.routed", f"m{n}", Chatter(f"m{n}")),
        ):
            tasks.append(asyncio.create_task(load.act(kind, do, name)))
    began = time.monotonic()
    for _ in range(arguments.kills):
        await asyncio.sleep(arguments.within * (0.3 + 0.7 * chance.random()))
        victim = up.pop(chance.randrange(len(up)))
        victim.kill()
        if idle:
            fresh = idle.pop(0)
            idle.append(victim)
        else:
            fresh = victim
        await fresh.start()
        up.append(fresh)
    await asyncio.sleep(arguments.within)
    load.is_over = True
    await asyncio.gather(*tasks)
    took = time.monotonic() - began
    end = time.monotonic() + LAST_SECONDS
    is_alone = arguments.nodes == 1
    if is_alone:
        await load.look(up[0])
    while wrong_with(load, receiver, is_alone=is_alone) and time.monotonic() < end:
        await receiver.more()
    dead = (await ask(up[0], "webhook show", name="game"))["dead"]
    await receiver.close()
    return report(load, receiver, dead, took, arguments)


def wrong_with(load: Load, receiver: Receiver, *, is_alone: bool) -> list[str]:
    """What is lost, and what is out of order. What was not acknowledged when one of several nodes was killed
    is told when that one comes again: then what others did meanwhile may have come before it.
    """
    came, wrong = found(receiver.first), []
    for (kind, whose), numbers in load.told.items():
        have = came.get((kind, whose), [])
        if lost := sorted({*numbers} - {*have}):
            wrong.append(f"{kind} of {whose}: lost {len(lost)}: {lost[:10]}")
        known = have if is_alone else [number for number in have if number in numbers]
        if kind != "account.created" and known != sorted(known):
            wrong.append(f"{kind} of {whose}: out of order")
    return wrong


def report(load: Load, receiver: Receiver, dead: int, took: float, arguments: argparse.Namespace) -> int:
    """Print it; the exit status."""
    acknowledged = Counter(dict.fromkeys(EVENTS, 0))
    for (kind, _), numbers in load.told.items():
        acknowledged[kind] += len(numbers)
    lags = sorted(receiver.lags)
    print(
        f"{arguments.kills} kills in {took:.0f} s, seed {arguments.seed}; {load.unanswered} were on their way"
    )
    print(f"acknowledged: {json.dumps(acknowledged)}")
    print(f"told: {len(receiver.first)}, again: {receiver.again}")
    print(f"answers: {json.dumps(receiver.answers)}; dead letters {dead}")
    middle, high = lags[len(lags) // 2], lags[len(lags) * 99 // 100]
    print(f"lag: median {middle:.2f} s, 99 % {high:.2f} s, most {lags[-1]:.2f} s")
    wrong = wrong_with(load, receiver, is_alone=arguments.nodes == 1)
    wrong += [f"hardly any load of {kind}" for kind, count in acknowledged.items() if count < arguments.kills]
    refused = sum(receiver.answers.values()) - receiver.answers["taken"]
    if refused * 3 < sum(receiver.answers.values()):
        wrong.append("the receiver hardly ever failed")
    print("\n".join(["FAILED:", *wrong]) if wrong else "passed: no event of anything acknowledged is lost")
    return 1 if wrong else 0


def configured(nodes: Sequence[Node]) -> Sequence[Node]:
    """The same nodes, with the plugin."""
    for node in nodes:
        file = node.folder / "xmppd.yaml"
        settings = json.loads(file.read_text())
        settings["plugins"]["enabled"] = ["ping", "offline", "webhooks"]
        settings["plugins"]["config"]["webhooks"] = HOOKS
        file.write_text(json.dumps(settings))
    return nodes


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--within", type=float, default=3.0, help="seconds from a start to a kill, at most")
    parser.add_argument("--port", type=int, default=26242)
    parser.add_argument("--store", choices=STORES, default=DEFAULT)
    parser.add_argument("--nodes", type=int, default=1, help="of which one is killed (cassandra)")
    arguments = parser.parse_args()
    backend = Backend(arguments.store)
    victims: Sequence[Victim] = []
    try:
        backend.start()
        if arguments.store == "cassandra":
            victims = configured(nodes_of(backend, arguments.port, arguments.nodes))
        else:
            environ = {
                "XMPPD__PLUGINS__ENABLED": "[ping, offline, webhooks]",
                "XMPPD__PLUGINS__CONFIG": json.dumps({"webhooks": HOOKS}),
            }
            victims = [Alone(backend.folder / "server", arguments.port, environ, profile="bare")]
        return asyncio.run(guarded(victims, arguments))
    finally:
        backend.remove()


async def guarded(victims: Sequence[Victim], arguments: argparse.Namespace) -> int:
    """Leave no process behind."""
    try:
        return await run(victims, arguments.nodes if arguments.store == "cassandra" else 1, arguments)
    finally:
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                victim.close()


if __name__ == "__main__":
    sys.exit(main())
