"""What plugins offer each other, and how it comes and goes."""

from pathlib import Path
from typing import Any

import pytest

from xmppd.checks import check_plugins
from xmppd.config import made_of
from xmppd.errors import CommandError
from xmppd.testing import World

pytestmark = pytest.mark.one_node(
    "each node loads its own plugins, and two in one process share their modules"
)

BANK = """
from xmppd.plugin import Plugin, offered

class Bank(Plugin):
    @offered
    def rate(self):
        return 1

    @offered
    async def balance_of(self, account):
        return len(account)

    def secret(self):
        return "hidden"
"""
SHOP = """
from typing import Protocol
from xmppd.plugin import Plugin, Uses, command

class Shop(Plugin):
    bank = Uses("bank"%s)

    async def start(self):
        self.was_there = bool(self.bank)

    @command("The rate")
    def rate(self) -> int:
        return self.bank.rate() if self.bank else 0

    @command("What one has")
    async def balance(self, account: str) -> int:
        return await self.bank.balance_of(account)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bank.py").write_text(BANK)
    (tmp_path / "shop.py").write_text(SHOP % "")
    return tmp_path


def with_plugins(folder: Path, *plugins: str) -> World:
    return World(plugins=plugins, plugin_folders=(folder,))


async def rate(world: World) -> Any:
    return await world.app.commands.call("shop rate", {})


@pytest.mark.asyncio
@pytest.mark.parametrize("order", [("bank", "shop"), ("shop", "bank")])
async def test_a_plugin_calls_another_in_whatever_order_they_are_named(
    order: tuple[str, ...], folder: Path
) -> None:
    async with with_plugins(folder, *order) as world:
        assert await rate(world) == 1
        assert await world.app.commands.call("shop balance", {"account": "zoe"}) == 3


@pytest.mark.asyncio
async def test_one_that_is_loaded_again_is_called_anew_by_who_stays(folder: Path) -> None:
    async with with_plugins(folder, "bank", "shop") as world:
        shop, view = world.plugin("shop"), world.plugin("shop").bank
        (folder / "bank.py").write_text(BANK.replace("return 1", "return 2"))
        assert await world.app.loader.reload("bank", world.config) == ["bank"]
        assert world.plugin("shop") is shop
        assert await rate(world) == view.rate() == 2


@pytest.mark.asyncio
async def test_one_that_is_loaded_again_and_broken_stays_as_it_was(folder: Path) -> None:
    async with with_plugins(folder, "bank", "shop") as world:
        (folder / "bank.py").write_text(BANK + "\n    async def start(self):\n        raise ValueError\n")
        with pytest.raises(CommandError):
            await world.app.loader.reload("bank", world.config)
        assert await rate(world) == 1


@pytest.mark.asyncio
async def test_it_goes_and_comes_back_while_its_user_stays(folder: Path) -> None:
    async with with_plugins(folder, "bank", "shop") as world:
        shop = world.plugin("shop")
        without = made_of({"plugins": {"enabled": ["shop"], "folders": [str(folder)]}})
        assert await world.app.loader.load(without) == []
        assert await rate(world) == 0
        assert not shop.bank
        with pytest.raises(AttributeError, match="the plugin 'bank' is not at work here, which has 'rate'"):
            shop.bank.rate()
        assert await world.app.loader.load(world.config) == ["bank"]
        assert world.plugin("shop") is shop
        assert await rate(world) == 1


@pytest.mark.asyncio
async def test_only_what_is_offered_can_be_called(folder: Path) -> None:
    async with with_plugins(folder, "bank", "shop") as world:
        with pytest.raises(AttributeError, match="the plugin 'bank' offers no 'secret'"):
            world.plugin("shop").bank.secret()
        assert not hasattr(world.plugin("shop").bank, "config")


@pytest.mark.asyncio
async def test_what_is_needed_has_to_be_there(folder: Path) -> None:
    (folder / "shop.py").write_text(SHOP % ", needed=True")
    why = r"the plugin 'shop' needs the plugin 'bank' \(Shop\.bank\): name that in plugins\.enabled, too"
    with pytest.raises(CommandError, match=why):
        async with with_plugins(folder, "shop"):
            pass
    async with with_plugins(folder, "shop", "bank") as world:
        assert await rate(world) == 1
        without = made_of({"plugins": {"enabled": ["shop"], "folders": [str(folder)]}})
        with pytest.raises(CommandError, match=why):
            await world.app.loader.load(without)
        assert await rate(world) == 1
        assert [str(found.problem.message) for found in check_plugins(without)] == [
            "the plugin 'shop' needs the plugin 'bank' (Shop.bank): name that in plugins.enabled, too"
        ]
