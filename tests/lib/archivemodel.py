"""Archives of several nodes on random schedules: the real `Order` and clocks, between models of what is
around them. Senders write to one account, whose devices come, catch up behind the last id that they saw, and
go. Nodes may be killed, and others come in their place.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from functools import partial

from virtualtime import VirtualLoop

from plugins.archive.ids import Pool
from plugins.archive.order import Order
from plugins.archive.under_way import Entry
from xmppd.core.ids import HybridClock
from xmppd.xml.stanza import Stanza

RECEIVER = "receiver"
MESSAGE = Stanza("message", {}, b"<message/>")
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
        self.order = kind(self, self.clock, pool.new_id, loop.time, nothing)
        self.devices: list[Device] = []
        self.elsewhere: dict[tuple[str, int, int], bool] = {}
        self.lines: list[deque[Entry]] = [deque(), deque()]
        self.peers: dict[str, Node] = {}
        self.away: dict[Node, list[Parcel]] = {}
        self.coming: set[asyncio.Task[None]] = set()
        self.is_dead = False

    # who else is there

    def meet(self, other: Node) -> None:
        """There is another node, which is told who is here; the one that had its name is gone."""
        if (former := self.peers.get(other.name)) is not None:
            self.lose(former)
        self.peers[other.name] = other
        self.order.met()
        for device in self.devices:
            self._tell(other, device, device.visit, is_gone=False)

    def lose(self, other: Node) -> None:
        """A node is given up: what it had not taken goes elsewhere."""
        if self.is_dead or self.peers.get(other.name) is not other:
            return
        del self.peers[other.name]
        for key in [key for key in self.elsewhere if key[0] == other.name]:
            del self.elsewhere[key]
        self.order.lost(other.name)
        for parcel in [*self.away.get(other, ())]:
            self.taken(parcel, other, was_taken=False)

    def die(self) -> None:
        """It is killed, and so are its sessions."""
        self.is_dead = True
        for device in self.devices:
            device.node, device.is_available = None, False
        self.devices.clear()
        for task in self.coming:
            task.cancel()

    # what `Order` asks

    def others(self) -> Collection[str]:
        return self._names() if "knowing" in self.model.rules else ()

    def _names(self) -> list[str]:
        return [*self.peers]

    def of(self, account: str) -> Collection[str]:
        if account != RECEIVER or "agreement" not in self.model.rules:
            return ()
        return {name for name, *_ in self.elsewhere}

    def sessions(self, account: str) -> Sequence[object]:
        return [device.session for device in self.devices] if account == RECEIVER else [self]

    def tell(self, node: str, verb: str, account: str, id: bytes, other: bytes) -> None:
        self.model.said[verb] += 1
        if (there := self.peers.get(node)) is not None:
            self.model.carry(self, there, partial(there.order.hear, self.name, verb, account, id, other))

    # sending

    def send(self) -> None:
        """One of its senders says something, behind what he said before."""
        number = self.model.random.randrange(len(self.lines))
        name, line = f"sender {number} at {self.name}", self.lines[number]
        entry = self.order.entry([name, RECEIVER], name, MESSAGE)
        line.append(entry)
        self.order.begin(entry, self._file)
        if len(line) == 1:
            self._go_on(line)

    def _file(self, entry: Entry) -> None:
        self.model.loop.call_later(self.model.write_seconds(), self._filed, entry)

    def _filed(self, entry: Entry) -> None:
        if self.is_dead:
            if self.model.random.random() < 0.5:
                self.model.archive.add(entry.id)
            return
        self.model.archive.add(entry.id)
        entry.written()

    def _go_on(self, line: deque[Entry]) -> None:
        while line:
            entry = line[0]
            if not entry.is_ready:
                entry.when_ready(partial(self._go_on, line))
                return
            if "order" in self.model.rules and entry.held_up():
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
        for node in [self.peers[name] for name in there]:
            parcel.left += 1
            self.away.setdefault(node, []).append(parcel)
            self.model.carry(self, node, partial(node.take, self, parcel))
        parcel.was_taken = bool(here)
        if here and not there:
            self._end(parcel)
        elif not there:
            self.model.loop.call_later(self.model.write_seconds(), self._stored, parcel)

    def take(self, sender: Node, parcel: Parcel) -> None:
        devices = [device for device in self.devices if device.is_available]
        for device in devices:
            device.see(parcel.entry.id)
        self.model.carry(self, sender, partial(sender.taken, parcel, self, was_taken=bool(devices)))

    def taken(self, parcel: Parcel, node: Node, *, was_taken: bool) -> None:
        self.away[node].remove(parcel)
        parcel.left -= 1
        parcel.was_taken = parcel.was_taken or was_taken
        if not parcel.left:
            if parcel.was_taken:
                self._end(parcel)
            else:
                self._route(parcel)

    def _stored(self, parcel: Parcel) -> None:
        if self.is_dead and self.model.random.random() < 0.5:
            return
        self.model.queue.add(parcel.entry.id)
        if self.is_dead:
            return
        for node in self.peers.values():
            self.model.carry(self, node, node.flush)
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
        if not self.is_dead:
            self._tell_all(device, visit, is_gone=True)
            self.order.left(RECEIVER)

    def _tell_all(self, device: Device, visit: int, *, is_gone: bool) -> None:
        for node in self.peers.values():
            self._tell(node, device, visit, is_gone=is_gone)

    def _tell(self, node: Node, device: Device, visit: int, *, is_gone: bool) -> None:
        key = self.name, device.name, visit
        told: Callable[[], object]
        if is_gone:
            told = partial(node.elsewhere.pop, key, None)
        else:
            told = partial(node.elsewhere.__setitem__, key, device.is_available)
        self.model.carry(self, node, told)


class Model:
    """All of it; `run` gives how many acknowledged messages some device never sees. Nodes are lost if there
    are `kills`, which are counted.
    """

    def __init__(
        self, seed: int, *, nodes: int, devices: int, rules: Collection[str] = RULES, kills: bool = False
    ) -> None:
        self.random = random.Random(seed)
        self.loop = VirtualLoop()
        self.rules = rules
        self.skew = 0.05
        self.archive: set[bytes] = set()
        self.queue: set[bytes] = set()
        self.acknowledged: set[bytes] = set()
        self.said: Counter[str] = Counter()
        self.killed = 0
        self._kills = kills
        self._last: dict[tuple[Node, Node], float] = {}
        self._is_shared = nodes > 1
        self.nodes: dict[str, Node] = {}
        self._alive: list[Node] = []
        for number in range(nodes):
            node = self._born(f"n{number}")
            self.nodes[node.name] = node
        self.devices = [Device(number) for number in range(devices)]

    def write_seconds(self) -> float:
        rnd = self.random
        return rnd.uniform(0.05, 0.4) if rnd.random() < 0.02 else rnd.uniform(0.001, 0.01)

    async def pause(self, least: float, most: float) -> None:
        await asyncio.sleep(self.random.uniform(least, most))

    def _born(self, name: str) -> Node:
        """A node which all others meet, and that nobody uses yet."""
        node = Node(self, name, is_shared=self._is_shared)
        self._alive = [other for other in self._alive if not other.is_dead]
        for other in self._alive:
            other.meet(node)
            node.meet(other)
        self._alive.append(node)
        return node

    def carry(self, sender: Node, node: Node, do: Callable[[], object]) -> None:
        """Say something to another node, behind all that it was told before; its clock follows. What is on
        its way when either is killed may be lost.
        """
        at, key = sender.clock.read(), (sender, node)
        slow = self.random.random() < 0.02
        when = self.loop.time() + self.random.uniform(0.0002, 0.05 if slow else 0.003)
        when = self._last[key] = max(when, self._last.get(key, 0.0))

        def come() -> None:
            if not node.is_dead and node.peers.get(sender.name) is sender:
                node.clock.see(at)
                do()

        self.loop.call_at(when, come)

    async def _live(self, device: Device, until: float) -> None:
        """It comes and goes."""
        while self.loop.time() < until:
            await self.pause(0.0, 0.1)
            node = self.random.choice([node for node in self.nodes.values() if not node.is_dead])
            coming = asyncio.ensure_future(node.come(device))
            node.coming.add(coming)
            await self.pause(0.0, 0.2)
            if device.node is node:
                node.go(device)
            await asyncio.wait((coming,))
            node.coming.remove(coming)
            if not coming.cancelled():
                coming.result()

    async def _write(self, name: str, until: float) -> None:
        while self.loop.time() < until:
            await asyncio.sleep(self.random.expovariate(1 / 0.01))
            if not self.nodes[name].is_dead:
                self.nodes[name].send()

    async def _kill(self, until: float) -> None:
        """One node after the other is killed, and sooner or later another one comes by its name; one is left.
        Clients come to that when it knows who is elsewhere.
        """
        while self._kills and self.loop.time() < until - 1.0:
            await self.pause(0.05, 0.8)
            alive = [node for node in self.nodes.values() if not node.is_dead]
            if len(alive) > 1:
                killed = self.random.choice(alive)
                killed.die()
                self.killed += 1
                for node in [*killed.peers.values()]:
                    self.loop.call_later(self.random.uniform(0.0, 0.4), node.lose, killed)
                self.loop.call_later(self.random.uniform(0.0, 0.6), self._bear, killed.name)

    def _bear(self, name: str) -> None:
        node = self._born(name)
        self.loop.call_later(0.1, self.nodes.__setitem__, name, node)

    async def _run(self) -> int:
        until = self.loop.time() + 5.0
        await asyncio.gather(
            *(self._live(device, until) for device in self.devices),
            *(self._write(name, until) for name in self.nodes),
            self._kill(until),
        )
        await asyncio.sleep(5.0)
        for device in self.devices:
            await next(iter(self.nodes.values())).come(device)
        await asyncio.sleep(5.0)
        assert not any(node.is_dead or any(node.lines) for node in self.nodes.values())
        assert self.acknowledged <= self.archive
        assert self.killed or len(self.acknowledged) == len(self.archive)
        return sum(len(self.acknowledged - device.seen) for device in self.devices)

    def run(self) -> int:
        try:
            return self.loop.run_until_complete(self._run())
        finally:
            self.loop.close()
