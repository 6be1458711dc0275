"""Clients with stream management (XEP-0198) on several nodes: random sends, losses of wires and nodes that
stop, sessions that are resumed on any node while messages are under way, and what all must have in the end.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from managing import SM, bodies, count, ready

from xmppd import ns
from xmppd.testing import Client, World

USERS = ("alice", "bob", "carol")


class Step(NamedTuple):
    """Something that happens: `who` does it, to `whom` or on a node of this number; `turns` of the loop pass
    before the next thing.
    """

    kind: str
    who: int
    whom: int
    turns: int


USUAL = (*("send",) * 5, *("read",) * 2, *("lose",) * 2, *("resume",) * 2, "ask")
KINDS = {
    "anew": (*USUAL, "anew", "cut"),
    "stop": (*USUAL, "cut", "stop"),
    "both": (*USUAL, "anew", "cut", "stop"),
}
"""What happens. `anew`: without the session that he had; `cut`: two nodes lose each other for a moment."""
TURNS = (0, 0, 1, 2, 4, 8, 12, 30)


def steps_of(seed: int, kinds: str) -> list[Step]:
    """What happens in a run."""
    rnd = random.Random(seed)
    count, numbers = rnd.randrange(10, 70), range(12)
    return [
        Step(rnd.choice(KINDS[kinds]), rnd.choice(numbers), rnd.choice(numbers), rnd.choice(TURNS))
        for _ in range(count)
    ]


class Sent(NamedTuple):
    """A message that was not acknowledged yet."""

    text: str
    stanza: str


class Device:
    """A client that counts, acknowledges what it has read if it is `prompt`, keeps what it sent until the
    server has that, and comes back. `got` is what it read, a list for each session; `again` what it sent
    twice, or read and did not acknowledge before it came with another session.
    """

    def __init__(self, world: World, user: str, *, is_prompt: bool) -> None:
        self.world = world
        self.user = user
        self.is_prompt = is_prompt
        self.client: Client | None = None
        self.jid = self.id = ""
        self.h = self.acked = self.base = 0
        self.unsent: list[Sent] = []
        self.sent: list[tuple[str, str]] = []
        self.got: list[list[str]] = []
        self.again: set[str] = set()
        self.unread: list[str] = []

    async def come_anew(self, node: int, *, knows: bool = False) -> None:
        """Without the session that it had; what the server has not acknowledged is sent again. What crosses a
        new session on its way to a node may come to that and to old ones elsewhere, which know nothing of it.
        """
        self.lose()
        await self.world.settle()
        self.again.update(self.unread)
        self.again.update(one.text for one in self.unsent if not knows)
        client = await self.world.bind(self.user, node=node)
        again, self.unsent = self.unsent, []
        self.jid, self.h, self.acked, self.base = client.jid, 0, 0, 0
        self.got.append([])
        await client.send(f"<enable xmlns='{ns.SM}' resume='true'/>")
        self.id = (await client.receive()).get("id", "")
        self.client = client
        self.write(Sent("", "<presence/>"))
        await self.world.settle()
        for one in again:
            self.write(one)

    async def resume(self, node: int) -> None:
        """By another connection, while the old one may be there still."""
        client = await ready(self.world, self.user, node=node)
        client.write(f"<resume xmlns='{ns.SM}' previd='{self.id}' h='{self.h}'/>")
        answer = await self.first(client)
        if answer.tag == f"{SM}failed":
            await client.drop()
            if (h := answer.get("h")) is not None:
                self.told(int(h))
            await self.come_anew(node, knows=h is not None)
            return
        assert answer.tag == f"{SM}resumed"
        self.unread.clear()  # the server knows by h what was read
        self.client, client.jid = client, self.jid
        self.told(int(answer.get("h", "")))
        again, self.unsent = self.unsent, []
        await self.read()
        for one in again:
            self.write(one)

    async def first(self, client: Client) -> Element:
        """What comes first, at the latest when the server has waited for what is under way."""
        for _ in range(20):
            stanzas = await client.receive_all()
            if stanzas:
                client._inbox.extendleft(reversed(stanzas[1:]))
                return stanzas[0]
            await self.world.advance(0.5)
        raise AssertionError(f"{self.user} is not answered")

    def send(self, to: Device, text: str, *, to_session: bool) -> None:
        """A message to somebody, wherever he is."""
        address = to.jid if to_session else f"{to.user}@localhost"
        self.sent.append((to.user, text))
        stanza = f"<message to='{address}' type='chat' id='{text}'><body>{text}</body></message>"
        self.write(Sent(text, stanza))

    def write(self, one: Sent) -> None:
        self.unsent.append(one)
        if self.client is not None:
            self.client.write(one.stanza)

    def ask(self) -> None:
        if self.client is not None:
            self.client.write(f"<r xmlns='{ns.SM}'/>")

    async def read(self) -> None:
        """All that has come."""
        if self.client is None:
            return
        stanzas = await self.client.receive_all()
        self.take(stanzas)
        if self.client.closed:
            self.client = None
        elif self.is_prompt and count(stanzas):
            self.acknowledge()

    def acknowledge(self) -> None:
        """All that it has read."""
        if self.client is not None:
            self.client.write(f"<a xmlns='{ns.SM}' h='{self.h}'/>")

    def take(self, stanzas: list[Element]) -> None:
        self.h += count(stanzas)
        texts = bodies(stanzas)
        self.got[-1] += texts
        assert not [one for one in stanzas if one.get("type") == "error" and one.tag.endswith("message")]
        for one in stanzas:
            if one.tag == f"{SM}a":
                self.told(int(one.get("h", "")))

    def told(self, h: int) -> None:
        del self.unsent[: h - self.base]
        self.base = h

    def lose(self) -> None:
        """The wire, with all that is on it. What was read by then, and the server has not heard of, may come
        again in another session.
        """
        if self.client is not None:
            client, self.client = self.client, None
            client.transport.close()
            session = client.app.sessions.by_full.get(self.jid)
            unacked = b"".join(session.managed.unacked) if session is not None else b""
            self.unread = [text for text in self.got[-1] if f"<body>{text}<".encode() in unacked]


class Story:
    """What the model knows."""

    def __init__(self, world: World, nodes: int, *, is_prompt: bool) -> None:
        self.world = world
        self.nodes = nodes
        self.stopped: int | None = None
        self.cuts: set[tuple[int, int]] = set()
        self.devices = [Device(world, user, is_prompt=is_prompt) for user in USERS]
        self.texts = 0

    async def run(self, steps: Sequence[Step]) -> None:
        """Begin, do all of it, have all come to an end, and judge."""
        for number, device in enumerate(self.devices):
            await device.come_anew(number % self.nodes)
            await device.read()
        for step in steps:
            await self.do(step)
            for _ in range(step.turns):
                await asyncio.sleep(0)
                for client in self.world.clients:
                    client.pump()
        await self.end()
        self.judge()

    def node(self, number: int) -> int:
        """One that is there."""
        node = number % self.nodes
        return (node + 1) % self.nodes if node == self.stopped else node

    async def do(self, step: Step) -> None:
        device = self.devices[step.who % len(self.devices)]
        if step.kind == "send":
            others = [one for one in self.devices if one is not device]
            text = f"{device.user}{self.texts}"
            self.texts += 1
            device.send(others[step.whom % 2], text, to_session=step.whom % 4 == 3)
        elif step.kind == "read":
            await device.read()
            await self.world.advance(4.0)  # nodes know to some seconds what was acknowledged
        elif step.kind == "ask":
            device.ask()
        elif step.kind == "lose":
            device.lose()
        elif step.kind == "resume":
            await device.resume(self.node(step.whom))
            await self.world.advance(4.0)
        elif step.kind == "anew":
            await device.come_anew(self.node(step.whom))
        elif step.kind == "cut" and self.stopped is None:
            one, other = step.who % self.nodes, (step.who + 1) % self.nodes
            self.world.cut(one, other)
            self.cuts.add((one, other))
            await self.heal()
        elif step.kind == "stop" and self.stopped is None and step.whom % 4 == 0:
            await self.stop(step.who % self.nodes)

    async def heal(self) -> None:
        for one, other in self.cuts:
            self.world.connect_nodes(one, other)
        self.cuts.clear()

    async def stop(self, node: int) -> None:
        """A node is told to stop; its process ends, and sees to nothing any more."""
        self.stopped = node
        app = self.world.apps[node]
        stopping = asyncio.ensure_future(self.world.drain(node))
        while not stopping.done():
            await self.world.advance(0.5)  # what is under way is waited for
        await stopping
        self.world.cluster(node).messages.lost = lambda parcel: None  # type: ignore[method-assign]
        for device in self.devices:
            if device.client is not None and device.client.app is app:
                device.take([*device.client._inbox])
                device.client._inbox.clear()
                device.client = None
                left = b"".join(raw for held in self.unacked(device.user) for raw in held)
                device.unread = [text for text in device.got[-1] if f"<body>{text}<".encode() in left]

    async def end(self) -> None:
        """All are there, and all sessions that were left behind are over."""
        for device in self.devices:
            await self.be_there(device)
        await self.world.settle()
        if self.stopped is not None:
            await self.acknowledge()
        self.end_others()
        if self.stopped is not None:
            await self.wait_for_kept()
        for _ in range(4):
            await self.world.advance(6)
            for device in self.devices:
                await self.be_there(device)
                await device.read()
                device.ask()
                await device.read()
            if not any(device.unsent for device in self.devices):
                break
        await self.world.settle()
        for device in self.devices:
            await device.read()

    async def be_there(self, device: Device) -> None:
        if device.client is None or device.client.closed:
            await device.resume(self.node(0))

    def end_others(self) -> None:
        """The sessions that nobody goes on with."""
        mine = {device.jid for device in self.devices}
        for number, app in enumerate(self.world.apps):
            if number != self.stopped:
                for session in [*app.sessions.by_full.values()]:
                    if session.full not in mine:
                        app.binding.end(session)

    async def acknowledge(self) -> None:
        """All answer when they are asked what they have read. What two other sessions were sent, of which
        one moved, may come again from each.
        """
        for device in self.devices:
            await device.read()
            device.acknowledge()
        await self.world.advance(4.0)
        for device in self.devices:
            held = Counter(
                text
                for raw in self.unacked(device.user)
                for text in self.sent_to(device)
                if f"<body>{text}<".encode() in b"".join(raw)
            )
            device.again.update(text for text, times in held.items() if times > 1)

    def unacked(self, user: str) -> list[list[bytes]]:
        """What each session of somebody has not acknowledged, on nodes that are there."""
        found = []
        for number, app in enumerate(self.world.apps):
            if number != self.stopped:
                found += [one.managed.unacked for one in app.sessions.of(f"{user}@localhost") if one.managed]
                for state, _ in app.handover._kept.values():
                    if state["account"] == f"{user}@localhost":
                        found.append([raw.encode() for raw, _ in state["unacked"]])
        return found

    def sent_to(self, device: Device) -> list[str]:
        return [text for one in self.devices for to, text in one.sent if to == device.user]

    async def wait_for_kept(self) -> None:
        """What other nodes keep of a node that stopped is for clients that may yet come back with its id."""
        while any(app.handover._kept for app in self.world.apps):
            await self.world.advance(30)
            for device in self.devices:
                await self.be_there(device)
                await device.read()
                device.acknowledge()

    def judge(self) -> None:
        """Nothing that was acknowledged is lost, which is all by now; nothing comes twice to who counts."""
        again = set().union(*(device.again for device in self.devices))
        for receiver in self.devices:
            sent = self.sent_to(receiver)
            assert not receiver.unsent, f"{receiver.user} was not told of {receiver.unsent}"
            got = Counter(text for session in receiver.got for text in session)
            lost = sorted(set(sent) - set(got))
            assert not lost, f"{receiver.user} was not given {lost}"
            twice = sorted(text for text, times in got.items() if times > 1 and text not in again)
            assert not twice, f"{receiver.user} was given {twice} again"
            assert set(got) <= set(sent), f"{receiver.user} was given what is not his"
            if len(receiver.got) > 1:
                continue  # newer messages come to a new session while the old one is waited for
            for sender in self.devices:
                if len(sender.got) == 1:
                    own = [
                        int(text[len(sender.user) :])
                        for text in receiver.got[0]
                        if text.startswith(sender.user)
                    ]
                    assert own == sorted(own), f"{receiver.user} was given {own} of {sender.user}"
