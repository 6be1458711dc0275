"""All clients of a cluster that is hurt, what they do, and what they see that is not so; for `nemesis.py`."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from random import Random

from counted import Counted
from nodes import Node
from promises import Asked, Life, Sent
from witness import ROSTER, Client, Line

SHARE_OF_IQS = 0.1
LOW, HIGH = -5, 5
"""Priorities that are shown; one in four is negative, so that messages to the account are stored."""
SETTLED_SECONDS = 1.0
"""A change that is younger need not be seen by everybody."""
LATE_SECONDS = 10.0
"""What a client writes may be read so much later, behind messages that wait for a node that is lost."""
AGAIN_SECONDS = 2.0
"""A subscription that is not what was asked for is asked for again so often."""


class Crew:
    """All clients, who count what they are sent and resume their sessions (XEP-0198) where they are
    `is_counting`. Each knows `contacts` others, who sit beside it in a ring; each of the first half follows
    now and then whoever sits across; all others are strangers.

    `touched`: by the number of a node, when something was done to it last.
    """

    def __init__(
        self, nodes: Sequence[Node], count: int, contacts: int, chance: Random, *, is_counting: bool = False
    ) -> None:
        self.nodes = nodes
        self.is_counting = is_counting
        self.chance = chance
        self.sent: dict[str, Sent] = {}
        self.asked: dict[str, Asked] = {}
        self.lives: list[Life] = []
        self.failures: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.done: Counter[str] = Counter()
        self.touched: dict[int, float] = {}
        near = [step for distance in range(1, contacts // 2 + 1) for step in (distance, -distance)]
        names = [f"user{number}" for number in range(count)]
        half = count // 2
        self.clients = {
            name: Client(
                self,
                name,
                [names[(number + step) % count] for step in near],
                names[number + half] if number < half else "",
                Counted if is_counting else Line,
            )
            for number, name in enumerate(names)
        }
        self._relatives = {
            name: {
                *client.contacts,
                name,
                *((client.followed,) if client.followed else ()),
                *(other.name for other in self.clients.values() if other.followed == name),
            }
            for name, client in self.clients.items()
        }

    @property
    def open_nodes(self) -> Sequence[Node]:
        """Where clients may go."""
        return [node for node in self.nodes if node.is_open]

    @property
    def online(self) -> list[Line]:
        """The connections of all who have one."""
        return [line for client in self.clients.values() if (line := client.there) is not None]

    def of(self, node: Node) -> list[Client]:
        """Who is connected with a node."""
        return [line.client for line in self.online if line.node is node]

    # what they do

    async def talk(self, rate: float) -> None:
        """Send `rate` messages a second, until cancelled, most of them to contacts; and some iqs."""
        clients = [*self.clients.values()]
        began, count = time.monotonic(), 0
        while True:
            await asyncio.sleep(0.01)
            due = int((time.monotonic() - began) * rate)
            for _ in range(min(due - count, 100)):
                client = self.chance.choice(clients)
                other = self.clients[self.chance.choice(client.contacts)]
                if self.chance.random() < 0.2:
                    other = self.chance.choice(clients)
                if other is client:
                    continue
                client.say(other, to_full=self.chance.random() < 0.3)
                if self.chance.random() < SHARE_OF_IQS:
                    client.ask(other)
            count = due

    async def fidget(self, may_change: asyncio.Event) -> None:
        """Show other presence, show it to strangers, follow somebody or do so no more, until cancelled."""
        while True:
            await asyncio.sleep(self.chance.uniform(0.1, 0.4))
            await may_change.wait()
            if not (lines := self.online):
                continue
            line, other = self.chance.choice(lines), self.chance.choice(lines)
            what = self.chance.choice(("presence", "directed", "directed", "subscription"))
            if what == "presence":
                line.show(self.chance.choice((LOW, 0, 1, HIGH)))
            elif what == "directed" and other.client.name not in self._relatives[line.client.name]:
                line.direct(other)
            elif what == "subscription" and line.client.followed:
                line.client.follow(wish=not line.client.wish)
            else:
                continue
            self.done[f"{what} changes"] += 1

    def be_open(self) -> None:
        """Nobody is out of the way of messages any more."""
        for line in self.online:
            if line.priority < 0:
                line.show(0)

    def insist(self) -> None:
        """Who does not see what he asked for asks again, as a subscription may have been cut in two."""
        now = time.monotonic()
        for client in self.clients.values():
            is_open = client.is_granted != client.wish or any(self._followed(client, now))
            if client.followed and client.wished < now - AGAIN_SECONDS and is_open:
                client.follow(wish=client.wish)
                self.done["subscriptions asked for again"] += 1

    # what is wrong with what they see

    def problems(self) -> Iterator[str]:
        """Where what clients see is not the truth, for every pair of them."""
        now = time.monotonic()
        for client in self.clients.values():
            line = client.there
            if line is None:
                if not client.is_away:
                    yield f"{client.name} is not online"
                continue
            if client.is_away:
                yield f"{client.name} should be away"
            if line.pinged_at is not None and line.pinged_at < now - 3:
                waits = now - line.pinged_at
                yield f"{client.name} waits for an answer of node {line.node.index} since {waits:.1f} s"
            yield from self._contacts(client, line)
            yield from self._strangers(client, line, now)
            yield from self._followed(client, now)
            for old in client.old:
                if not old.is_over:
                    yield f"{client.name} has another session on node {old.node.index}"

    def _contacts(self, client: Client, line: Line) -> Iterator[str]:
        for name in (*client.contacts, client.name):
            yield from self._seen(client, line, self.clients[name])

    def _seen(self, client: Client, line: Line, contact: Client) -> Iterator[str]:
        there, shown = contact.there, line.view.get(contact.full)
        who = f"{client.name} on node {line.node.index}"
        if there is None and shown is not None:
            yield f"{who} sees {contact.name}, who is away"
        elif there is not None and shown is None:
            yield f"{who} does not see {contact.name} on node {there.node.index}"
        elif there is not None and shown != there.status:
            where = f"{contact.name} on node {there.node.index}"
            yield f"{who} sees {where} as he was ({shown}, and not {there.status})"

    def _strangers(self, client: Client, line: Line, now: float) -> Iterator[str]:
        for name, other in self.clients.items():
            if name in self._relatives[client.name]:
                continue
            there = other.there
            shown_to, at = there.directed.get(client.name, (None, 0.0)) if there is not None else (None, 0.0)
            is_due = shown_to is not None and shown_to.session is line.session
            is_shown = other.full in line.view
            # What was written to the last connection may be read when this one has its name.
            is_late = shown_to is not None and at > line.life.began - LATE_SECONDS
            if is_shown and not is_due and not is_late:
                where = f"on node {there.node.index}" if there is not None else "away"
                yield f"{client.name} on node {line.node.index} sees a stranger, {name} ({where})"
            elif is_due and not is_shown and there is not None and now - SETTLED_SECONDS > at:
                here = line.node.index
                if at < line.life.began + SETTLED_SECONDS:
                    continue  # his node need not have known by then where this one is
                # What is on its way to a node that is cut off or lost just then is not sent again.
                is_hurt = max(self.touched.get(node, 0.0) for node in (here, there.node.index)) >= at
                if not is_hurt:
                    yield f"{client.name} on node {here} was not shown {name} on node {there.node.index}"

    def _followed(self, client: Client, now: float) -> Iterator[str]:
        line = client.there
        if line is None or not client.followed or now - client.wished < SETTLED_SECONDS:
            return
        followed = self.clients[client.followed]
        if client.is_granted:
            yield from self._seen(client, line, followed)
        elif not client.wish and followed.full in line.view:
            yield f"{client.name} on node {line.node.index} sees {followed.name}, whom he follows no more"

    def owners(self, node: Node, rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
        """Where the sessions that a node tells of are not those that there are."""
        yield from (
            f"node {node.index} tells of {row['node']}: {row['problem']}" for row in rows if "problem" in row
        )
        told = Counter((row["session"], row["node"]) for row in rows if "session" in row)
        true = {(line.client.full, line.node.name) for line in self.online}
        for (full, where), count in told.items():
            if count > 1 or (full, where) not in true:
                yield f"node {node.index} tells of {full} on {where}, {count} times"
        for full, where in true - set(told):
            yield f"node {node.index} does not tell of {full} on {where}"

    # rosters

    def ask_for_rosters(self) -> None:
        """Have both sides of all subscriptions look."""
        for line in self.online:
            line.roster = None
            line.send(ROSTER)

    def halves(self) -> Iterator[str]:
        """Where two rosters do not agree on a subscription. One that was asked for may still be open: if it
        was on its way to a node that was lost it is shown at the next login.
        """
        for client in self.clients.values():
            line, other = client.there, self.clients.get(client.followed)
            there = other.there if other is not None else None
            if not client.followed or line is None or there is None:
                continue
            if line.roster is None or there.roster is None:
                yield f"{client.name} or {client.followed} has no roster"
                continue
            here = line.roster.get(client.followed, "none") in ("to", "both")
            elsewhere = there.roster.get(client.name, "none") in ("from", "both")
            if here != elsewhere or here > client.wish:
                yield (
                    f"{client.name} follows {client.followed}: {here} by his roster, {elsewhere} by that of "
                    f"the other, asked for: {client.wish}"
                )
            self.done["subscriptions that are open"] += here < client.wish
