"""Who is connected with whom in `nodesmodel`: nodes find each other by the list of nodes and by their seeds,
as `xmppd.cluster.link`, `connection` and `neighbours` have it.
"""

from __future__ import annotations

import random
from collections import Counter
from contextvars import copy_context

from modelcarriers import Carrier, Line
from modelnodes import REFUSED_SECONDS, Node
from virtualtime import VirtualLoop

from xmppd.cluster.hello import Hello
from xmppd.cluster.mesh import Met


class Net:
    """`alive`: all nodes that were begun, by name and incarnation. `apart`, `silent`: until when two names do
    not reach each other, and until when what they say is held up. `is_by_bus`: they reach each other by Redis
    alone.
    """

    is_by_bus = False

    def __init__(self, loop: VirtualLoop, chance: random.Random) -> None:
        self.loop = loop
        self.random = chance
        self.outside = copy_context()
        self.alive: dict[tuple[str, int], Node] = {}
        self.apart: dict[frozenset[str], float] = {}
        self.silent: dict[frozenset[str], float] = {}
        self._dialing: set[frozenset[Node]] = set()
        self._trunks = 0

    def namesakes(self) -> list[str]:
        """The names that more than one node has."""
        names = Counter(node.name for node in self.alive.values() if not node.is_dead)
        return [name for name, count in names.items() if count > 1]

    def _newest(self, name: str) -> Node | None:
        """Who is at an address."""
        alive = [node for node in self.alive.values() if node.name == name and not node.is_dead]
        return max(alive, key=lambda node: node.mesh.incarnation, default=None)

    def want(self, node: Node, name: str, incarnation: int) -> None:
        """A node wants to be connected with another."""
        other = self.alive.get((name, incarnation))
        if other is not None and frozenset((node, other)) not in self._dialing:
            self._dial(node, other)

    def knock(self, node: Node, seed: str) -> Hello | None:
        """Who is found at an address by a node; the two know each other then, and who has one name."""
        found = self._newest(seed)
        if found is None or self.loop.stands(found) or found.is_leaving:
            return None
        if self._apart(node, found) > self.loop.time():
            return None
        if seed != node.name:
            self.want(node, seed, found.mesh.incarnation)
        elif found.mesh.incarnation > node.mesh.incarnation:
            node.superseded()
        return Hello(name=seed, incarnation=found.mesh.incarnation)

    def _apart(self, one: Node, other: Node) -> float:
        """Until when two nodes do not reach each other."""
        if self.is_by_bus:
            return max(one.cache.cut_until, other.cache.cut_until)
        return self.apart.get(frozenset((one.name, other.name)), 0.0)

    def held_up(self, one: str, other: str) -> float:
        """Until when what is sent between two nodes is held up."""
        return self.silent.get(frozenset((one, other)), 0.0)

    def _dial(self, one: Node, other: Node) -> None:
        """Connect two nodes, unless something is in the way; then later."""
        pair = frozenset((one, other))
        self._dialing.discard(pair)
        if one.is_dead or other.is_dead or one.is_leaving or other.is_leaving:
            return
        dialed = max(one, other, key=lambda node: node.name)
        if self._newest(dialed.name) is not dialed:
            return  # it is not found at its address any more
        now = self.loop.time()
        apart = self._apart(one, other)
        if apart > now or self.loop.stands(one) or self.loop.stands(other):
            when = max(apart, now) + self.random.uniform(0.0, 0.2)
            self._dialing.add(pair)
            self.loop.call_at(when, self._dial, one, other, context=self.outside)
        elif not self._are_connected(one, other):
            seconds = self.random.uniform(0.001, 0.02)
            self._dialing.add(pair)
            self.loop.call_later(seconds, self._met, one, other, now, context=self.outside)

    @staticmethod
    def _are_connected(one: Node, other: Node) -> bool:
        carrier = one.carriers.get(other.name)
        return carrier is not None and carrier.is_open and carrier.end.is_open and carrier.other is other

    @staticmethod
    def _is_older(one: Node, other: Node) -> bool:
        """Whether a node is connected with a younger one of another's name."""
        carrier = one.carriers.get(other.name)
        is_there = carrier is not None and carrier.is_open and carrier.end.is_open
        return is_there and carrier.other.mesh.incarnation > other.mesh.incarnation

    def _met(self, one: Node, other: Node, since: float) -> None:
        self._dialing.discard(frozenset((one, other)))
        is_over = one.is_dead or other.is_dead or one.is_leaving or other.is_leaving
        if is_over or self._are_connected(one, other):
            return
        if self.loop.stands(one) or self.loop.stands(other):
            self._dial(one, other)
            return
        if self._is_older(one, other) or self._is_older(other, one):
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
        kind = Line if self.is_by_bus else Carrier
        ends = kind(self, one, other), kind(self, other, one)
        ends[0].end, ends[1].end = ends[1], ends[0]
        for end, count in zip(ends, reversed(taken), strict=True):
            end.node.carriers[end.other.name] = end
            met = Met(end.other.name, end.other.mesh.incarnation, number, count, since)
            end.node.context.copy().run(self._meet, end, met)

    @staticmethod
    def _meet(end: Carrier, met: Met) -> None:
        end.member = end.node.mesh.met(met, end)

    def broken(self, carrier: Carrier) -> None:
        """A connection ended on one side: it is made anew, or the other node is dead."""
        one, other = carrier.node, carrier.other
        if one.is_dead or one.is_leaving:
            return
        member = one.mesh.members.get(other.name)
        if not other.is_dead:
            seconds = self.random.uniform(0.0, 0.2)
            self._dialing.add(frozenset((one, other)))
            self.loop.call_later(seconds, self._dial, one, other, context=self.outside)
        elif not self.is_by_bus and member is not None and member.incarnation == other.mesh.incarnation:
            seconds = self.random.uniform(*REFUSED_SECONDS)
            self.loop.call_later(seconds, one.mesh.give_up, member, "it is dead", context=one.context)
