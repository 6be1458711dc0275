"""What an operator does to accounts, as their clients see it."""

import pytest

from xmppd import ns
from xmppd.testing import World


@pytest.mark.asyncio
async def test_a_disabled_account_is_sent_away_and_stays_out_until_enabled() -> None:
    async with World() as world:
        alice = await world.login("alice")
        await world.app.commands.call("user disable", {"account": "alice@localhost"})
        await alice.expect_closed("not-authorized")
        client = world.connect()
        await client.open()
        refused = await client.authenticate("alice")
        assert refused[0].tag == f"{{{ns.SASL}}}account-disabled"
        await world.app.commands.call("user enable", {"account": "alice@localhost"})
        assert (await client.authenticate("alice")).tag == f"{{{ns.SASL}}}success"


@pytest.mark.asyncio
async def test_a_new_password_counts_at_once() -> None:
    async with World() as world:
        client = world.connect()
        await client.open()
        await world.app.commands.call("user passwd", {"account": "alice@localhost", "password": "new"})
        assert (await client.authenticate("alice")).tag == f"{{{ns.SASL}}}failure"
        assert (await client.authenticate("alice", "new")).tag == f"{{{ns.SASL}}}success"
