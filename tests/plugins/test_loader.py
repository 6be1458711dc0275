"""How plugins are found, loaded, and loaded again while sessions stay connected."""

import errno
import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from xmppd import config, ns
from xmppd.config import Config
from xmppd.errors import CommandError, ConfigError, StoreBug
from xmppd.section import changed
from xmppd.testing import World, refusal

pytestmark = pytest.mark.one_node(
    "each node loads its own plugins, and two in one process share their modules"
)

GREET = '''
from xmppd import hooks
from xmppd.plugin import (Counter, Person, Plugin, PluginConfig, SessionSlot, Table, command, element, iq_get)

class GreetConfig(PluginConfig):
    word: str = "hello"

class Greet(Plugin):
    """Greets and counts."""
    Config = GreetConfig
    features = ("urn:xmppd:greet:0",)
    asked = SessionSlot(0)
    total = Counter("How often anybody asked.")
    log_book = Table(partition=("account",), columns={"times": "int"}, person=Person("account"))

    @iq_get("{urn:xmppd:greet:0}greet")
    def greet(self, request):
        self.asked[request.session] += 1
        self.total.inc()
        text = f"VERSION 1 {self.config.word} {self.asked[request.session]}"
        return element("{urn:xmppd:greet:0}greet", None, text)

    @hooks.message_sent.at(hooks.FILTER)
    def swallow(self, session, message):
        return message if b"swallow" not in message.raw else hooks.DROP

    @command("Say hello")
    def hello(self) -> str:
        return "VERSION 1"
'''
ASK = "<greet xmlns='urn:xmppd:greet:0'/>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's own folder, with one plugin."""
    (tmp_path / "greet.py").write_text(GREET)
    return tmp_path


def greeted(folder: Path, *plugins: str, **more: Any) -> World:
    return World(plugins=("greet", *plugins), plugin_folders=(folder,), **more)


async def answer(world: World) -> str | None:
    """What a new client is told."""
    client = await world.bind("carol")
    return (await client.ask("get", ASK, to="localhost"))[0].text


# loading


@pytest.mark.asyncio
async def test_a_plugin_of_the_user_s_own_is_loaded_from_his_folder(folder: Path) -> None:
    config = {"greet": {"word": "moin"}}
    async with greeted(folder, "disco", plugin_config=config) as world:
        alice = await world.login("alice")
        assert (await alice.ask("get", ASK, to="localhost"))[0].text == "VERSION 1 moin 1"
        assert await world.app.commands.call("greet hello", {}) == "VERSION 1"
        assert world.app.server.metrics["greet_total"].value == 1
        info = await alice.ask("get", f"<query xmlns='{ns.DISCO_INFO}'/>", to="localhost")
        assert "urn:xmppd:greet:0" in [child.get("var") for child in info[0]]
        loaded = world.app.loader.loaded[0]
        assert (loaded.name, loaded.origin) == ("greet", str(folder / "greet.py"))


@pytest.mark.asyncio
async def test_a_built_in_plugin_is_not_replaced_by_one_of_its_name(folder: Path) -> None:
    (folder / "ping.py").write_text(GREET)
    async with World(plugins=("ping",), plugin_folders=(folder,)) as world:
        alice = await world.login("alice")
        assert (await alice.ask("get", f"<ping xmlns='{ns.PING}'/>")).get("type") == "result"


@pytest.mark.asyncio
async def test_a_package_is_a_plugin_too(tmp_path: Path) -> None:
    package = tmp_path / "greet"
    package.mkdir()
    (package / "__init__.py").write_text(
        GREET.replace('"hello"', "WORD").replace("from", "from .words import WORD\nfrom", 1)
    )
    (package / "words.py").write_text("WORD = 'moin'")
    async with greeted(tmp_path) as world:
        assert await answer(world) == "VERSION 1 moin 1"
        (package / "words.py").write_text("WORD = 'servus, everybody'")
        importlib.invalidate_caches()
        await world.app.loader.reload("greet", world.config)
        assert await answer(world) == "VERSION 1 servus, everybody 1"


@pytest.mark.asyncio
async def test_a_plugin_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "greeting_package.py").write_text(GREET)
    about = tmp_path / "greeting-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[xmppd.plugins]\ngreet = greeting_package:Greet\n")
    monkeypatch.syspath_prepend(tmp_path)
    async with World(plugins=("greet",)) as world:
        assert await answer(world) == "VERSION 1 hello 1"
        assert "greeting_package:Greet" in world.app.loader.loaded[0].origin


# loading again


