"""Archives of several nodes on random schedules: the real `Order` and clocks, between models of what is
around them. Senders write to one account, whose devices come, catch up behind the last id that they saw, and
go.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from functools import partial

from virtualtime import VirtualLoop

from plugins.archive.ids import Pool, new_id
from plugins.archive.order import Order
from plugins.archive.under_way import Entry
from xmppd.core.ids import HybridClock

RECEIVER = "receiver"
END = b"\xff"
RULES = frozenset(("order", "horizon", "agreement", "knowing", "pointers"))
"""What can be switched off."""


def nothing() -> None:
    """Nothing hangs here."""


class Careless(Order):
    """Lets go whatever is written."""

    def _may_go(self, entry: Entry) -> bool:
        return True


class Device:
    """One device of the receiver. `last`: the largest id that it saw when it had caught up."""

    def __init__(self, name: int) -> None:
        self.name = name
        self.node: Node | None = None
        self.session = object()
        self.visit = 0
        self.is_available = False
        self.has_caught_up = False
        self.last = b""
        self.seen: set[bytes] = set()
        self.twice = 0

    def see(self, id: bytes) -> None:
        self.twice += id in self.seen
        self.seen.add(id)
        if self.has_caught_up:
            self.last = max(self.last, id)

    def catch_up(self, ids: Collection[bytes]) -> None:
        """It is given the page behind its last one."""
        for id in ids:
            self.see(id)
        self.has_caught_up = True
        self.last = max(self.seen, default=b"")


class Parcel:
    """A message on its way to where the receiver is."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.left = 0
        self.was_taken = False


class Node:
    """One node: what it knows of the others comes to it by their lines. Its own neighbour for `Order`."""

    def __init__(self, model: Model, name: str, *, is_shared: bool) -> None:
        self.model = model
        self.name = name
        self.is_shared = is_shared
        rnd = model.random
        skew = rnd.uniform(-model.skew, model.skew)
        self.clock = HybridClock(lambda: 1e9 + model.loop.time() + skew)
        pool = Pool()
        kind = Order if "order" in model.rules else Careless
        loop = model.loop
        self.order = kind(self, self.clock, lambda at: new_id(at, pool), loop.time, nothing)
        self.devices: list[Device] = []
        self.elsewhere: dict[tuple[str, int, int], bool] = {}
        self.lines: list[deque[Entry]] = [deque(), deque()]

    # what `Order` asks

    def others(self) -> Collection[str]:
        return self._names() if "knowing" in self.model.rules else ()

    def _names(self) -> list[str]:
        return [name for name in self.model.nodes if name != self.name]

    def of(self, account: str) -> Collection[str]:
        if account != RECEIVER or "agreement" not in self.model.rules:
            return ()
        return {name for name, *_ in self.elsewhere}

    def sessions(self, account: str) -> Sequence[object]:
        return [device.session for device in self.devices] if account == RECEIVER else [self]

    def tell(self, node: str, verb: str, account: str, id: bytes, other: bytes) -> None:
        self.model.said[verb] += 1
        there = self.model.nodes[node].order
        self.model.carry(self, node, partial(there.hear, self.name, verb, account, id, other))

    # sending

    def send(self) -> None:
        """One of its senders says something, behind what he said before."""
        number = self.model.random.randrange(len(self.lines))
        name, line = f"sender {number} at {self.name}", self.lines[number]
        entry = self.order.entry([name, RECEIVER], name)
        line.append(entry)
        self.order.begin(entry, self._file)
        if len(line) == 1:
            self._go_on(line)

    def _file(self, entry: Entry) -> None:
        self.model.loop.call_later(self.model.write_seconds(), self._filed, entry)

    def _filed(self, entry: Entry) -> None:
        self.model.archive.add(entry.id)
        entry.written()

    def _go_on(self, line: deque[Entry], _: object = None) -> None:
        while line:
            entry = line[0]
            if not entry.ready.done():
                entry.ready.add_done_callback(partial(self._go_on, line))
                return
            if "order" in self.model.rules and entry.held_up() is not None:
                continue
            line.popleft()
            self._route(Parcel(entry))
            entry.shown()

    def _route(self, parcel: Parcel) -> None:
        """Give it to all devices that are there; nobody: it is stored."""
        id = parcel.entry.id
        here = [device for device in self.devices if device.is_available]
        there = {name for (name, *_), is_available in self.elsewhere.items() if is_available}
        for device in here:
            device.see(id)
        for node in there:
            parcel.left += 1
            self.model.carry(self, node, partial(self.model.nodes[node].take, self, parcel))
        parcel.was_taken = bool(here)
        if here and not there:
            self._end(parcel)
        elif not there:
            self.model.loop.call_later(self.model.write_seconds(), self._stored, parcel)

    def take(self, sender: Node, parcel: Parcel) -> None:
        devices = [device for device in self.devices if device.is_available]
        for device in devices:
            device.see(parcel.entry.id)
        self.model.carry(self, sender.name, partial(sender.taken, parcel, bool(devices)))

    def taken(self, parcel: Parcel, was_taken: bool) -> None:
        parcel.left -= 1
        parcel.was_taken = parcel.was_taken or was_taken
        if not parcel.left:
            if parcel.was_taken:
                self._end(parcel)
            else:
                self._route(parcel)

    def _stored(self, parcel: Parcel) -> None:
        self.model.queue.add(parcel.entry.id)
        for node in self.model.nodes.values():
            if node is not self:
                self.model.carry(self, node.name, node.flush)
        self.flush()
        self._end(parcel)

    def _end(self, parcel: Parcel) -> None:
        self.model.acknowledged.add(parcel.entry.id)
        parcel.entry.ended()

    def flush(self) -> None:
        """What was stored while somebody came."""
        for device in self.devices:
            if device.is_available:
                self.give(device, b"", b"")
                break

    def give(self, device: Device, after: bytes, until: bytes) -> None:
        """Give what waits, but for what is behind `after` and before `until`: it has that."""
        waiting, self.model.queue = self.model.queue, set()
        if "pointers" in self.model.rules:
            for id in sorted(id for id in waiting if not after < id < until):
                device.see(id)

    # devices

    async def come(self, device: Device) -> None:
        """It catches up before it is available, or afterwards: where others may be given what comes between,
        it has to be afterwards.
        """
        device.node, device.session, device.has_caught_up = self, object(), False
        device.visit += 1
        self.devices.append(device)
        self._tell_all(device, device.visit, is_gone=False)
        asks_first = len(self.model.devices) == 1 and self.model.random.random() < 0.7
        if not asks_first:
            self._appear(device, b"", b"")
        await self.model.pause(0.0, 0.003)
        after = device.last
        end = await self.order.horizon(RECEIVER) if "horizon" in self.model.rules else END
        await self.model.pause(0.0, 0.003)
        found = sorted(id for id in self.model.archive if after < id < end)
        if device.node is self:
            device.catch_up(found)
            await self.model.pause(0.0, 0.003)
        if device.node is self and asks_first:
            self._appear(device, after, end)

    def _appear(self, device: Device, after: bytes, until: bytes) -> None:
        device.is_available = True
        self._tell_all(device, device.visit, is_gone=False)
        self.give(device, after, until)

    def go(self, device: Device) -> None:
        """Its session is gone at once; that is told when those who see it have been told."""
        device.node, device.is_available = None, False
        self.devices.remove(device)
        slow = self.model.random.random() < 0.5
        self.model.loop.call_later(
            self.model.random.uniform(0.0, 0.2) if slow else 0.0, self._went, device, device.visit
        )

    def _went(self, device: Device, visit: int) -> None:
        self._tell_all(device, visit, is_gone=True)
        self.order.left(RECEIVER)

    def _tell_all(self, device: Device, visit: int, *, is_gone: bool) -> None:
        for name in self._names():
            elsewhere = self.model.nodes[name].elsewhere
            key = self.name, device.name, visit
            told: Callable[[], object]
            if is_gone:
                told = partial(elsewhere.pop, key, None)
            else:
                told = partial(elsewhere.__setitem__, key, device.is_available)
            self.model.carry(self, name, told)


