"""Whatever a client says in the namespaces of games it is refused as it should be, and others go on."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from copy import deepcopy
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

import pytest
from gamerequests import ALICE, BOB, FINE
from gameworld import call, everything, greets

from xmppd.stream.lru import Lru
from xmppd.testing import Client, World, refusal
from xmppd.xml.build import serialize

FORBIDDEN = ("internal-server-error", "undefined-condition")
VALUES = (
    "",
    " ",
    "-1",
    "0",
    "9" * 40,
    "1e9",
    "NaN",
    "\u0661",
    "x" * 10_240,
    "x" * 30_000,
    "@",
    "a@b@c",
    "localhost",
    f"{ALICE}/x",
    ALICE,
    "alice@elsewhere",
    "nobody@localhost",
    f"{'x' * 1100}@localhost",
    "Zoe#EUW",
    "#",
    "##",
    "\u202eeoZ#EUW",
    "e" + "\u0301" * 300,
    "\ufdd0\U0001fffe",
    "\u2028\u0085\u00a0",
    "\U0001f469\u200d\U0001f680",
    "true",
    "{",
    "[" * 5_000,
    '{"mode": "\\ud800"}',
    '{"mode": "\\u0000"}',
    '{"mode": "\\uffff"}',
    '{"\\u0000": 1}',
    '{"mode": 1e400}',
    '{"mode": "a", "mode": 5}',
    "0001-01-01 00:00:00",
    "9999-12-31 23:59:59.999999",
    "' or 1=1 --",
    "]]><a/>&amp;",
)
OTHER_TARGETS = (
    ALICE,
    "localhost",
    "localhost/x",
    BOB,
    f"{BOB}/pc",
    "nobody@localhost",
    "elsewhere",
    "x@elsewhere/y",
    "@",
)


def spoilt(payload: str) -> Iterator[Element]:
    """The payload with something wrong in each of its places."""
    whole = fromstring(payload)
    for place, part in enumerate(whole.iter()):
        for name in list(part.keys()):
            for value in (None, *VALUES):
                tree = deepcopy(whole)
                here = [*tree.iter()][place]
                if value is None:
                    del here.attrib[name]
                else:
                    here.set(name, value)
                yield tree
        for value in VALUES:
            tree = deepcopy(whole)
            [*tree.iter()][place].text = value
            yield tree
        for count in (1, 2, 300):
            for name in {f"{{{whole.tag[1:].partition('}')[0]}}}other", *(child.tag for child in part)}:
                tree = deepcopy(whole)
                here = [*tree.iter()][place]
                found = here.find(name)
                for _ in range(count):
                    here.append(Element(name) if found is None else deepcopy(found))
                yield tree
        tree = deepcopy(whole)
        here = [*tree.iter()][place]
        for _ in range(40):
            here = SubElement(here, here.tag)
        yield tree
        tree = deepcopy(whole)
        here = [*tree.iter()][place]
        here.clear()
        yield tree
        tree = deepcopy(whole)
        here = [*tree.iter()][place]
        here.tag = here.tag.replace("}", "1}")
        yield tree
        tree = deepcopy(whole)
        [*tree.iter()][place].tag = "{urn:x}x"
        yield tree


def variants(name: str) -> list[tuple[str, str, bytes]]:
    """All that is said wrongly instead of a request: type, `to`, payload."""
    kind, to, payload = FINE[name]
    found = [(kind, to, serialize(tree)) for tree in spoilt(payload)]
    whole = payload.encode()
    found += [("get" if kind == "set" else "set", to, whole)]
    found += [(kind, other, whole) for other in OTHER_TARGETS]
    found += [(other, to, whole) for other in ("result", "error")]
    found += [(kind, to, whole + whole), (kind, to, b""), (kind, to, b"<x xmlns='urn:x'/>" + whole)]
    return found


class Loud(logging.Handler):
    """What was logged that should not be."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self.records.append(f"{record.name} {record.getMessage()} {record.exc_info}")


@pytest.fixture(name="loud")
def listens() -> Iterator[Loud]:
    """The log is held against what must not be in it."""
    loud = Loud()
    logging.getLogger().addHandler(loud)
    yield loud
    logging.getLogger().removeHandler(loud)


async def people(world: World) -> tuple[Client, Client, Client]:
    alice, carol, dora = [await world.login(name, "pc") for name in ("alice", "carol", "dora")]
    for one, other in ((ALICE, "carol@localhost"), ("carol@localhost", "dora@localhost")):
        await call(world, "friend befriend", one=one, other=other)
    await call(world, "player rename", account=BOB, name="Bob#ONE")
    return alice, carol, dora


async def said_at_once(client: Client, sent: list[tuple[str, str, bytes]]) -> None:
    """Say all, and see to it that each request gets one answer, and only requests do."""
    await client.receive_all()
    due: dict[str, tuple[str, str, bytes]] = {}
    for number, (kind, to, payload) in enumerate(sent):
        address = f" to='{to}'" if to else ""
        due[f"h{number}"] = (kind, to, payload)
        client.write(f"<iq type='{kind}' id='h{number}'{address}>".encode() + payload + b"</iq>")
    for _ in range(20):
        await client.world.settle()
    answers: dict[str, list[Element]] = {}
    for it in await client.receive_all():
        if it.get("id") in due:
            answers.setdefault(it.get("id", ""), []).append(it)
    assert not client.closed, "the stream was ended"
    for id, (kind, to, payload) in due.items():
        shown = (kind, to, payload[:300], len(payload))
        got = [it for it in answers.get(id, ()) if it.get("type") in ("result", "error")]
        if kind in ("result", "error"):
            assert not got, (shown, [tostring(it) for it in got])
            continue
        assert len(got) == 1, (shown, [tostring(it) for it in answers.get(id, ())])
        if got[0].get("type") == "error":
            assert refusal(got[0]).split()[1] not in FORBIDDEN, (shown, tostring(got[0]))


def by_namespace() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, (_, _, payload) in FINE.items():
        space = fromstring(payload).tag[1:].partition("}")[0]
        ours = space if space.startswith("urn:xmppd") else "dialect"
        found.setdefault(ours, []).append(name)
    return found


@pytest.mark.asyncio
@pytest.mark.parametrize(("space", "names"), by_namespace().items(), ids=[*by_namespace()])
async def test_whatever_is_wrong_is_refused_and_others_go_on(
    space: str, names: list[str], loud: Loud
) -> None:
    async with everything() as world:
        alice, carol, dora = await people(world)
        for name in names:
            await said_at_once(alice, variants(name))
            assert await greets(carol, dora), name
            assert loud.records == [], name


def sizes(thing: object, path: str, found: dict[str, int], seen: set[int], depth: int = 0) -> None:
    """How much is in each container that a plugin has, by its path."""
    if id(thing) in seen or depth > 4:
        return
    seen.add(id(thing))
    if isinstance(thing, dict | list | set | deque | Lru):
        found[path] = len(thing)
    if isinstance(thing, dict):
        for key, value in list(thing.items())[:50]:
            sizes(value, f"{path}[{key!r}]", found, seen, depth + 1)
    elif type(thing).__module__.startswith(("xmppd_plugin", "plugins")):
        slots = getattr(type(thing), "__slots__", ())
        names = [*vars(thing)] if hasattr(thing, "__dict__") else slots
        for name in names:
            if name not in ("server", "scope", "log", "config"):
                sizes(getattr(thing, name, None), f"{path}.{name}", found, seen, depth + 1)
