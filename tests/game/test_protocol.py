"""What docs/game-protocol.md shows is what is said: each of its examples, section by section, in a world."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring, tostring

import pytest

from xmppd import ns
from xmppd.admin.commands import Caller
from xmppd.configfile import shipped
from xmppd.document import read_document
from xmppd.testing import Client, World
from xmppd.testing.client import canonical

DOCUMENT = Path(__file__).parents[2] / "docs" / "game-protocol.md"
SECTION = re.compile(r"^## (.*?)$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```xml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^(C|S|B|T)(?: (\w+))?: ")
FIRST = "alice"
"""Who speaks where nobody is named."""
CONFIG: dict[str, dict[str, Any]] = {
    "moderation": {"words": str(Path(__file__).parent / "words")},
    "invites": {"senders": "anybody", "key": "a key for tests, of 32 characters"},
    "rich_presence": {
        "key": "a key for tests, of 32 characters",
        "games": {
            "chess": {
                "name": "Chess",
                "status": "Playing {mode}",
                "says": {
                    "properties": {
                        "mode": {"type": "string"},
                        "board": {
                            "type": "object",
                            "properties": {"size": {"type": "integer", "maximum": 19}},
                        },
                        "elo": {"type": "integer", "by": "server"},
                    }
                },
            }
        },
    },
}
"""Settings of plugins for the examples, where others than the usual ones are needed to show something."""

MORE = {"Another dialect": ("archive", "riot_profile")}
"""What else is loaded for a section."""


@dataclass
class Step:
    """What a client sends (C), one of the stanzas it gets then (S), what the back end calls (B), or how many
    seconds go by (T).
    """

    kind: str
    who: str
    text: str
    line: int
    due: list["Step"] = field(default_factory=list)


def steps_of(block: str) -> Iterator[Step]:
    """The steps of one example; what is due after each hangs on it."""
    lines: list[tuple[int, re.Match[str], list[str]]] = []
    for number, line in enumerate(block.splitlines()):
        if (found := LINE.match(line)) is not None:
            lines.append((number, found, [line[found.end() :]]))
        else:
            assert lines, f"an example begins with C:, S:, B: or T:, not with {line!r}"
            lines[-1][2].append(line.strip())
    last: Step | None = None
    for number, found, parts in lines:
        step = Step(found[1], found[2] or FIRST, " ".join(parts).strip(), number)
        if step.kind == "S":
            if last is None:
                last = Step("T", FIRST, "0", number)
            last.due.append(step)
        else:
            if last is not None:
                yield last
            last = step
    if last is not None:
        yield last


def examples() -> list[tuple[str, list[list[Step]]]]:
    """The sections that have examples, each with those, in order."""
    text = DOCUMENT.read_text(encoding="utf-8").replace("example.org", "localhost")
    return [
        (title, [list(steps_of(block)) for block in blocks])
        for title, body in SECTION.findall(text)
        if (blocks := BLOCK.findall(body))
    ]


def plugins_of_the_game() -> tuple[str, ...]:
    """All that config/game.yaml loads."""
    document = read_document((shipped("config") / "game.yaml").read_text(encoding="utf-8"), "game.yaml")
    enabled: list[str] = document.data["plugins"]["enabled"]
    return tuple(enabled)


def tree_of(xml: str) -> Element:
    """A stanza without the white space that only makes it readable."""
    [tree] = fromstring(f"<x xmlns='{ns.CLIENT}'>{xml}</x>")
    for part in tree.iter():
        part.text = part.text if part.text and part.text.strip() else None
        part.tail = None
    return tree


def is_it(found: Element, wanted: Element) -> bool:
    """Whether a stanza is the one of the document, where `*` stands for any value or text."""
    found, wanted = (
        tree_of(tostring(found, encoding="unicode")),
        tree_of(tostring(wanted, encoding="unicode")),
    )
    for one, other in zip(wanted.iter(), found.iter(), strict=False):
        for name, value in one.items():
            if "*" in value and fits(value, other.get(name)):
                one.set(name, other.get(name, ""))
        if one.text and "*" in one.text and fits(one.text, other.text):
            one.text = other.text
    return canonical(found) == canonical(wanted)


def fits(pattern: str, value: str | None) -> bool:
    """Whether a value is one of the pattern, in which each `*` stands for one character at least."""
    return (
        value is not None and re.fullmatch(".+".join(map(re.escape, pattern.split("*"))), value) is not None
    )


class Play:
    """One section, played in a world of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clients: dict[str, Client] = {}

    async def client(self, who: str) -> Client:
        """The client of that name, who logs in when he is named first; `alice2` is another one of alice's."""
        if who not in self.clients:
            self.clients[who] = await self.world.login(who.rstrip("0123456789"), resource=who)
            await self.forget()
        return self.clients[who]

    async def forget(self) -> None:
        """What nobody looked at is not looked at any more."""
        for client in self.clients.values():
            await client.receive_all()

    async def play(self, step: Step) -> None:
        """Do a step, and see that what is due comes: each client gets its own in this order, among others."""
        for due in step.due:
            await self.client(due.who)
        if step.kind == "C":
            client = await self.client(step.who)
            await self.forget()
            await client.send(tostring(tree_of(step.text)))
        elif step.kind == "B":
            await self.forget()
            await self.call(step.text)
        else:
            await self.forget()
            await self.world.advance(float(step.text.split()[0]))
        got = {who: await client.receive_all() for who, client in self.clients.items()}
        for due in step.due:
            wanted, left = tree_of(due.text), got[due.who]
            found = next((it for it in left if is_it(it, wanted)), None)
            shown = "\n".join(tostring(it).decode() for it in left)
            assert found is not None, f"{due.who} did not get\n{due.text}\nbut\n{shown}"
            left.remove(found)

    async def call(self, text: str) -> None:
        """What a back end does: the name of a command and its arguments as JSON."""
        name, brace, arguments = text.partition("{")
        await self.world.app.commands.call(
            name.strip(), json.loads(brace + arguments) if brace else {}, Caller("http", "backend")
        )
        await self.world.settle()


