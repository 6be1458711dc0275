"""The plugin of the README: a dialogue with a server in memory."""

from pathlib import Path

import pytest

from xmppd.testing import World

FOLDER = Path(__file__).parent.parent / "docs" / "examples"


@pytest.mark.asyncio
async def test_who_comes_online_is_greeted() -> None:
    config = {"hello": {"greeting": "Well met"}}
    async with World(plugins=("hello",), plugin_folders=(FOLDER,), plugin_config=config) as world:
        alice = await world.bind("alice")
        await alice.expect_nothing()
        await alice.send("<presence/>")
        await alice.expect(f"<presence from='{alice.jid}' to='alice@localhost'/>")
        await alice.expect(
            f"<message from='localhost' to='{alice.jid}'><body>Well met, alice!</body></message>"
        )