@pytest.mark.asyncio
async def test_sessions_stay_and_so_do_their_slots_counters_and_tables(folder: Path) -> None:
    async with greeted(folder) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.ask("get", ASK, to="localhost")
        await world.plugin("greet").log_book.put({"account": "alice@localhost", "times": 1})
        (folder / "greet.py").write_text(GREET.replace("VERSION 1", "VERSION 2"))
        assert await world.app.loader.reload("greet", world.config) == ["greet"]
        assert (await alice.ask("get", ASK, to="localhost"))[0].text == "VERSION 2 hello 2"
        assert (await bob.ask("get", ASK, to="localhost"))[0].text == "VERSION 2 hello 1"
        assert world.app.server.metrics["greet_total"].value == 3
        assert (await world.plugin("greet").log_book.get("alice@localhost"))["times"] == 1
        assert await world.app.commands.call("greet hello", {}) == "VERSION 2"


@pytest.mark.asyncio
async def test_a_file_that_was_changed_within_a_second(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    async with greeted(folder) as world:
        file = folder / "greet.py"
        before = file.stat()
        file.write_text(GREET.replace("VERSION 1", "VERSION 2"))
        os.utime(file, (before.st_atime, before.st_mtime))
        await world.app.loader.reload("greet", world.config)
        assert await answer(world) == "VERSION 2 hello 1"


@pytest.mark.asyncio
async def test_a_file_that_cannot_be_run_leaves_the_old_module_in_place(folder: Path) -> None:
    async with greeted(folder) as world:
        greet = type(world.plugin("greet"))
        (folder / "greet.py").write_text("class Greet: pass\n1 / 0")
        with pytest.raises(CommandError):
            await world.app.loader.reload("greet", world.config)
        assert sys.modules[greet.__module__].Greet is greet


@pytest.mark.asyncio
async def test_start_and_stop_come_in_order(folder: Path) -> None:
    (folder / "steps.py").write_text(
        "from xmppd.plugin import Plugin\n"
        "class Steps(Plugin):\n"
        "    async def start(self): self.server.steps = [*getattr(self.server, 'steps', []), 'start']\n"
        "    async def stop(self): self.server.steps.append('stop')\n"
    )
    async with greeted(folder, "steps") as world:
        await world.app.loader.reload("steps", world.config)
        server: Any = world.app.server
        assert server.steps == ["start", "start", "stop"]
    assert server.steps == ["start", "start", "stop", "stop"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Greet(Plugin:\n", "SyntaxError"),
        ("import nothing_of_this_name\n", "ModuleNotFoundError"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("", "one class that derives from Plugin, not 0"),
        (
            GREET + "\nclass Second(Plugin):\n    '''Another.'''\n",
            "one class that derives from Plugin, not 2",
        ),
        (GREET.replace("hooks.FILTER", "hooks.SIGNALS"), "AttributeError"),
        (
            GREET.replace("message_sent.at(hooks.FILTER)", "session_bound.at(hooks.FILTER)"),
            "no stage 'filter'",
        ),
        (GREET.replace("def hello(self)", "def hello(self, *names: str)"), "cannot take"),
        (GREET.replace('"Say hello")', '"Say hello", name="commands")'), "already a command 'commands'"),
        (GREET.replace('"Say hello")', '"Say hello", name="commands all")'), "begins or goes on like it"),
        (GREET + "\n    async def start(self):\n        raise OSError('no printer')\n", "no printer"),
        (GREET + "\n    def __init__(self, *all):\n        raise OSError('no paper')\n", "no paper"),
    ],
)
async def test_a_broken_file_keeps_the_old_plugin_and_says_so(folder: Path, text: str, message: str) -> None:
    async with greeted(folder) as world:
        (folder / "greet.py").write_text(text)
        for load in (world.app.loader.reload("greet", world.config), world.app.loader.load(world.config)):
            with pytest.raises(CommandError, match=re.escape(message)) as caught:
                await load
            assert "greet" in str(caught.value)
        assert await answer(world) == "VERSION 1 hello 1"
        assert await world.app.commands.call("greet hello", {}) == "VERSION 1"
        (folder / "greet.py").write_text(GREET.replace("VERSION 1", "VERSION 3"))
        await world.app.loader.load(world.config)
        assert await answer(world) == "VERSION 3 hello 1"


@pytest.mark.asyncio
async def test_a_file_that_cannot_be_read_keeps_the_old_plugin(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    async with greeted(folder) as world:
        monkeypatch.setattr(Path, "read_bytes", refused)
        for load in (world.app.loader.reload("greet", world.config), world.app.loader.load(world.config)):
            with pytest.raises(CommandError, match=re.escape(f"{folder / 'greet.py'}: Permission denied")):
                await load
        assert await answer(world) == "VERSION 1 hello 1"


@pytest.mark.asyncio
async def test_a_table_that_cannot_be_migrated_keeps_the_old_plugin(folder: Path) -> None:
    async with greeted(folder) as world:
        (folder / "greet.py").write_text(GREET.replace('"times": "int"', '"times": "text"'))
        with pytest.raises(StoreBug, match="times"):
            await world.app.loader.reload("greet", world.config)
        assert await answer(world) == "VERSION 1 hello 1"


@pytest.mark.asyncio
async def test_all_or_nothing(folder: Path) -> None:
    async with greeted(folder, "ping") as world:
        (folder / "greet.py").write_text(GREET.replace("VERSION 1", "VERSION 2"))
        (folder / "broken.py").write_text("1 / 0")
        more = changed(world.config.plugins, enabled=("greet", "broken"))
        with pytest.raises(CommandError, match=re.escape(str(folder / "broken.py"))):
            await world.app.loader.load(changed(world.config, plugins=more))
        assert await answer(world) == "VERSION 1 hello 1"
        assert [loaded.name for loaded in world.app.loader.loaded] == ["greet", "ping"]


@pytest.mark.asyncio
async def test_what_is_no_longer_configured_is_unloaded(folder: Path) -> None:
    async with greeted(folder, "ping") as world:
        alice = await world.login("alice")
        less = changed(world.config.plugins, enabled=("ping",))
        assert await world.app.loader.load(changed(world.config, plugins=less)) == []
        assert refusal(await alice.ask("get", ASK, to="localhost")) == "cancel service-unavailable"
        with pytest.raises(CommandError, match="no command"):
            await world.app.commands.call("greet hello", {})
        bob = await world.login("bob")
        await alice.send(f"<message to='{bob.jid}' type='chat'><body>swallow</body></message>")
        await bob.expect(
            f"<message to='{bob.jid}' from='{alice.jid}' type='chat'><body>swallow</body></message>"
        )


@pytest.mark.asyncio
async def test_only_a_loaded_plugin_is_reloaded(folder: Path) -> None:
    async with greeted(folder) as world:
        with pytest.raises(CommandError, match=r"'gret' is not loaded \(did you mean greet\?\)"):
            await world.app.loader.reload("gret", world.config)


# mistakes in the configuration


def written(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "xmppd.yaml"
    file.write_text(text)
    return config.load(file, {})


@pytest.mark.asyncio
async def test_an_unknown_name_is_told_with_its_place_and_a_guess(tmp_path: Path) -> None:
    async with World(plugins=("ping",)) as world:
        with pytest.raises(ConfigError) as caught:
            await world.app.loader.load(written(tmp_path, "plugins:\n  enabled: [ping, vcrad]\n"))
        (problem,) = caught.value.problems
        where = f"{tmp_path}/xmppd.yaml:2:19: plugins.enabled[1]: there is no plugin 'vcrad' in "
        assert str(problem).startswith(where)
        assert str(problem).endswith("(did you mean vcard?)")
        assert [loaded.name for loaded in world.app.loader.loaded] == ["ping"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("max_byte: 5", "6:7: plugins.config.vcard.max_byte: unknown key (did you mean max_bytes?)"),
        ("max_bytes: many", "6:18: plugins.config.vcard.max_bytes: must be a whole number"),
        ("max_bytes: 0", "6:18: plugins.config.vcard.max_bytes: must be at least 1"),
    ],
)
async def test_a_mistake_in_a_plugin_s_settings_is_told_with_its_place(
    tmp_path: Path, line: str, problem: str
) -> None:
    async with World(plugins=("vcard",)) as world:
        text = f"plugins:\n  enabled: [vcard]\n\n  config:\n    vcard:\n      {line}\n"
        with pytest.raises(ConfigError) as caught:
            await world.app.loader.load(written(tmp_path, text))
        assert [str(found) for found in caught.value.problems] == [f"{tmp_path}/xmppd.yaml:{problem}"]


@pytest.mark.asyncio
async def test_a_setting_that_no_file_can_hold_is_told_of_its_plugin(folder: Path, tmp_path: Path) -> None:
    (folder / "odd.py").write_text(
        "from xmppd.plugin import Plugin, PluginConfig\n\n"
        "class OddConfig(PluginConfig):\n    key: int | str = 1\n\n"
        "class Odd(Plugin):\n    Config = OddConfig\n"
    )
    text = f"plugins: {{folders: [{folder}], enabled: [odd], config: {{odd: {{key: 2}}}}}}\n"
    async with World(plugins=("ping",), plugin_folders=(folder,)) as world:
        with pytest.raises(CommandError, match=r"odd\.py: TypeError: a configuration cannot hold int \| str"):
            await world.app.loader.load(written(tmp_path, text))
        assert [loaded.name for loaded in world.app.loader.loaded] == ["ping"]
