"""The life of a plugin: what is loaded anew and what stays, what goes over to the next one, how it ends."""

import asyncio
import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from xmppd.errors import CommandError
from xmppd.section import changed
from xmppd.testing import World

ROOMS = '''
import asyncio
from xmppd.plugin import Counter, Gauge, Histogram, Kept, Plugin, PluginConfig, SessionSlot

class RoomsConfig(PluginConfig):
    most: int = 5

class Rooms(Plugin):
    """Says on the server who it is and what it does."""
    Config = RoomsConfig
    rooms = Kept(dict)
    topic = Kept(str)
    guests = SessionSlot(factory=list)
    made = Counter("Rooms made.")
    open = Gauge("Rooms there are.")
    size = Histogram("How large they are.", (1, 2, 5))

    async def start(self):
        self.rooms["lobby"] = self.rooms.get("lobby", 0) + 1
        self.topic += "x"
        self.work = self.spawn(self.run())

    async def run(self):
        await asyncio.Event().wait()
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one plugin that keeps much."""
    (tmp_path / "rooms.py").write_text(ROOMS)
    return tmp_path


def world_with(folder: Path, *plugins: str, **more: Any) -> World:
    return World(plugins=plugins, plugin_folders=(folder,), **more)


async def load(world: World, **plugins: Any) -> list[str]:
    """Load with the configuration changed so."""
    fresh = changed(world.config.plugins, **plugins)
    return await world.app.loader.load(changed(world.config, plugins=fresh))


# loaded anew


@pytest.mark.asyncio
async def test_what_has_not_changed_is_not_loaded_again(folder: Path) -> None:
    async with world_with(folder, "rooms", "ping") as world:
        rooms, ping = world.plugin("rooms"), world.plugin("ping")
        assert await world.app.loader.load(world.config) == []
        assert (world.plugin("rooms"), world.plugin("ping")) == (rooms, ping)
        (folder / "rooms.py").write_text(ROOMS + "\n# changed")
        assert await world.app.loader.load(world.config) == ["rooms"]
        assert world.plugin("rooms") is not rooms
        assert world.plugin("ping") is ping


@pytest.mark.asyncio
async def test_who_is_told_something_else_is_loaded_again(folder: Path) -> None:
    async with world_with(folder, "rooms", "vcard") as world:
        assert await load(world, config={"rooms": {"most": 6}}) == ["rooms"]
        assert world.plugin("rooms").config.most == 6
        assert await load(world, config={"rooms": {"most": 6}, "vcard": {"max_bytes": 131_072}}) == []


@pytest.mark.asyncio
async def test_any_file_of_a_package_counts(tmp_path: Path) -> None:
    package = tmp_path / "rooms"
    package.mkdir()
    (package / "__init__.py").write_text(ROOMS)
    (package / "words.txt").write_text("hello")
    async with world_with(tmp_path, "rooms") as world:
        assert await world.app.loader.load(world.config) == []
        (package / "words.txt").write_text("moin")
        assert await world.app.loader.load(world.config) == ["rooms"]


@pytest.mark.asyncio
async def test_another_version_of_a_package_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rooms_package.py").write_text(ROOMS)
    about = tmp_path / "rooms-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: rooms\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[xmppd.plugins]\nrooms = rooms_package:Rooms\n")
    monkeypatch.syspath_prepend(tmp_path)
    async with World(plugins=("rooms",)) as world:
        assert await world.app.loader.load(world.config) == []
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: rooms\nVersion: 1.1\n")
        assert await world.app.loader.load(world.config) == ["rooms"]


@pytest.mark.asyncio
async def test_the_order_is_that_of_the_configuration_also_of_those_who_stay(folder: Path) -> None:
    async with world_with(folder, "rooms", "ping") as world:
        assert await load(world, enabled=("ping", "rooms")) == []
        assert [loaded.name for loaded in world.app.loader.loaded] == ["ping", "rooms"]


@pytest.mark.asyncio
async def test_what_could_not_be_loaded_leaves_modules_and_numbers_as_they_were(folder: Path) -> None:
    async with world_with(folder, "rooms") as world:
        module, made = (
            sys.modules["xmppd_plugins.rooms"],
            world.app.server.metrics["rooms_made"],
        )
        (folder / "rooms.py").write_text(ROOMS.replace("made = Counter", "made = Gauge"))
        (folder / "broken.py").write_text("1 / 0")
        with pytest.raises(CommandError):
            await load(world, enabled=("rooms", "broken"))
        assert sys.modules["xmppd_plugins.rooms"] is module
        assert world.app.server.metrics["rooms_made"] is made


# handed over


@pytest.mark.asyncio
async def test_what_is_kept_goes_over_to_the_next_instance(folder: Path) -> None:
    async with world_with(folder, "rooms") as world:
        old = world.plugin("rooms")
        await world.app.loader.reload("rooms", world.config)
        new = world.plugin("rooms")
        assert new is not old
        assert new.rooms is old.rooms
        assert new.rooms == {"lobby": 2}
        assert new.topic == "xx"


@pytest.mark.asyncio
async def test_what_is_kept_ends_when_the_plugin_is_unloaded(folder: Path) -> None:
    async with world_with(folder, "rooms") as world:
        await load(world, enabled=())
        await load(world, enabled=("rooms",))
        assert world.plugin("rooms").rooms == {"lobby": 1}


@pytest.mark.asyncio
async def test_a_slot_with_a_factory_gives_each_session_a_value_of_its_own(folder: Path) -> None:
    async with world_with(folder, "rooms") as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        guests = world.plugin("rooms").guests
        guests[alice.session].append("x")
        assert (guests[alice.session], guests[bob.session]) == (["x"], [])
        await world.app.loader.reload("rooms", world.config)
        assert world.plugin("rooms").guests[alice.session] == ["x"]


# numbers


@pytest.mark.asyncio
async def test_a_gauge_falls_too_and_a_histogram_tells_how_values_are_spread(folder: Path) -> None:
    async with world_with(folder, "rooms") as world:
        rooms, metrics = world.plugin("rooms"), world.app.server.metrics
        rooms.open.set(3)
        rooms.open.inc(-1)
        for value in (1, 1.5, 2, 4, 9):
            rooms.size.observe(value)
        await world.app.loader.reload("rooms", world.config)
        assert metrics["rooms_open"].shown == 2
        assert metrics["rooms_size"].shown == {"count": 5, "sum": 17.5, "up_to": {"1": 1, "2": 3, "5": 4}}
        assert [metrics[f"rooms_{name}"].kind for name in ("made", "open", "size")] == [
            "counter",
            "gauge",
            "histogram",
        ]


@pytest.mark.asyncio
async def test_numbers_of_another_kind_begin_anew_and_those_of_nobody_are_gone(folder: Path) -> None:
    async with world_with(folder, "rooms") as world:
        world.plugin("rooms").made.inc(7)
        world.plugin("rooms").size.observe(1)
        changed = ROOMS.replace('made = Counter("Rooms made.")', 'made = Gauge("Rooms made.")')
        (folder / "rooms.py").write_text(changed.replace("(1, 2, 5)", "(1, 2)"))
        await world.app.loader.load(world.config)
        assert world.app.server.metrics["rooms_made"].shown == 0
        assert world.app.server.metrics["rooms_size"].shown["count"] == 0
        await load(world, enabled=())
        assert world.app.server.metrics == {}


@pytest.mark.asyncio
@pytest.mark.parametrize("buckets", ["()", "(2, 1)", "(1, 1)", "range(33)"])
async def test_buckets_are_bounded_and_in_order(folder: Path, buckets: str) -> None:
    (folder / "rooms.py").write_text(ROOMS.replace("(1, 2, 5)", buckets))
    with pytest.raises(CommandError, match=r"rooms\.py: ValueError: buckets"):
        async with world_with(folder, "rooms"):
            pass


# ends


@pytest.mark.asyncio
async def test_the_tasks_of_an_instance_end_with_it(folder: Path) -> None:
    async with world_with(folder, "rooms") as world:
        work = world.plugin("rooms").work
        assert not work.done()
        await world.app.loader.reload("rooms", world.config)
        assert work.cancelled()
        work = world.plugin("rooms").work
        assert not work.done()
    assert work.cancelled()


@pytest.mark.asyncio
async def test_the_tasks_of_one_that_did_not_start_end_too(folder: Path, caplog: Any) -> None:
    begun: list[asyncio.Task[None]] = []
    async with world_with(folder, "rooms") as world:
        world.app.server.begun = begun  # type: ignore[attr-defined]
        (folder / "rooms.py").write_text(
            ROOMS.replace("self.spawn(self.run())", "self.server.begun.append(self.spawn(self.run())); 1 / 0")
        )
        with pytest.raises(CommandError, match="division by zero"):
            await world.app.loader.load(world.config)
        assert [task.cancelled() for task in begun] == [True]
        assert not world.plugin("rooms").work.done()


@pytest.mark.asyncio
async def test_what_an_old_instance_begins_late_is_done(folder: Path) -> None:
    async with world_with(folder, "rooms") as world:
        old = world.plugin("rooms")
        await world.app.loader.reload("rooms", world.config)
        done = asyncio.Event()

        async def work() -> None:
            await asyncio.sleep(0)
            done.set()

        old.spawn(work())
        await world.settle()
        assert done.is_set()


@pytest.mark.asyncio
async def test_a_failure_in_the_background_is_logged_and_counted(folder: Path, caplog: Any) -> None:
    async with world_with(folder, "rooms") as world:

        async def fail() -> None:
            raise OSError("no paper")

        world.plugin("rooms").spawn(fail())
        await world.settle()
        assert world.app.lasting.failed == 1
        assert "job-failed" in caplog.text


# refused


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("    server = None", "server"),
        ("    def log(self): ...", "log"),
        ("    @property\n    def now(self): return 1", "now"),
        ("    def config(self): ...", "config"),
        ("    name = 'rooms'", "name"),
        ("    def spawn(self): ...", "spawn"),
        ("    async def call_later(self): ...", "call_later"),
        ("    tables = Kept(dict)", "tables"),
    ],
)
async def test_nobody_hides_what_every_plugin_has(folder: Path, line: str, name: str) -> None:
    (folder / "rooms.py").write_text(f"{ROOMS}\n{line}\n")
    where = re.escape(f"{folder}/rooms.py: Rooms.{name} would hide")
    with pytest.raises(CommandError, match=where):
        async with world_with(folder, "rooms"):
            pass


@pytest.mark.asyncio
async def test_a_mixin_hides_nothing_either(folder: Path) -> None:
    mixin = ROOMS.replace("class Rooms(Plugin)", "class Mixin:\n    now = 1\n\nclass Rooms(Mixin, Plugin)")
    (folder / "rooms.py").write_text(mixin)
    with pytest.raises(CommandError, match=r"Rooms\.now would hide"):
        async with world_with(folder, "rooms"):
            pass


@pytest.mark.asyncio
async def test_an_annotation_hides_nothing(folder: Path) -> None:
    (folder / "rooms.py").write_text(ROOMS.replace("    rooms = ", "    config: RoomsConfig\n    rooms = "))
    async with world_with(folder, "rooms") as world:
        assert world.plugin("rooms").config.most == 5


ANSWERS = """
from xmppd.plugin import SELF, Plugin, iq_get, iq_set

class {name}(Plugin):
    @iq_get("{{urn:xmppd:x:0}}x", SELF)
    def answer(self, request):
        return None
"""


@pytest.mark.asyncio
async def test_two_plugins_do_not_answer_the_same(folder: Path) -> None:
    (folder / "one.py").write_text(ANSWERS.format(name="One"))
    (folder / "two.py").write_text(ANSWERS.format(name="Two"))
    message = (
        f"{folder}/two.py: Two.answer answers gets of {{urn:xmppd:x:0}}x to SELF, "
        f"and so does One.answer in {folder}/one.py"
    )
    async with world_with(folder, "one") as world:
        with pytest.raises(CommandError, match=re.escape(message)):
            await load(world, enabled=("one", "two"))
        assert [loaded.name for loaded in world.app.loader.loaded] == ["one"]


@pytest.mark.asyncio
async def test_nobody_answers_for_the_server_itself(folder: Path) -> None:
    (folder / "one.py").write_text(
        ANSWERS.format(name="One").replace("{urn:xmppd:x:0}x", "{jabber:iq:roster}query")
    )
    with pytest.raises(CommandError, match="so does the server itself"):
        async with world_with(folder, "one"):
            pass


# mixed from other classes

MIXED = """
from xmppd import hooks
from xmppd.plugin import Counter, Kept, Person, Plugin, SessionSlot, Table, command, every, iq_get

class Counting:
    seen = Counter("What was seen.")
    last = SessionSlot("")
    notes = Kept(list)
    log_book = Table(partition=("account",), columns={"times": "int"}, person=Person("account"))

    @hooks.message_sent
    def look(self, session, message):
        self.seen.inc()

    @every(5)
    async def note(self):
        self.notes.append(await self.log_book.get("x"))

    @command("How many")
    def many(self) -> int:
        return self.seen.value

class Abstract(Plugin):
    @iq_get("{urn:xmppd:x:0}x")
    def answer(self, request):
        return self.say()

class Mixed(Counting, Abstract):
    @property
    def broken(self):
        raise OSError("nobody asked")

    def say(self):
        return b"<x xmlns='urn:xmppd:x:0'>mixed</x>"
"""


@pytest.mark.asyncio
async def test_declarations_may_be_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "mixed.py").write_text(MIXED)
    async with world_with(tmp_path, "mixed") as world:
        alice = await world.login("alice")
        await alice.send(f"<message to='{alice.jid}'><body>hi</body></message>")
        await alice.receive_all()
        assert (await alice.ask("get", "<x xmlns='urn:xmppd:x:0'/>", to="localhost"))[0].text == "mixed"
        assert await world.app.commands.call("mixed many", {}) == 1
        await world.advance(11)
        assert world.plugin("mixed").notes == [None, None]


# by the clock

CLOCK = """
import asyncio
from xmppd.plugin import Kept, Plugin, PluginConfig, after, every

class ClockConfig(PluginConfig):
    seconds: float = 10.0

class Clock(Plugin):
    Config = ClockConfig
    beats = Kept(list)
    pause = 0.0

    @every(lambda self: self.config.seconds)
    def beat(self):
        self.beats.append(("beat", self.now() - 1_700_000_000.0))
        if self.pause < 0:
            raise OSError("no time")

    @every(10)
    async def slow(self):
        self.beats.append(("slow", self.now() - 1_700_000_000.0))
        await self.gate.wait()

    @after(15)
    async def once(self):
        self.beats.append(("once", self.now() - 1_700_000_000.0))

    async def start(self):
        self.gate = asyncio.Event()
        self.gate.set()
"""


def beats(world: World, kind: str) -> list[float]:
    return [moment for what, moment in world.plugin("clock").beats if what == kind]


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    (tmp_path / "clock.py").write_text(CLOCK)
    return tmp_path


@pytest.mark.asyncio
async def test_methods_are_called_by_the_clock(clock: Path) -> None:
    config = {"clock": {"seconds": 0.25}}
    async with world_with(clock, "clock", plugin_config=config) as world:
        await world.advance(9.9)
        assert beats(world, "beat") == [0.25 * n for n in range(1, 40)]
        assert beats(world, "slow") == []
        await world.advance(30)
        assert beats(world, "slow") == [10, 20, 30]
        assert beats(world, "once") == [15]


@pytest.mark.asyncio
async def test_a_slow_run_is_not_overtaken_by_the_next(clock: Path) -> None:
    async with world_with(clock, "clock") as world:
        gate = world.plugin("clock").gate
        gate.clear()
        await world.advance(35)
        assert beats(world, "slow") == [10]
        gate.set()
        await world.settle()
        await world.advance(10)
        assert beats(world, "slow") == [10, 40]


@pytest.mark.asyncio
async def test_the_clock_of_an_instance_ends_with_it(clock: Path) -> None:
    async with world_with(clock, "clock") as world:
        await world.advance(5)
        await world.app.loader.reload("clock", world.config)
        await world.advance(11)
        assert beats(world, "beat") == [15]
        assert beats(world, "once") == []
        await load(world, enabled=())
        assert len(world.app.timers) == 0


@pytest.mark.asyncio
async def test_a_failing_run_is_logged_and_counted_and_comes_again(clock: Path, caplog: Any) -> None:
    async with world_with(clock, "clock") as world:
        world.plugin("clock").pause = -1
        with caplog.at_level(logging.ERROR):
            await world.advance(20)
        assert beats(world, "beat") == [10, 20]
        said = [record for record in caplog.records if record.name.startswith("xmppd")]
        assert [record.hook for record in said] == ["Clock.beat"] * 2
        assert [record.message for record in said] == ["hook-failed"] * 2
        assert world.app.hooks.failures == 2


@pytest.mark.asyncio
async def test_a_call_may_be_put_off_and_taken_back(clock: Path) -> None:
    async with world_with(clock, "clock") as world:
        plugin, called = world.plugin("clock"), []
        plugin.call_later(3, called.append, "a")
        plugin.call_later(3, called.append, "b").cancel()
        await world.advance(2.9)
        assert called == []
        await world.advance(0.1)
        assert called == ["a"]
        plugin.call_later(3, called.append, "c")
        await world.app.loader.reload("clock", world.config)
        plugin.call_later(3, called.append, "d")
        await world.advance(4)
        assert called == ["a"]


@pytest.mark.asyncio
@pytest.mark.parametrize("seconds", ["0", "-1", "lambda self: 0 * self.config.seconds"])
async def test_nothing_is_called_without_a_pause(clock: Path, seconds: str) -> None:
    (clock / "clock.py").write_text(CLOCK.replace("@every(10)", f"@every({seconds})"))
    with pytest.raises(CommandError, match=r"clock\.py: ValueError: a method cannot be called every"):
        async with world_with(clock, "clock"):
            pass


@pytest.mark.asyncio
async def test_timers_that_were_cancelled_are_not_kept(clock: Path) -> None:
    async with world_with(clock, "clock") as world:
        plugin = world.plugin("clock")
        for _ in range(1000):
            plugin.call_later(86400, print).cancel()
        assert len(world.app.timers) == 3
        assert len(world.app.timers._heap) < 200
        assert len(plugin.scope._waiting) == 3


# on all nodes

NODES = '''
from xmppd.plugin import Kept, Plugin, cluster_signal

