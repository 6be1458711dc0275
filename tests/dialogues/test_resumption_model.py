"""Random sends, losses of the wire, resumptions and ends against a model: a client that counts is given each
message once and in order, and so is everybody it writes to.
"""

import asyncio
from collections import Counter
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from managing import SM, ask_to_resume, bodies, count, ready

from xmppd import ns
from xmppd.testing import Client, World

STEPS = st.lists(
    st.sampled_from(
        [
            "to account",
            "to session",
            "from phone",
            "stop reading",
            "break",
            "resume",
            "take over",
            "come anew",
            "expire",
            "acknowledge",
            "second comes",
            "second goes",
            "ask",
        ]
    ),
    min_size=5,
    max_size=40,
)


class Phone:
    """A client that counts, keeps what it sent until the server has it, and comes back."""

    def __init__(self, world: World, *, is_prompt: bool) -> None:
        self.world = world
        self.is_prompt = is_prompt
        self.client: Client | None = None
        self.jid = self.id = ""
        self.got: list[list[str]] = []
        self.h = 0
        self.unsent: list[str] = []
        self.unknown: list[str] = []
        self.base = 0

    @property
    def is_on(self) -> bool:
        return self.client is not None

    async def come_anew(self, *, knows: bool = False) -> None:
        """Without the session that it had. What the server did not acknowledge is sent again if it `knows`
        how much that is.
        """
        self.client = None
        again, self.unsent = self.unsent, []
        if not knows:
            self.unknown += again
            again = []
        client = await self.world.bind("alice")
        self.jid, self.h, self.base = client.jid, 0, 0
        self.got.append([])
        await client.send(f"<enable xmlns='{ns.SM}' resume='true'/>")
        self.id = (await client.receive()).get("id", "")
        self.client = client
        for text in ["<presence/>", *again]:
            await self.send(text)
        await self.read()

    async def send(self, stanza: str) -> None:
        self.unsent.append(stanza)
        if self.client is not None:
            await self.client.send(stanza)

    async def read(self) -> None:
        if self.client is None or self.client.transport.stalled:
            return
        stanzas = await self.client.receive_all()
        self.take(stanzas)
        if self.is_prompt and stanzas:
            await self.acknowledge()

    def take(self, stanzas: list[Element]) -> None:
        self.h += count(stanzas)
        self.got[-1] += bodies([one for one in stanzas if one.get("type") != "error"])
        for one in stanzas:
            if one.tag == f"{SM}a":
                self.told(int(one.get("h", "")))

    def told(self, h: int) -> None:
        del self.unsent[: h - self.base]
        self.base = h

    async def acknowledge(self) -> None:
        if self.client is not None:
            await self.client.send(f"<a xmlns='{ns.SM}' h='{self.h}'/>")

    async def lose_wire(self) -> None:
        if self.client is not None:
            client, self.client = self.client, None
            await client.drop()

    async def resume(self) -> None:
        """By another connection, while the old one may be there still."""
        client = await ready(self.world, "alice")
        answer = await ask_to_resume(client, self.id, self.h)
        if answer.tag == f"{SM}failed":
            h = answer.get("h")
            if h is not None:
                self.told(int(h))
            await client.drop()
            await self.come_anew(knows=h is not None)
            return
        assert answer.tag == f"{SM}resumed"
        self.client = client
        client.jid = self.jid
        self.told(int(answer.get("h", "")))
        again, self.unsent = self.unsent, []
        await self.read()
        for stanza in again:
            await self.send(stanza)


class Story:
    """What the model knows."""

    def __init__(self, world: World, phone: Phone) -> None:
        self.world = world
        self.phone = phone
        self.sent: list[str] = []
        self.written: list[str] = []
        self.heard: list[str] = []
        self.second: Client | None = None
        self.second_got: list[str] = []

    async def begin(self) -> None:
        self.bob = await self.world.login("bob")
        await self.phone.come_anew()

    async def do(self, step: str) -> None:
        phone = self.phone
        if step in ("to account", "to session"):
            text = str(len(self.sent))
            self.sent.append(text)
            to = "alice@localhost" if step == "to account" else phone.jid
            await self.bob.send(f"<message to='{to}' type='chat'><body>{text}</body></message>")
        elif step == "from phone":
            text = f"w{len(self.written)}"
            self.written.append(text)
            await phone.send(f"<message to='{self.bob.jid}' type='chat'><body>{text}</body></message>")
        elif step == "stop reading" and phone.client is not None:
            phone.client.stop_reading()
        elif step == "break":
            await phone.lose_wire()
        elif (step == "resume" and not phone.is_on) or step == "take over":
            await phone.resume()
        elif step == "come anew":
            await phone.lose_wire()
            await phone.come_anew()
        elif step == "expire" and not phone.is_on:
            await self.world.advance(310)
        elif step == "acknowledge":
            await phone.read()
            await phone.acknowledge()
        elif step == "ask" and phone.client is not None:
            await phone.client.send(f"<r xmlns='{ns.SM}'/>")
        elif step == "second comes" and self.second is None:
            self.second = await self.world.login("alice", priority=-1)
        elif step == "second goes" and self.second is not None:
            await self.second.send("</stream:stream>")
            self.second = None
        await self.read()

    async def read(self) -> None:
        await self.phone.read()
        self.heard += bodies([one for one in await self.bob.receive_all() if one.get("type") != "error"])
        if self.second is not None:
            self.second_got += bodies(await self.second.receive_all())

    async def end(self) -> None:
        """All are there, and all sessions that were left behind are over."""
        phone = self.phone
        await phone.lose_wire()
        await phone.resume()
        await phone.acknowledge()
        for app in self.world.apps:
            for session in app.sessions.of("alice@localhost"):
                if session.full != phone.jid and (self.second is None or session.full != self.second.jid):
                    app.binding.end(session)
                    await self.world.settle()
        await self.read()
        if phone.client is not None:
            await phone.client.send(f"<r xmlns='{ns.SM}'/>")
        await self.read()

    def judge(self) -> None:
        got = [text for session in self.phone.got for text in session]
        for session in self.phone.got:
            assert len(set(session)) == len(session), "twice in one session"
        assert set(got) == set(self.sent), "all of it"
        if self.phone.is_prompt:
            assert Counter(got) == Counter(self.sent), "once, for nothing was read and not acknowledged"
        missing = [text for text in self.written if text not in self.heard]
        assert all(any(f">{text}<" in one for one in self.phone.unknown) for text in missing)
        assert self.heard == [text for text in self.written if text not in missing], "once, and in order"
        assert self.second_got == [], "it wants no messages"


@pytest.mark.one_node("test_resumption_elsewhere.py is about several")
@settings(max_examples=30)
@given(steps=STEPS, is_prompt=st.booleans())
def test_each_message_comes_once(steps: list[str], is_prompt: bool) -> None:
    async def run() -> None:
        plugins = ("offline",)
        async with World(plugins=plugins, settings={"sessions": {"ping_after": 0}}) as world:
            story = Story(world, Phone(world, is_prompt=is_prompt))
            await story.begin()
            for step in steps:
                await story.do(step)
            await story.end()
            story.judge()
            assert world.app.router.errors == 0

    asyncio.run(run())
