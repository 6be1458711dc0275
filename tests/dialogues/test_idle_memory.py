"""What a session that nothing happens to keeps in memory: what all have alike is there once."""

from __future__ import annotations

import pytest

from xmppd.core.barred import NOBODY
from xmppd.stream.sasl import NO_FACTS
from xmppd.testing import World


@pytest.mark.one_node("each node has its own sessions")
@pytest.mark.asyncio
async def test_idle_sessions_share_what_is_empty() -> None:
    """A block list, facts of the login and out-list of its own each made a quarter of a KiB more."""
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send("<message to='bob@localhost' type='chat'><body>hi</body></message>")
        await bob.expect("<message from='*' to='bob@localhost' type='chat'><body>hi</body></message>")
        for session in (alice.session, bob.session):
            assert session.live.blocks is NOBODY
            assert session.login.facts is NO_FACTS
            assert session._out is None
            assert session.live.sessions is session.live.available is session.live.targets
        assert alice.session.login.mechanism is bob.session.login.mechanism


@pytest.mark.asyncio
async def test_an_account_that_bars_nobody_any_more_shares_its_list_again() -> None:
    """Once it unblocks everybody, or had looked offline to some."""
    async with World(plugins=("blocking",)) as world:
        alice = await world.login("alice")
        live = alice.session.live
        for verb, items in (("block", "<item jid='bob@localhost'/>"), ("unblock", "")):
            name = f"<{verb} xmlns='urn:xmpp:blocking'>{items}</{verb}>"
            await alice.send(f"<iq type='set' id='{verb}'>{name}</iq>")
            await alice.expect(f"<iq type='result' id='{verb}' to='*'/>")
        assert live.blocks is NOBODY
        live.ask(is_asked=True)
        live.ask(is_asked=False)
        assert live.blocks is NOBODY


@pytest.mark.one_node("each node has its own sessions")
@pytest.mark.asyncio
async def test_sessions_of_an_account_are_told_until_they_end() -> None:
    """Of one that has ended nothing is left."""
    async with World() as world:
        phone, desk = await world.login("alice", "phone"), await world.login("alice", "desk")
        live, ended = phone.session.live, phone.session
        assert live.sessions == (phone.session, desk.session) == live.available
        assert world.app.server.resources("alice@localhost") == {"phone", "desk"}
        await phone.send("</stream:stream>")
        await world.settle()
        assert live.sessions == (desk.session,) == live.available and ended.is_over