class Nodes(Plugin):
    heard = Kept(list)

    @cluster_signal
    def forget(self, account: str, *, why: dict | None = None) -> None:
        """Forget."""
        self.heard.append((account, why))

    @cluster_signal
    async def fail(self) -> None:
        raise OSError("no")
'''


@pytest.mark.asyncio
async def test_a_cluster_signal_reaches_this_node(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "nodes.py").write_text(NODES)
    async with world_with(tmp_path, "nodes") as world:
        old = world.plugin("nodes")
        old.forget.tell("alice@localhost", why={"n": 1})
        old.forget("bob@localhost")
        assert old.heard == [("alice@localhost", {"n": 1}), ("bob@localhost", None)]
        with pytest.raises(TypeError):
            old.forget.tell(old)
        old.fail.tell()
        await world.settle()
        assert world.app.hooks.failures == 1
        await load(world, enabled=())
        old.forget.tell("carol@localhost")
        assert len(old.heard) == 2


HOSTS = """
from xmppd.plugin import Plugin, service

class {name}(Plugin):
    @service("rooms")
    def take(self, origin, stanza, to): ...
"""


@pytest.mark.asyncio
async def test_two_plugins_do_not_answer_for_one_host(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(HOSTS.format(name="One"))
    (tmp_path / "two.py").write_text(HOSTS.format(name="Two"))
    message = (
        f"{tmp_path}/two.py: Two.take answers for rooms.localhost, and so does One.take in {tmp_path}/one.py"
    )
    async with world_with(tmp_path, "one") as world:
        with pytest.raises(CommandError, match=re.escape(message)):
            await load(world, enabled=("one", "two"))
        world.app.server.domains = frozenset(("localhost", "rooms.localhost"))
        with pytest.raises(CommandError, match="and so does the server itself"):
            await world.app.loader.reload("one", world.config)