@pytest.mark.asyncio
@pytest.mark.parametrize(("title", "blocks"), examples(), ids=lambda it: it if isinstance(it, str) else "")
async def test_the_examples_of(title: str, blocks: list[list[Step]]) -> None:
    plugins = (*plugins_of_the_game(), *MORE.get(title, ()))
    async with World(plugins=plugins, plugin_config=CONFIG) as world:
        play = Play(world)
        for block in blocks:
            for step in block:
                await play.play(step)


def test_every_example_is_marked() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text.count("```xml") == sum(len(blocks) for _, blocks in examples())


def test_steps_of_an_example() -> None:
    block = "C: <iq\n     id='1'/>\nS: <iq id='1'/>\nS bob: <message/>\nT: 5 s later\nB: friend part {}\n"
    first, second, third = steps_of(block)
    assert (first.kind, first.who, first.text) == ("C", "alice", "<iq id='1'/>")
    assert [(due.who, due.text) for due in first.due] == [("alice", "<iq id='1'/>"), ("bob", "<message/>")]
    assert (second.kind, second.text, third.text) == ("T", "5 s later", "friend part {}")


def test_what_an_example_leaves_open() -> None:
    stanza = tree_of("<iq id='7' from='x@y/z'><a at='12'>now</a></iq>")
    assert is_it(stanza, tree_of("<iq id='*' from='x@*/z'><a at='*'>*</a></iq>"))
    assert not is_it(stanza, tree_of("<iq id='*' from='x@*/q'><a at='*'>*</a></iq>"))
    assert not is_it(stanza, tree_of("<iq id='*' from='x@*/z'><a at='*'/></iq>"))
