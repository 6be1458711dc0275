"""Nodes on random schedules under a virtual clock: what they make of logins, moves, presence, contacts,
messages, questions, kills, freezes, cuts and drains is compared with what it should be when all is quiet
(docs/design/018-cluster.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest.mock import patch

from modelcache import Cache
from modelchecks import Checks, wrongly_split
from modelclients import DOMAIN, Client, Parting, Sent
from modelengines import Shelf
from modelnet import Net
from modelnodes import GRACE_SECONDS, NAMES, Node
from virtualtime import VirtualLoop

from xmppd.cluster import member, trunk
from xmppd.cluster.member import CLOSE_SECONDS
from xmppd.cluster.messages import UnderWay
from xmppd.core.roster.item import RosterItem

RULES = (
    *("R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8"),
    *("HAVE", "trust", "lease", "lock", "grace", "end of grace"),
    *("debts", "back", "one name", "words", "beyond"),
)
"""What can be switched off, to see that it is missed. `trust`: whoever was given up goes on taking; `lease`:
a node is given up while it still trusts; `debts`: Redis is told late of what it missed; `back`: a changed
roster is told by trunks, too, and all are looked at again when notices are heard again; `one name`: who is
superseded stops; `words`: others are told that an account said something last; `beyond`: what is stored while
somebody is not heard is told through those who may reach him.
"""

FAULTS = (
    *("", "slow", "kill", "cut", "kill,cut", "freeze", "drain", "kill,cut,drain"),
    *("redis", "namesake", "redis,kill,cut,namesake", "bus", "bus,redis,kill,freeze"),
    *("alone", "alone,kill", "store", "store,kill,cut", "move", "move,slow", "move,cut,alone"),
    "move,store,redis,kill,cut,alone,freeze,drain",
)
"""What goes wrong in a run; slow nodes write some time after they have something to say; by the bus, which is
Redis, some of it is lost.
"""

HARMS = frozenset({"kill", "cut", "freeze", "drain", "redis", "namesake", "alone", "store"})

SLOW_SECONDS = 0.05
HASTY_LEASE = 1.0

STEPS = 120
QUIET_SECONDS = 90.0
"""How long it may take after the last step until nothing is under way."""

LOOK_SECONDS = 0.11

DEAD_SECONDS = (5.0, 8.0)
"""How long a node that was killed is away."""

LEFT_SECONDS = (0.1, 3.0)
"""How long one that left is away."""

BACK_SECONDS = (0.05, 1.5)
"""When a client comes back whose node was drained."""

LATE_SECONDS = 5.0
"""For how long it may be seen what happened before a session was moved."""

STANDING_SECONDS = (11.0, 25.0)
"""How long a node stands still whose name another one gets meanwhile."""

SHORT, UNNOTICED, LONG, LONGEST = (0.0, 1.0), (0.5, 2.5), (6.0, 9.0), (32.0, 45.0)
"""How long nodes are cut off or stand still: shorter than they trust each other, longer, and longer than it
is remembered for whom something was stored.
"""

TIMERS = 3
"""Of each node, for ever: what it says to others, its beats, and the search for seeds."""

BEGINS_SECONDS = 2.0
"""What two nodes store that do not reach each other is told through a third one from then on."""

MOVING_SECONDS = (0.1, 12.0)
"""How long a sender is away who goes to another node."""

CHANGES = 4
"""How often contacts are changed while Redis is not reached."""

RESOURCES = "xy"
KINDS = ("subscribe", "subscribed", "subscribed", "unsubscribe", "unsubscribed")


class Hurt(NamedTuple):
    """Since when and until when a node may not be heard, or not hear."""

    node: Node
    since: float
    until: float


class Model(Net):
    """The world of one run. `faults` are some of FAULTS, `off` some of RULES."""

    def __init__(self, loop: VirtualLoop, seed: int, faults: frozenset[str], off: frozenset[str]):
        super().__init__(loop, random.Random(seed))
        self.faults = faults
        self.is_by_bus = "bus" in faults
        self._off = off
        self.is_calm = False
        self.shelf = Shelf(self)
        self.cache = Cache(self)
        names = [f"{name}@{DOMAIN}" for name in ("u0", "u1", "u2", "u3", "u4")]
        self.accounts = names
        seen = {(a, b) for a in names for b in names if a != b and self.random.random() < 0.6}
        for name in names:
            items = []
            for other in names:
                kind = ("none", "from", "to", "both")[((name, other) in seen) + 2 * ((other, name) in seen)]
                if kind != "none":
                    items.append(RosterItem(other, kind))  # type: ignore[arg-type]
            self.shelf.lay(name, items)
        self.nodes: dict[str, Node] = {}
        self.clients: list[Client] = []
        self._talk: tuple[Client | None, str] = (None, "")
        self.sent: dict[int, Sent] = {}
        self.asked: dict[int, Sent] = {}
        self.answers: list[tuple[Client, int]] = []
        self.acked: dict[int, float] = {}
        self.hurt: list[Hurt] = []
        self.was_refused: set[int] = set()
        self.log: list[tuple[Client, int, bool, float]] = []
        self.failures: list[str] = []
        self.partings: list[Parting] = []
        self.arrivals: list[tuple[float, str]] = []
        self._ended: list[tuple[float, str]] = []
        self._moved: list[tuple[float, str]] = []
        self.changed: set[tuple[str, str]] = set()
        self._incarnations = 0
        self._numbers = 0
        self._statuses = 0
        self._slice = 0.0
        self._engines_until = 0.0
        for name in NAMES:
            self.join(name)

    def time(self) -> float:
        """Seconds since the beginning."""
        return self.loop.time()

    def slices(self) -> float:
        """A clock for slices of work, which end anywhere."""
        self._slice += self.random.random() * 0.0002
        return self._slice

    # nodes and connections

    def join(self, name: str) -> None:
        """A node starts."""
        self._incarnations += 1
        self.alive[name, self._incarnations] = Node(self, name, self._incarnations, self._off)

    def entered(self, node: Node) -> None:
        """It has its name: clients may come."""
        self.nodes[node.name] = node

    def turned_away(self, node: Node) -> None:
        """Another one has its name: who went on in time, or else it tries once more."""
        node.kill()
        if (other := self._newest(node.name)) is not None:
            self.nodes[node.name] = other
        else:
            self._start(node.name, DEAD_SECONDS)

    def superseded(self, node: Node) -> None:
        """A node that has another one's name leaves."""
        if not node.is_stopping:
            node.is_stopping = True
            self.loop.create_task(self._leave(node), context=self.outside)

    # faults

    def kill(self) -> None:
        """A node dies, and comes back as another."""
        node = self.nodes.pop(self.random.choice([*self.nodes]))
        self._hurt(node)
        node.kill(is_silent=self.random.random() < 0.3)
        self._start(node.name, DEAD_SECONDS)

    def _start(self, name: str, bounds: tuple[float, float]) -> None:
        self.loop.call_later(self.random.uniform(*bounds), self.join, name, context=self.outside)

    def drain(self) -> None:
        """A node leaves, and comes back as another."""
        node = self.nodes.pop(self.random.choice([*self.nodes]))
        self._hurt(node)
        self.loop.create_task(self._drain(node), context=self.outside)

    async def _drain(self, node: Node) -> None:
        await self._leave(node)
        self._start(node.name, LEFT_SECONDS)

    async def _leave(self, node: Node) -> None:
        while self.loop.stands(node):  # noqa: ASYNC110 - of virtual time
            await asyncio.sleep(0.1)
        if not node.is_dead:
            await node.spawn(node.leave())
            node.kill()

    def _come_back(self, client: Client) -> None:
        """A client whose node was drained."""
        session = client.session
        again = self._bind(session.account, session.resource)
        if again is not None and self.random.random() < 0.95:
            again.show(self._status("s"), session.priority)

    def cut(self) -> None:
        """Two nodes do not reach each other for a while."""
        one, other = self.random.sample([*self.nodes.values()], 2)
        for node in (one, other):
            self._hurt(node, BEGINS_SECONDS)
        self._part(one, other, self._seconds(), is_silent=self.random.random() < 0.5)
        for node in (one, other):
            ends = [self.apart.get(frozenset((node.name, name)), 0.0) for name in NAMES if name != node.name]
            if min(ends) > self.loop.time():  # the last that it reached
                self._hurt(node, min(ends) - self.loop.time())

    def _seconds(self) -> float:
        """How long something is not reached."""
        chance = self.random.random()
        return self.random.uniform(*(SHORT if chance < 0.45 else LONG if chance < 0.9 else LONGEST))

    def _part(self, one: Node, other: Node, seconds: float, *, is_silent: bool) -> None:
        """Two nodes do not reach each other for so long: what they say is held up, or lost."""
        pair, until = frozenset((one.name, other.name)), self.loop.time() + seconds
        self.apart[pair] = max(until, self.apart.get(pair, 0.0))
        if is_silent:
            self.silent[pair] = max(until, self.silent.get(pair, 0.0))
        elif (carrier := one.carriers.get(other.name)) is not None:
            for end in (carrier, carrier.end):
                end.node.call(end.break_off)

    def alone(self) -> None:
        """One node reaches none of the others for a while, and perhaps neither Redis nor the store."""
        node = self.nodes[self.random.choice([*self.nodes])]
        seconds, is_silent = self._seconds(), self.random.random() < 0.7
        self._hurt(node, seconds)
        for other in self.nodes.values():
            if other is not node:
                self._part(node, other, seconds, is_silent=is_silent)
        if self.random.random() < 0.5:
            self._engines_until = max(self._engines_until, self.loop.time() + seconds)
            node.cache.cut(seconds, is_silent=is_silent)
            if "store" in self.faults:
                node.store.cut(seconds, is_silent=is_silent)

    def store(self) -> None:
        """One node, or all of them, do not reach the store for a while."""
        seconds, is_silent = self._seconds(), self.random.random() < 0.7
        self._engines_until = max(self._engines_until, self.loop.time() + seconds)
        nodes = [*self.nodes.values()]
        for node in nodes if self.random.random() < 0.3 else [self.random.choice(nodes)]:
            self._hurt(node, seconds)
            node.store.cut(seconds, is_silent=is_silent)

    def _hurt(self, node: Node, seconds: float = float("inf")) -> None:
        """Word of what was sent by a node may not travel for so long."""
        now = self.loop.time()
        self.hurt.append(Hurt(node, now, now + seconds))

    def freeze(self) -> None:
        """A node stands still for a while."""
        node = self.nodes[self.random.choice([*self.nodes])]
        chance = self.random.random()
        bounds = UNNOTICED if chance < 0.5 else LONG if chance < 0.95 else LONGEST
        if not self.loop.stands(node):
            seconds = self.random.uniform(*bounds)
            self._hurt(node, seconds)
            node.freeze(seconds)

    def namesake(self) -> None:
        """A node stands still until it is forgotten, and goes on when another one has its name."""
        node = self.nodes[self.random.choice([*self.nodes])]
        if not self.loop.stands(node):
            seconds = self.random.uniform(*STANDING_SECONDS)
            self._hurt(node)
            node.freeze(seconds)
            del self.nodes[node.name]
            self._start(node.name, (1.0, seconds))

    def redis(self) -> None:
        """One node does not reach Redis for a while; or it is gone, and comes back empty."""
        seconds = self._seconds()
        self._engines_until = max(self._engines_until, self.loop.time() + seconds)
        if self.random.random() < 0.3:
            self.cache.restart(seconds)
        else:
            self.random.choice(self.cache.nodes).cut(seconds, is_silent=self.random.random() < 0.5)
        for _ in range(CHANGES):
            self.loop.call_later(self.random.uniform(0.0, seconds), self._change_some, context=self.outside)

    def _change_some(self) -> None:
        """What Redis is there for."""
        clients = [client for client in self.clients if not (client.is_over or client.is_going)]
        if clients:
            self._change(self.random.choice(clients))

    # clients

    def act(self) -> None:
        """Something happens."""
        chance, rnd = self.random.random(), self.random
        clients = [client for client in self.clients if not (client.is_over or client.is_going)]
        if chance < 0.28 or not clients:
            self._login()
        elif chance < 0.39:
            rnd.choice(clients).end()
        elif chance < 0.42:
            rnd.choice(clients).show("", 0, self._status("w") if rnd.random() < 0.7 else "")
        elif chance < 0.55:
            client = rnd.choice(clients)
            client.show(self._status("s"), rnd.choice((client.session.priority, 0, 5, -1)))
        elif chance < 0.88 or (chance >= 0.97 and not self.faults & HARMS):
            self._write(clients)
        elif chance < 0.91:
            self._ask(rnd.choice(clients))
        elif chance < 0.94:
            self._direct(rnd.choice(clients))
        elif chance < 0.97:
            self._change(rnd.choice(clients))
        else:
            self._harm()

    def _harm(self) -> None:
        harms: list[Callable[[], None]] = []
        if "kill" in self.faults and len(self.nodes) == 3:
            harms.append(self.kill)
        if "drain" in self.faults and len(self.nodes) == 3:
            harms.append(self.drain)
        if "cut" in self.faults and len(self.nodes) > 1:
            harms.append(self.cut)
        if "namesake" in self.faults and len(self.nodes) == 3:
            harms.append(self.namesake)
        if "redis" in self.faults:
            harms.append(self.redis)
        if "freeze" in self.faults:
            harms.append(self.freeze)
        if "alone" in self.faults and len(self.nodes) > 1:
            harms.append(self.alone)
        if "store" in self.faults:
            harms.append(self.store)
        if harms:
            self.random.choice(harms)()

    def _login(self) -> None:
        rnd = self.random
        client = self._bind(rnd.choice(self.accounts), rnd.choice(RESOURCES))
        if client is None:
            return
        if rnd.random() < 0.3:
            client.want_roster()
        if rnd.random() < 0.95:
            client.show(self._status("s"), rnd.choice((0, 0, 5, -1)))

    def _bind(self, account: str, resource: str, left: str = "") -> Client | None:
        """A new session somewhere else than on the node that was left; None on a node that stands still."""
        names = [name for name in self.nodes if name != left]
        node = self.nodes[self.random.choice(names)] if names else None
        if node is None or self.loop.stands(node):
            return None
        name = account.partition("@")[0]
        client: Client = node.context.copy().run(Client, self, node, name, resource)
        self.clients.append(client)
        return client

    def _write(self, clients: list[Client]) -> None:
        """Often one goes on to write to whom it wrote last."""
        client, to = self._talk
        if client is None or client not in clients or self.random.random() < 0.4:
            client, to = self.random.choice(clients), self.random.choice(self.accounts)
            self._talk = client, to
        elif "move" in self.faults and self.random.random() < 0.2:
            client.end()
            seconds = self.random.uniform(*MOVING_SECONDS)
            self.loop.call_later(seconds, self._go_on, client, to, context=self.outside)
            return
        self._say(client, to)

    def _go_on(self, left: Client, to: str) -> None:
        """Who left a node is back on another one, and has more to say."""
        session = left.session
        client = self._bind(session.account, session.resource, left.node.name)
        if client is not None:
            client.show(self._status("s"), session.priority)
            self._talk = client, to
            self._say(client, to)

    def _say(self, client: Client, to: str) -> None:
        if self.random.random() < 0.2:
            to = f"{to}/{self.random.choice(RESOURCES)}"
        number = self._number()
        self.sent[number] = Sent(client, number, to, self.loop.time())
        client.write(number)

    def _ask(self, client: Client) -> None:
        number = self._number()
        self.asked[number] = Sent(
            client,
            number,
            f"{self.random.choice(self.accounts)}/{self.random.choice(RESOURCES)}",
            self.loop.time(),
        )
        client.ask(number, self.asked[number].to)

    def _direct(self, client: Client) -> None:
        """To somebody who is shown nothing else of it."""
        account = client.session.account
        items = self.shelf.roster(account)
        followers = {name for name, item in items.items() if item.state.is_followed}
        others = [name for name in self.accounts if name not in followers and name != account]
        if client.directed and self.random.random() < 0.2:
            client.direct(self.random.choice([*client.directed]), "")
        elif others:
            to = self.random.choice(others)
            if self.random.random() < 0.7:
                to += f"/{self.random.choice(RESOURCES)}"
            client.direct(to, self._status("d"))

    def _change(self, client: Client) -> None:
        """The contacts of its account."""
        contact = self.random.choice([name for name in self.accounts if name != client.session.account])
        self.changed |= {(client.session.account, contact), (contact, client.session.account)}
        if self.random.random() < 0.1:
            client.remove(contact)
        else:
            client.subscribe(contact, self.random.choice(KINDS))

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _status(self, kind: str) -> str:
        self._statuses += 1
        return f"{kind}{self._statuses}"

    # what clients are told

    def delivered(self, client: Client, number: int, *, was_stored: bool) -> None:
        """A message came to a client."""
        self.log.append((client, number, was_stored, self.loop.time()))

    def refused(self, number: int) -> None:
        """A message came back."""
        self.was_refused.add(number)

    def handled(self, client: Client, number: int) -> None:
        """Its sender is told that a message was handled, if he is there."""
        if not client.is_over:
            self.acked[number] = self.loop.time()

    def answered(self, client: Client, number: int) -> None:
        """A question was answered."""
        self.answers.append((client, number))

    def came(self, full: str) -> None:
        """A session becomes available."""
        self.arrivals.append((self.loop.time(), full))

    def ended(self, client: Client, *, is_moved: bool) -> None:
        """A session ends or becomes unavailable."""
        (self._moved if is_moved else self._ended).append((self.loop.time(), client.session.full))
        if is_moved and self.random.random() < 0.7:
            seconds = self.random.uniform(*BACK_SECONDS)
            self.loop.call_later(seconds, self._come_back, client, context=self.outside)

    def parted(self, client: Client, words: str) -> None:
        """A session that was available is not any more, and said this last."""
        self.partings.append(Parting(self.loop.time(), client, words))

    def seen_to_go(self, viewer: Client, full: str) -> None:
        """A client is shown that a session is not available any more: not one that is still expected, unless
        another of its account has come instead, or somebody else let it be seen no more. What is written to
        it may come before the session is told of its end.
        """
        moved = max((at for at, name in self._moved if name == full), default=-1e9)
        if self.loop.time() < moved + GRACE_SECONDS and not self.faults - {"drain"}:
            self.loop.call_soon(self._judge_going, viewer, full, moved, context=self.outside)

    def _judge_going(self, viewer: Client, full: str, moved: float) -> None:
        account, since = full.partition("/")[0], moved - LATE_SECONDS
        has_ended = any(at >= since and name == full for at, name in self._ended)
        came = {name for at, name in self.arrivals if at >= since and name.startswith(f"{account}/")}
        item = self.shelf.roster(account).get(viewer.session.account)
        is_follower = viewer.session.account == account or (item is not None and item.state.is_followed)
        is_back = not is_follower and full in came  # and did not send its directed presence again
        if not (has_ended or is_back or came - {full} or (viewer.session.account, account) in self.changed):
            self.failures.append(f"{viewer.session.full} on {viewer.node.name} sees {full} go")

    def failed(self, error: str) -> None:
        """Some work of a node ended with a mistake."""
        self.failures.append(error)

    # the run

    async def run(self) -> list[str]:
        """Act, wait until all is quiet, and tell what is wrong."""
        await asyncio.sleep(1.0)
        for _ in range(STEPS):
            await asyncio.sleep(self.random.expovariate(1 / self.random.choice((0.003, 0.05, 0.5))))
            if self._longest > 10.0 and self.random.random() < 0.05:
                await asyncio.sleep(10.0)
            self.act()
            self.failures += wrongly_split(self.nodes.values())
        self.is_calm = True
        end = self.loop.time() + max(self._longest, 0.0) + QUIET_SECONDS
        while not self._is_quiet():
            if self.loop.time() > end:
                break
            await asyncio.sleep(LOOK_SECONDS)
        return [*Checks(self).wrong()]

    @property
    def _longest(self) -> float:
        return max(self._engines_until, *self.apart.values(), 0.0) - self.loop.time()

    def _is_quiet(self) -> bool:
        """Whether nothing will happen any more, but that nodes say that they live."""
        if self.loop.pending > TIMERS * len(self.nodes) or len(self.nodes) < 3:
            return False
        return all(
            node.is_idle and len(node.mesh.members) == 2 and not self.loop.stands(node)
            for node in self.nodes.values()
        )


