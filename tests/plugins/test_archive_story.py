"""Random sends, losses of the wire and of a node, and devices that come and go, on a whole server: each
message is in both archives once, comes to each device that asks, and to nobody else.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from archives import Found, page, world
from archivestory import Device, kill
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from several import several

from xmppd import ns
from xmppd.testing import World

DEVICES = (("alice", "console", True), ("alice", "phone", False), ("bob", "r", True), ("carol", "r", False))
DEVICE = st.integers(0, len(DEVICES) - 1)
NODE = st.integers(0, 1)
Step = tuple[str, int, str | int]


def steps(*seconds: int) -> st.SearchStrategy[list[Step]]:
    """What clients do, and waits of so many seconds."""
    to, nothing = st.sampled_from(("alice", "bob", "carol")), st.just("")
    sends = [st.tuples(st.just(kind), DEVICE, to) for kind in ("send", "send", "send and lose", "all send")]
    goes = [st.tuples(st.just(kind), DEVICE, nothing) for kind in ("lose", "leave")]
    comes = [st.tuples(st.just("come"), DEVICE, NODE)] * 2
    waits = st.tuples(st.just("wait"), st.sampled_from(seconds), nothing)
    return st.lists(st.one_of(*sends, *goes, *comes, waits), min_size=4, max_size=25)


class Story:
    """What is done, and what has to be so in the end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.is_killed = False
        self.sent: list[tuple[str, str, str]] = []
        self.devices = [
            Device(world, user, resource, catches_up=catches_up) for user, resource, catches_up in DEVICES
        ]

    def node(self, wanted: int) -> int:
        return 1 if self.is_killed else wanted % len(self.world.apps)

    def message(self, sender: Device, to: str) -> str:
        text = f"{len(self.sent)} of {sender.user}"
        self.sent.append((sender.account, f"{to}@localhost", text))
        sender.wrote.append(text)
        return f"<message to='{to}@localhost' id='{text}' type='chat'><body>{text}</body></message>"

    async def do(self, step: Step) -> None:
        kind, number, about = step
        if kind == "wait":
            await self.world.advance(number)
        else:
            device = self.devices[number]
            if kind == "send":
                await device.send(self.message(device, str(about)))
            elif kind == "send and lose":
                await device.send_and_lose(self.message(device, str(about)))
            elif kind == "all send":
                await self.all_send(device, str(about))
            elif kind == "lose":
                await device.lose()
            elif kind == "leave":
                await device.leave()
            else:
                await device.come(self.node(int(about)))
        await self.read()

    async def all_send(self, unlucky: Device, to: str) -> None:
        """All that are there write several at once to one account and to each other; one loses its wire."""
        for number in range(3):
            for device in self.devices:
                if device.client is not None:
                    device.write(self.message(device, to if number else device.user))
        await unlucky.lose()

    async def kill(self) -> None:
        """The first node is gone, and its clients come to the other one when they like."""
        for device in self.devices:
            if device.node == 0:
                device.client = None
        self.is_killed = True
        await kill(self.world, 0)
        await self.read()

    async def read(self) -> None:
        for device in self.devices:
            if device.client is not None:
                await device.read()

    async def end(self) -> None:
        """All come, are told that all they sent is handled, and who catches up does so once more."""
        for _ in range(2):
            for device in self.devices:
                await device.come(self.node(0))
            await self.world.advance(8)
            await self.read()
        for device in self.devices:
            await device.send(f"<iq type='get' id='p'><ping xmlns='{ns.PING}'/></iq>")
            assert device.unsent == []
            if device.catches_up:
                await device.leave()
                await device.come(self.node(0))

    async def judge(self) -> None:
        for account in {device.account for device in self.devices}:
            mine = [device for device in self.devices if device.account == account]
            texts = [text for sender, to, text in self.sent if account in (sender, to)]
            told = {text for _, to, text in self.sent if to == account}
            assert Counter(await self.archive(mine[0])) == Counter(texts), "each once"
            for device in mine:
                assert device.strange == []
                if device.catches_up:
                    has = {*device.seen, *device.wrote}
                    assert has == set(texts), "all that was said, on each device that asks"
            assert told <= {text for device in mine for text in device.seen}, "all that it was told"

    async def archive(self, device: Device) -> list[str | None]:
        assert device.client is not None
        await device.client.send(
            f"<iq type='set' id='q'><query xmlns='{ns.MAM}'>{page('<max>100</max>')}</query></iq>"
        )
        return Found(await device.client.receive_all()).texts


async def played(story: Story, before: list[Step], *, kills: bool) -> None:
    for number in range(len(story.devices)):
        await story.do(("come", number, number))
    for step in before:
        await story.do(step)
    if kills:
        await story.kill()


FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PLUGINS = ("offline", "carbons", "ping")


@pytest.mark.one_node("the next test is about two")
@FEW
@given(steps=steps(1, 8, 310))
def test_on_one_node(steps: list[Step]) -> None:
    async def run() -> None:
        async with world(*PLUGINS, settings={"sessions": {"ping_after": 0}}) as w:
            story = Story(w)
            await played(story, steps, kills=False)
            await story.end()
            await story.judge()

    asyncio.run(run())


@settings(FEW, max_examples=6)  # what a killed node's clients do not read is waited for, in real time
@given(before=steps(1, 8), after=steps(1, 8))
def test_on_two_nodes_of_which_one_is_killed(redis_url: str, before: list[Step], after: list[Step]) -> None:
    async def run() -> None:
        more = {**several(redis_url), "sessions": {"ping_after": 0}}
        async with world(*PLUGINS, nodes=2, settings=more) as w:
            story = Story(w)
            await played(story, before, kills=True)
            for step in after:
                await story.do(step)
            await story.end()
            await story.judge()

    asyncio.run(run())
