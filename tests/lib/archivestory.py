"""Clients of a whole server with archives, which lose their connections and their nodes, and what each has to
see.
"""

from __future__ import annotations

from typing import Final
from xml.etree.ElementTree import Element

from archives import BODY, RESULT, STANZA_ID, Found, page
from managing import SM, ask_to_resume, count, enable, ready

from plugins.archive.ids import from_text
from xmppd import ns
from xmppd.testing import Client, World

MESSAGE: Final = f"{{{ns.CLIENT}}}message"


async def kill(world: World, node: int) -> None:
    """One of two nodes is gone without a word, and the other knows."""
    other = world.cluster(1 - node)
    world.cut(0, 1)
    other.mesh.give_up(other.mesh.members[world.cluster(node).mesh.name], "it was killed")
    await world.settle()


class Device:
    """A client with stream management. Messages that were not acknowledged to it it sends again, with the ids
    that they had, also in a new session.

    One that `catches_up` has copies of all that its account says and is told, and asks the archive for all
    behind the last it saw before it is available in a new session.
    """

    def __init__(self, world: World, user: str, resource: str, *, catches_up: bool) -> None:
        self.world = world
        self.user = user
        self.account = f"{user}@localhost"
        self.resource = resource
        self.catches_up = catches_up
        self.client: Client | None = None
        self.node = 0
        self.id = ""
        self.h = self.base = 0
        self.unsent: list[str] = []
        self.wrote: list[str] = []
        self.seen: list[str] = []
        self.last = ""
        self.strange: list[str] = []

    # what it does

    async def send(self, stanza: str) -> None:
        """Send something, and ask whether it is handled."""
        self.unsent.append(stanza)
        if self.client is not None:
            await self.client.send(f"{stanza}<r xmlns='{ns.SM}'/>")
            await self.read()

    def write(self, stanza: str) -> None:
        """Send something, and nothing is waited for."""
        self.unsent.append(stanza)
        if self.client is not None:
            self.client.write(stanza)

    async def send_and_lose(self, stanza: str) -> None:
        """The connection breaks behind it."""
        self.write(stanza)
        await self.lose()

    async def read(self) -> list[Element]:
        assert self.client is not None
        stanzas = await self.client.receive_all()
        self.h += count(stanzas)
        for one in stanzas:
            if one.tag == f"{SM}a":
                self.told(int(one.get("h", "")))
            elif one.tag == MESSAGE and one.get("type") != "error":
                self.look_at(one)
        if count(stanzas):
            await self.client.send(f"<a xmlns='{ns.SM}' h='{self.h}'/>")
        return stanzas

    async def lose(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            await client.drop()

    async def come(self, node: int) -> None:
        """Resume the session, or begin another one."""
        if self.client is not None:
            return
        self.node = node
        client = await ready(self.world, self.user, node=node)
        if self.id:
            answer = await ask_to_resume(client, self.id, self.h)
            if (h := answer.get("h")) is not None:
                self.told(int(h))
            if answer.tag == f"{SM}resumed":
                self.client = client
                await self.read()
                await self.send_again()
                return
        await self.begin(client)
        await self.send_again()

    async def begin(self, client: Client) -> None:
        """A new session."""
        await client.bind(self.resource)
        unsent, self.unsent = self.unsent, []
        self.h = self.base = 0
        self.id = await enable(client)
        self.client = client
        if self.catches_up:
            await self.send(f"<iq type='set' id='c'><enable xmlns='{ns.CARBONS}'/></iq>")
            await self.catch_up()
        await self.send("<presence/>")
        self.unsent += unsent

    async def send_again(self) -> None:
        unsent, self.unsent = self.unsent, []
        for stanza in unsent:
            if stanza.startswith("<message"):
                await self.send(stanza)

    async def leave(self) -> None:
        """End the session when all is acknowledged."""
        if self.client is not None:
            await self.client.send(f"<r xmlns='{ns.SM}'/>")
            await self.read()
            await self.client.send("</stream:stream>")
            await self.lose()
            self.id = ""

    async def catch_up(self) -> None:
        """Ask for all behind the last that it saw."""
        assert self.client is not None
        is_complete = False
        while not is_complete:
            asked = page(f"<max>5</max>{f'<after>{self.last}</after>' if self.last else ''}")
            self.unsent.append("<iq/>")
            await self.client.send(f"<iq type='set' id='q'><query xmlns='{ns.MAM}'>{asked}</query></iq>")
            is_complete = Found(await self.read()).is_complete

    # what it sees

    def told(self, h: int) -> None:
        """So many stanzas of this session are handled."""
        del self.unsent[: max(0, h - self.base)]
        self.base = max(self.base, h)

    def look_at(self, stanza: Element) -> None:
        result = stanza.find(RESULT)
        inner = stanza.find(f".//{{{ns.FORWARD}}}forwarded/{MESSAGE}")
        message = stanza if inner is None else inner
        text = message.findtext(BODY)
        if text is None:
            return
        self.seen.append(text)
        ends = (message.get("from", ""), message.get("to", self.account))
        if self.account not in [end.partition("/")[0] for end in ends]:
            self.strange.append(text)
        ids = [found.get("id", "") for found in message.findall(STANZA_ID) if found.get("by") == self.account]
        id = result.get("id", "") if result is not None else (ids or [""])[0]
        if id and (not self.last or (from_text(id) or b"") > (from_text(self.last) or b"")):
            self.last = id