EXPECTED = ("node-superseded", "store-does-not-answer")


class Mistaken(logging.Handler):
    """Notes what the parts log as mistakes of their own."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._mistakes = mistakes

    def emit(self, record: logging.LogRecord) -> None:
        """Note one."""
        if record.getMessage() in EXPECTED:
            return  # it is none, but of who runs the nodes
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
        chosen, without = frozenset(faults.split(",")) - {""}, frozenset(off.split(",")) - {""}
        self._mistakes.clear()
        slow = SLOW_SECONDS if "slow" in chosen else CLOSE_SECONDS
        lease = HASTY_LEASE if "lease" in without else trunk.SILENT_SECONDS
        with contextlib.ExitStack() as changed:
            changed.enter_context(patch.object(member, "CLOSE_SECONDS", slow))
            changed.enter_context(patch.object(trunk, "SILENT_SECONDS", lease))
            if "R5" in without:
                changed.enter_context(patch.object(UnderWay, "is_ahead", lambda *_: False))
            found = self._loop.run_until_complete(self._run(seed, chosen, without))
        self._loop.clear()
        for task in (left := asyncio.all_tasks(self._loop)):
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.clear()
        return [*(f"failed: {mistake}" for mistake in self._mistakes), *found]

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._mistakes.append(f"{context['message']}: {context.get('exception')!r}")

    async def _run(self, seed: int, faults: frozenset[str], off: frozenset[str]) -> list[str]:
        return await Model(self._loop, seed, faults, off).run()
