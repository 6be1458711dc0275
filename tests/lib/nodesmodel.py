"""Nodes on random schedules under a virtual clock: what they make of logins, moves, presence, messages,
kills, cuts and drains is compared with what it should be when all is quiet (docs/design/018-cluster.md).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from modelnodes import DOMAIN, GRACE_SECONDS, NUMBER, Carrier, Client, Node, Sent, Shelf
from virtualtime import VirtualLoop

from xmppd.cluster import member
from xmppd.cluster.member import CLOSE_SECONDS
from xmppd.cluster.mesh import Met
from xmppd.core.binding import SHUTDOWN
from xmppd.core.roster.rosters import Roster
from xmppd.errors import StreamError

RULES = ("R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8", "HAVE", "lock", "grace", "end of grace")
"""What can be switched off, to see that it is missed."""

FAULTS = ("", "slow", "kill", "cut", "kill,cut", "drain", "kill,cut,drain")
"""What goes wrong in a run; slow nodes write some time after they have something to say."""

SLOW_SECONDS = 0.05

STEPS = 120
QUIET_SECONDS = 25.0
UNSURE_SECONDS = 0.5
"""Who leaves within so long after he was given what was stored is not counted as having read it."""

DEAD_SECONDS = (5.0, 8.0)
"""How long a node that was killed is away."""

LEFT_SECONDS = (0.1, 3.0)
"""How long one that left is away."""

FAREWELL_SECONDS = 2.5
"""How long what was said last is under way at most."""

BACK_SECONDS = (0.05, 1.5)
"""When a client comes back whose node was drained."""

LATE_SECONDS = 5.0
"""For how long it may be seen what happened before a session was moved."""


class Model:
    """The world of one run. `faults` are some of "kill", "cut" and "drain", `off` some of RULES."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seed: int, faults: frozenset[str], off: frozenset[str]
    ):
        self.loop = loop
        self.random = random.Random(seed)
        self.faults = faults
        self._off = off
        self.shelf = Shelf(self)
        self.locks: dict[str, Node] = {}
        self.accounts = [f"u{number}" for number in range(5)]
        names = [f"{name}@{DOMAIN}" for name in self.accounts]
        self.followers = {
            name: [other for other in names if other != name and self.random.random() < 0.6] for name in names
        }
        self.rosters = {
            name: Roster(
                name,
                1,
                tuple(self.followers[name]),
                tuple(other for other in names if name in self.followers[other]),
            )
            for name in names
        }
        self.nodes: dict[str, Node] = {}
        self.clients: list[Client] = []
        self.sent: dict[int, Sent] = {}
        self.acked: set[int] = set()
        self.log: list[tuple[Client, int, bool, float]] = []
        self.failures: list[str] = []
        self._came: list[tuple[float, str]] = []
        self._ended: list[tuple[float, str]] = []
        self._moved: list[tuple[float, str]] = []
        self._incarnations = 0
        self._trunks = 0
        self._numbers = 0
        self._statuses = 0
        self._slice = 0.0
        self._apart: dict[frozenset[str], float] = {}
        for name in "ABC":
            self.join(name)

    def slices(self) -> float:
        """A clock for slices of work, which end anywhere."""
        self._slice += self.random.random() * 0.0002
        return self._slice

    # nodes and connections

    def join(self, name: str) -> None:
        """A node starts."""
        self._incarnations += 1
        node = self.nodes[name] = Node(self, name, self._incarnations, self._off)
        for other in [*self.nodes.values()]:
            if other is not node:
                self._dial(node, other)

    def _dial(self, one: Node, other: Node) -> None:
        """Connect two nodes, unless something is in the way; then later."""
        if one.is_dead or other.is_dead or one.is_leaving or other.is_leaving:
            return
        apart = self._apart.get(frozenset((one.name, other.name)), 0.0)
        if apart > self.loop.time():
            self.loop.call_at(apart + self.random.uniform(0.0, 0.2), self._dial, one, other)
            return
        carrier = one.carriers.get(other.name)
        if carrier is not None and carrier.is_open and carrier.other is other:
            return
        self.loop.call_later(self.random.uniform(0.001, 0.02), self._met, one, other, self.loop.time())

    def _met(self, one: Node, other: Node, since: float) -> None:
        if one.is_dead or other.is_dead or one.is_leaving or other.is_leaving:
            return
        carrier = one.carriers.get(other.name)
        if carrier is not None and carrier.is_open and carrier.other is other:
            return
        members = [here.mesh.members.get(there.name) for here, there in ((one, other), (other, one))]
        trunks = {
            member.trunk.number if member is not None and member.incarnation == there.mesh.incarnation else 0
            for member, there in zip(members, (other, one), strict=True)
        }
        number = trunks.pop()
        if trunks or not number:
            self._trunks += 1
            number = self._trunks
        taken = [m.trunk.taken if m is not None and m.trunk.number == number else 0 for m in members]
        ends = Carrier(self, one, other), Carrier(self, other, one)
        ends[0].end, ends[1].end = ends[1], ends[0]
        for end, count in zip(ends, reversed(taken), strict=True):
            end.node.carriers[end.other.name] = end
            met = Met(end.other.name, end.other.mesh.incarnation, number, count, since)
            end.member = end.node.mesh.met(met, end)

    def broken(self, carrier: Carrier) -> None:
        """A connection ended: it is made anew, or the other node is dead."""
        one, other = carrier.node, carrier.other
        if one.is_dead or other.is_dead:
            for dead, living in ((one, other), (other, one)):
                member = living.mesh.members.get(dead.name)
                if dead.is_dead and member is not None and member.incarnation == dead.mesh.incarnation:
                    self.loop.call_later(
                        self.random.uniform(0.5, 4.0), living.mesh.give_up, member, "it is dead"
                    )
            return
        self.loop.call_later(self.random.uniform(0.0, 0.2), self._dial, one, other)

    def kill(self) -> None:
        """A node dies, and comes back as another."""
        node = self.nodes.pop(self.random.choice([*self.nodes]))
        node.kill()
        self.loop.call_later(self.random.uniform(*DEAD_SECONDS), self.join, node.name)

    def drain(self) -> None:
        """A node is told to stop, and comes back as another."""
        node = self.nodes.pop(self.random.choice([*self.nodes]))
        node.spawn(self._leave(node))

    async def _leave(self, node: Node) -> None:
        for client in [client for client in self.clients if client.node is node]:
            if not client.is_over:
                node.binding.end(client.session, StreamError(SHUTDOWN))
                if self.random.random() < 0.7:
                    self.loop.call_later(self.random.uniform(*BACK_SECONDS), self._come_back, client)
                await asyncio.sleep(self.random.choice((0.0, 0.01, 0.3)))
        await asyncio.sleep(FAREWELL_SECONDS)
        node.is_leaving = True
        node.mesh.bid_farewell()
        await asyncio.sleep(FAREWELL_SECONDS)
        self.loop.call_later(self.random.uniform(*LEFT_SECONDS), self.join, node.name)
        node.kill()

    def _come_back(self, client: Client) -> None:
        session = client.session
        node = self.nodes[self.random.choice([*self.nodes])]
        again = Client(self, node, session.account.partition("@")[0], session.resource)
        self.clients.append(again)
        if self.random.random() < 0.95:
            again.show(self._status(), session.priority)

    def cut(self) -> None:
        """Two nodes do not reach each other for a while, shorter or longer than they trust each other."""
        one, other = self.random.sample([*self.nodes.values()], 2)
        seconds = self.random.choice((self.random.uniform(0.0, 1.0), self.random.uniform(6.0, 9.0)))
        self._apart[frozenset((one.name, other.name))] = self.loop.time() + seconds
        carrier = one.carriers.get(other.name)
        if carrier is not None and carrier.is_open:
            carrier.close()

    # clients

    def act(self) -> None:
        """Something happens."""
        chance, rnd = self.random.random(), self.random
        clients = [client for client in self.clients if not client.is_over]
        if chance < 0.3 or not clients:
            node = self.nodes[rnd.choice([*self.nodes])]
            client = Client(self, node, rnd.choice(self.accounts), rnd.choice("xy"))
            self.clients.append(client)
            if rnd.random() < 0.95:
                client.show(self._status(), rnd.choice((0, 0, 5, -1)))
        elif chance < 0.42:
            client = rnd.choice(clients)
            client.node.binding.end(client.session)
        elif chance < 0.45:
            rnd.choice(clients).show("", 0)
        elif chance < 0.6:
            client = rnd.choice(clients)
            client.show(self._status(), rnd.choice((client.session.priority, 0, 5, -1)))
        elif chance < 0.97 or not self.faults & {"kill", "cut", "drain"}:
            client = rnd.choice(clients)
            self._numbers += 1
            to = f"{rnd.choice(self.accounts)}@{DOMAIN}"
            if rnd.random() < 0.2:
                to += f"/{rnd.choice('xy')}"
            self.sent[self._numbers] = Sent(client, self._numbers, to)
            client.send(self._numbers)
        elif "drain" in self.faults and (chance < 0.98 or not self.faults & {"kill", "cut"}):
            if len(self.nodes) == 3:
                self.drain()
        elif "kill" in self.faults and chance < 0.985 and len(self.nodes) == 3:
            self.kill()
        elif "cut" in self.faults:
            self.cut()

    def _status(self) -> str:
        self._statuses += 1
        return f"s{self._statuses}"

    def delivered(self, client: Client, number: int, *, was_stored: bool) -> None:
        """A message came to a client."""
        self.log.append((client, number, was_stored, self.loop.time()))

    def handled(self, client: Client, number: int) -> None:
        """Its sender is told that a message was handled."""
        if not client.node.is_dead:
            self.acked.add(number)

    def came(self, full: str) -> None:
        """A session becomes available."""
        self._came.append((self.loop.time(), full))

    def ended(self, full: str, *, is_moved: bool) -> None:
        """A session ends or becomes unavailable."""
        (self._moved if is_moved else self._ended).append((self.loop.time(), full))

    def seen_to_go(self, viewer: Client, full: str) -> None:
        """A client is shown that a session is not available any more: not one that is still expected, unless
        another of its account has come instead.
        """
        now, account = self.loop.time(), full.partition("/")[0]
        moved = max((at for at, name in self._moved if name == full), default=-1e9)
        if now >= moved + GRACE_SECONDS or self.faults & {"kill", "cut"}:
            return
        since = moved - LATE_SECONDS
        has_ended = any(at >= since and name == full for at, name in self._ended)
        came = {name for at, name in self._came if at >= since and name.startswith(f"{account}/")}
        if not has_ended and not came - {full}:
            self.failures.append(f"{viewer.session.full} on {viewer.node.name} sees {full} go")

    # the run

    async def run(self) -> list[str]:
        """Act, wait until all is quiet, and tell what is wrong."""
        await asyncio.sleep(1.0)
        for _ in range(STEPS):
            await asyncio.sleep(self.random.expovariate(1 / self.random.choice((0.003, 0.05, 0.5))))
            self.act()
        apart = max(self._apart.values(), default=0.0) - self.loop.time()
        away = (12.0 if "drain" in self.faults else DEAD_SECONDS[1]) if len(self.nodes) < 3 else 0.0
        await asyncio.sleep(max(apart, away, 0.0))
        await asyncio.sleep(QUIET_SECONDS)
        return [*self._wrong()]

    def _wrong(self) -> Iterator[str]:
        there = [client for client in self.clients if not client.is_over]
        yield from (f"failed: {error}" for error in self.failures)
        yield from self._wrong_places(there)
        yield from self._wrong_views(there)
        yield from self._wrong_messages(there)

    def _wrong_places(self, there: list[Client]) -> Iterator[str]:
        owners: dict[str, list[str]] = defaultdict(list)
        for client in there:
            owners[client.session.full].append(client.node.name)
        yield from (f"owners {full}: {names}" for full, names in owners.items() if len(names) > 1)
        for node in self.nodes.values():
            wanted = {
                (c.session.full, c.node.name, c.session.priority if c.session.presence else None)
                for c in there
                if c.node is not node
            }
            found = set()
            for name in self.accounts:
                account = f"{name}@{DOMAIN}"
                for place in node.mesh.whereabouts.of(account):
                    at = node.mesh.member(place.node).name
                    found.add((f"{account}/{place.resource}", at, place.priority))
            if found != wanted:
                yield f"places of {node.name}: {sorted(found ^ wanted, key=str)}"
            presence = node.others.presence
            left = len(node.others.messages), len(presence._asked), len(presence.grace)
            if any(left):
                yield f"left on {node.name}: {left}"

    def _wrong_views(self, there: list[Client]) -> Iterator[str]:
        for viewer in there:
            if viewer.session.presence is None:
                continue
            account, full = viewer.session.account, viewer.session.full
            wanted = {
                c.session.full: c.status
                for c in there
                if c.session.presence is not None
                and c.session.full != full
                and (c.session.account == account or account in self.followers[c.session.account])
            }
            found = {seen: status for seen, status in viewer.view.items() if seen != full}
            if found != wanted:
                differing = sorted(found.items() ^ wanted.items())
                yield f"view of {full} on {viewer.node.name}: {differing}, wanted {sorted(wanted.items())}"

    def _wrong_messages(self, there: list[Client]) -> Iterator[str]:
        stored = {
            int(match[1])
            for rows in self.shelf.rows.values()
            for _, row in rows
            if (match := NUMBER.search(row["stanza"])) is not None
        }
        arrived = {number for _, number, _, _ in self.log}
        lost = sorted(self.acked - arrived - stored)
        if lost:
            yield f"lost {lost}"
        is_quiet = not self.faults & {"kill", "cut"}
        flushed: dict[int, int] = defaultdict(int)
        order: dict[tuple[int, int, str], list[int]] = defaultdict(list)
        seen: set[tuple[int, int]] = set()
        for client, number, was_stored, at in self.log:
            has_stayed = not any(at <= left < at + UNSURE_SECONDS for left in client.left)
            flushed[number] += was_stored and has_stayed
            key = id(client), number
            if key in seen:
                if is_quiet and has_stayed:
                    yield f"twice {number} to {client.session.full}"
                continue
            seen.add(key)
            sender, _, to = self.sent[number]
            if "/" in to and (to != client.session.full or sender.node is client.node):
                continue  # to one session of several, of which one is nearer than the others
            if "/" not in to or was_stored:
                order[id(client), id(sender), "as to the account"].append(number)
            if not was_stored:
                order[id(client), id(sender), "at once"].append(number)
        if is_quiet:
            yield from (f"flushed twice: {number}" for number, count in flushed.items() if count > 1)
        times = Counter(number for _, number, _, _ in self.log)
        for (receiver, _, _), all_numbers in order.items():
            numbers = [n for n in all_numbers if "cut" not in self.faults or times[n] == 1]
            if numbers != sorted(numbers):
                full = next(c.session.full for c in self.clients if id(c) == receiver)
                yield f"order at {full}: {numbers}"
        willing = {c.session.account for c in there if c.session.presence and c.session.priority >= 0}
        yield from (
            f"left stored for {a}: {len(self.shelf.rows[a])}" for a in sorted(willing) if self.shelf.rows[a]
        )


