"""Kinds of events: their shapes, and who is told."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from xmppd.core.events import Event, EventField, EventKind, Events
from xmppd.core.happenings import sources
from xmppd.core.ids import HybridClock
from xmppd.testing import World

WEBHOOKS = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")
WON = EventKind("game.won", "Somebody won.", {"points": EventField("number", "how many")}, {"points": 3})


def events(failures: list[Exception] | None = None) -> Events:
    def failed(listener: Any, error: Exception) -> None:
        if failures is None:
            raise error
        failures.append(error)

    return Events(HybridClock(lambda: 1000.0), failed, lambda: "node1")


@pytest.mark.parametrize("name", ["won", "Game.won", "game.", ".won", "game won"])
def test_names_are_nouns_and_verbs(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of an event"):
        EventKind(name, "")


@pytest.mark.parametrize(
    ("type", "value", "fits"),
    [
        ("text", "", True),
        ("text", 1, False),
        ("number", 1, True),
        ("number", 1.5, True),
        ("number", True, False),
        ("flag", False, True),
        ("flag", 0, False),
        ("texts", ["a"], True),
        ("texts", [1], False),
        ("texts", "a", False),
        ("object", {}, True),
        ("object", [], False),
        ("text", None, False),
    ],
)
def test_fields(type: Any, value: Any, fits: bool) -> None:
    assert EventField(type, "").fits(value) is fits
    assert EventField(type, "", optional=True).fits(value) is (fits or value is None)


@pytest.mark.parametrize(
    ("data", "why"),
    [({}, "is missing"), ({"points": "3"}, "must be a"), ({"points": 3, "x": 1}, "no field x")],
)
def test_data_of_another_shape(data: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        WON.check(data)
    with pytest.raises(ValueError, match=why):
        EventKind("game.won", "", WON.fields, data)


def test_who_is_meant() -> None:
    assert WON.is_meant("game.*")
    assert WON.is_meant("*")
    assert not WON.is_meant("gam")
    asked = EventKind("game.chat", "", is_asked=True)
    assert asked.is_meant("game.chat")
    assert not asked.is_meant("game.*")


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"two kinds of events game\.won"):
        events().compile([WON, WON], [])


def test_listeners_are_told_and_one_that_fails_holds_up_nobody() -> None:
    failures: list[Exception] = []
    told: list[Event] = []
    some = events(failures)

    def broken(event: Event) -> None:
        raise KeyError("a plugin's mistake")

    some.compile([WON], [(broken, ["*"]), (told.append, ["game.*"]), (told.append, ["other.*"])])
    assert some.tell(WON, "alice@localhost", {"points": 1}) is None
    assert some.tell(WON, "alice@localhost", {"points": 2}) is None
    assert [it.data["points"] for it in told] == [1, 2]
    assert told[0].id < told[1].id
    assert (told[0].node, told[0].account, round(told[0].time)) == ("node1", "alice@localhost", 1000)
    assert len(failures) == 2


@pytest.mark.asyncio
async def test_who_tells_waits_for_all_who_keep_it() -> None:
    some = events()
    one, other = asyncio.Future[None](), asyncio.Future[None]()
    some.compile([WON], [(lambda event: one, ["*"]), (lambda event: other, ["*"])])
    told = some.tell(WON, "", {"points": 1})
    assert told is not None
    task = asyncio.ensure_future(told)
    one.set_result(None)
    await asyncio.sleep(0)
    assert not task.done()
    other.set_result(None)
    await task


def test_the_page_for_back_ends_tells_every_kind_as_it_is() -> None:
    rows = re.findall(r"^\| `([\w.-]+)` \| (\d+) \| .* \| `(\{.*\})` \|$", WEBHOOKS, re.MULTILINE)
    shown = {name: (int(version), json.loads(example)) for name, version, example in rows}
    fields = set(re.findall(r"^\| `([\w.-]+)` \| `(\w+)` \| (\w+)( or null)? \|", WEBHOOKS, re.MULTILINE))
    kinds = [kind for source in sources(events(), *[None] * 6) for kind in source.kinds]  # type: ignore[arg-type]
    assert shown == {kind.name: (kind.version, dict(kind.example)) for kind in kinds}
    assert fields == {
        (kind.name, name, about.type, " or null" if about.optional else "")
        for kind in kinds
        for name, about in kind.fields.items()
    }


PLUGIN = """
from xmppd.plugin import Emitter, Event, EventField, Kept, Plugin, listens

class Game(Plugin):
    won = Emitter("game.won", "Won.", fields={"points": EventField("number", "n")}, example={"points": 1})
    seen: Kept[list] = Kept(list)
    wanted: Kept[list] = Kept(list)

    @listens(lambda self: self.wanted)
    def note(self, event: Event) -> None:
        self.seen.append((event.kind, event.account))
"""


@pytest.mark.asyncio
async def test_a_plugin_tells_and_listens_to_what_it_wants_now(tmp_path: Path) -> None:
    (tmp_path / "game.py").write_text(PLUGIN)
    async with World(plugins=("game",), plugin_folders=(tmp_path,)) as world:
        game = world.plugin("game")
        await game.won.emit("alice@localhost", points=1)
        assert (game.seen, game.won.is_wanted) == ([], False)
        game.wanted += ["game.*", "account.created"]
        world.app.events.changed()
        assert game.won.is_wanted
        await game.won.emit("alice@localhost", points=1)
        await world.app.accounts.create("zoe@localhost", "secret")
        assert game.seen == [("game.won", "alice@localhost"), ("account.created", "zoe@localhost")]
        with pytest.raises(ValueError, match="points must be a number"):
            await game.won.emit("alice@localhost", points="many")
        game.wanted.clear()
        world.app.events.changed()
        await world.app.accounts.create("yan@localhost", "secret")
        assert len(game.seen) == 2