class Model:
    """All of it; `run` gives how many acknowledged messages some device never sees."""

    def __init__(self, seed: int, *, nodes: int, devices: int, rules: Collection[str] = RULES) -> None:
        self.random = random.Random(seed)
        self.loop = VirtualLoop()
        self.rules = rules
        self.skew = 0.05
        self.archive: set[bytes] = set()
        self.queue: set[bytes] = set()
        self.acknowledged: set[bytes] = set()
        self.said: Counter[str] = Counter()
        self._last: dict[tuple[str, str], float] = {}
        self.nodes: dict[str, Node] = {}
        for number in range(nodes):
            self.nodes[f"n{number}"] = Node(self, f"n{number}", is_shared=nodes > 1)
        self.devices = [Device(number) for number in range(devices)]

    def write_seconds(self) -> float:
        rnd = self.random
        return rnd.uniform(0.05, 0.4) if rnd.random() < 0.02 else rnd.uniform(0.001, 0.01)

    async def pause(self, least: float, most: float) -> None:
        await asyncio.sleep(self.random.uniform(least, most))

    def carry(self, sender: Node, node: str, do: Callable[[], object]) -> None:
        """Say something to another node, behind all that it was told before; its clock follows."""
        at, key = sender.clock.read(), (sender.name, node)
        slow = self.random.random() < 0.02
        when = self.loop.time() + self.random.uniform(0.0002, 0.05 if slow else 0.003)
        when = self._last[key] = max(when, self._last.get(key, 0.0))

        def come() -> None:
            self.nodes[node].clock.see(at)
            do()

        self.loop.call_at(when, come)

    async def _live(self, device: Device, until: float) -> None:
        """It comes and goes."""
        while self.loop.time() < until:
            await self.pause(0.0, 0.1)
            node = self.random.choice([*self.nodes.values()])
            coming = asyncio.ensure_future(node.come(device))
            await self.pause(0.0, 0.2)
            if device.node is node:
                node.go(device)
            await coming

    async def _write(self, node: Node, until: float) -> None:
        while self.loop.time() < until:
            await asyncio.sleep(self.random.expovariate(1 / 0.01))
            node.send()

    async def _run(self) -> int:
        until = self.loop.time() + 5.0
        await asyncio.gather(
            *(self._live(device, until) for device in self.devices),
            *(self._write(node, until) for node in self.nodes.values()),
        )
        await asyncio.sleep(5.0)
        for device in self.devices:
            await next(iter(self.nodes.values())).come(device)
        await asyncio.sleep(5.0)
        assert not any(line for node in self.nodes.values() for line in node.lines)
        assert len(self.acknowledged) == len(self.archive)
        return sum(len(self.acknowledged - device.seen) for device in self.devices)

    def run(self) -> int:
        try:
            return self.loop.run_until_complete(self._run())
        finally:
            self.loop.close()