class Mistaken(logging.Handler):
    """Notes what the parts log as mistakes of their own."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._mistakes = mistakes

    def emit(self, record: logging.LogRecord) -> None:
        """Note one."""
        error = record.exc_info[1] if record.exc_info else None
        self._mistakes.append(f"{record.getMessage()}: {error!r}")


class Run:
    """Runs of one loop."""

    def __init__(self) -> None:
        self._loop = VirtualLoop()
        self._mistakes: list[str] = []
        self._loop.set_exception_handler(self._failed)
        self._mistaken = Mistaken(self._mistakes)
        self._logger = logging.getLogger("xmppd")

    def __enter__(self) -> Run:
        self._logger.addHandler(self._mistaken)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self._mistaken)
        self._loop.close()

    def wrong(self, seed: int, faults: str = "", off: str = "") -> list[str]:
        """What is wrong in the run of a seed."""
        chosen = frozenset(faults.split(",")) - {""}
        self._mistakes.clear()
        with patch.object(member, "CLOSE_SECONDS", SLOW_SECONDS if "slow" in chosen else CLOSE_SECONDS):
            found = self._loop.run_until_complete(self._run(seed, chosen, frozenset(off.split(",")) - {""}))
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop._scheduled.clear()  # type: ignore[attr-defined]
        return [*(f"failed: {mistake}" for mistake in self._mistakes), *found]

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._mistakes.append(f"{context['message']}: {context.get('exception')!r}")

    async def _run(self, seed: int, faults: frozenset[str], off: frozenset[str]) -> list[str]:
        return await Model(self._loop, seed, faults, off).run()
