"""What docs/conversations.md shows is what is sent: each of its stanzas, one after the other."""

import re
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring, tostring

import pytest

from xmppd import ns
from xmppd.testing import Client, World
from xmppd.testing.client import canonical

DOCUMENT = Path(__file__).parents[2] / "docs" / "conversations.md"
EXAMPLE = re.compile(r"```xml\n<!-- (\w+) (sends|gets) -->\n(.*?)```", re.DOTALL)
ID = re.compile(r"[A-Za-z0-9_-]{16}")
GIVEN = ("id", "stamp")
"""Attributes whose values in the document are examples where the server makes them."""


def tree_of(xml: str) -> Element:
    """The stanza without the white space that only makes it readable."""
    [tree] = fromstring(f"<x xmlns='{ns.CLIENT}'>{xml}</x>")
    for part in tree.iter():
        part.text = part.text if part.text and part.text.strip() else None
        part.tail = None
    return tree


class Names:
    """What the ids of the document are in this run."""

    def __init__(self) -> None:
        self._real: dict[str, str] = {}

    def learn(self, wanted: Element, found: Element) -> None:
        """Put what only the server knows into what was expected: ids by what they were before, moments."""
        for one, other in zip(wanted.iter(), found.iter(), strict=False):
            for name in GIVEN:
                text, real = one.get(name), other.get(name)
                if text and real and (ID.fullmatch(text) or name == "stamp" or text.startswith("read")):
                    one.set(name, self._real.setdefault(text, real) if ID.fullmatch(text) else real)
        self.tell(wanted)

    def tell(self, wanted: Element) -> None:
        for part in wanted.iter():
            part.text = self._real.get(part.text or "", part.text)
            if (id := part.get("id")) in self._real:
                part.set("id", self._real[id])


@pytest.mark.asyncio
async def test_every_example_of_the_document() -> None:
    examples = EXAMPLE.findall(DOCUMENT.read_text())
    assert len(examples) > 10
    names = Names()
    async with World(plugins=("archive",)) as world:
        who: dict[str, Client] = {}
        for name, account in (("phone", "bob"), ("alice", "alice"), ("carol", "carol")):
            who[name] = await world.login(account, resource="phone" if name == "phone" else "desk")
        for sender, id, text in (
            ("carol", "m1", "Good game."),
            ("alice", "m2", "Again?"),
            ("alice", "m3", "Are you there?"),
        ):
            await who[sender].send(
                f"<message to='bob@localhost' type='chat' id='{id}'><body>{text}</body></message>"
            )
        await who["phone"].receive_all()
        who["desk"] = await world.login("bob", resource="desk")
        await who["desk"].ask("get", f"<query xmlns='{ns.CONVERSATIONS}'/>")
        for client in who.values():
            await client.receive_all()
        for name, does, xml in examples:
            wanted = tree_of(xml)
            if does == "sends":
                if "retract" in xml:
                    await world.advance(5)
                for client in who.values():
                    await client.receive_all()
                names.tell(wanted)
                await who[name].send(tostring(wanted))
            else:
                found = tree_of(tostring(await who[name].receive(), encoding="unicode"))
                names.learn(wanted, found)
                assert canonical(wanted) == canonical(found)
