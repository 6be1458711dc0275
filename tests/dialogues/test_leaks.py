"""RFC 6121 13.1 and RFC 6120 13.10.2: nobody learns of a presence who was not let see it."""

import pytest

from xmppd.testing import World


@pytest.mark.asyncio
async def test_who_takes_a_request_back_learns_nothing() -> None:
    async with World() as world:
        alice, mallory = await world.login("alice", "secret"), await world.login("bob")
        await mallory.send("<presence type='subscribe' to='alice@localhost'/>")
        await mallory.send("<presence type='unsubscribe' to='alice@localhost'/>")
        received = await mallory.receive_all()
        assert [s.tag for s in received if s.tag.endswith("presence")] == []
        assert [s.get("type") for s in await alice.receive_all()] == ["subscribe", "unsubscribe"]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["unsubscribed", "remove"])
async def test_who_is_refused_learns_only_that(kind: str) -> None:
    async with World() as world:
        alice, mallory = await world.login("alice", "secret"), await world.login("bob")
        if kind == "remove":  # so that there is an item to remove
            item = "<item jid='bob@localhost'/>"
            await alice.send(f"<iq type='set' id='s'><query xmlns='jabber:iq:roster'>{item}</query></iq>")
        await mallory.send("<presence type='subscribe' to='alice@localhost'/>")
        if kind == "remove":
            item = "<item jid='bob@localhost' subscription='remove'/>"
            await alice.send(f"<iq type='set' id='r'><query xmlns='jabber:iq:roster'>{item}</query></iq>")
        else:
            await alice.send("<presence type='unsubscribed' to='bob@localhost'/>")
        received = [s for s in await mallory.receive_all() if s.tag.endswith("presence")]
        assert [(s.get("type"), s.get("from")) for s in received] == [("unsubscribed", "alice@localhost")]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["unsubscribe", "unsubscribed", "subscribed"])
async def test_what_nobody_waited_for_tells_nothing(kind: str) -> None:
    async with World() as world:
        alice, mallory = await world.login("alice"), await world.login("bob")
        await mallory.send(f"<presence type='{kind}' to='alice@localhost'/>")
        assert [s for s in await mallory.receive_all() if s.tag.endswith("presence")] == []
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_unavailable_is_told_to_the_client_that_says_so() -> None:
    async with World() as world:
        alice = await world.login("alice")
        await alice.send("<presence type='unavailable'><status>bye</status></presence>")
        shown = f"<presence type='unavailable' from='{alice.jid}' to='alice@localhost'>"
        await alice.expect(f"{shown}<status>bye</status></presence>")
        await alice.send("<presence type='unavailable'/>")
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_a_removed_account_leaves_no_last_words_to_its_heir() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        await bob.send("<presence type='unavailable'><status>secret</status></presence>")
        await alice.receive_all()
        await world.app.server.remove_account("bob@localhost")
        await world.app.accounts.create("bob@localhost", "secret")
        heir = await world.bind("bob")
        await world.befriend(alice, heir)
        await alice.drop()
        alice = await world.bind("alice")
        await alice.send("<presence/>")
        await alice.expect(f"<presence from='{alice.jid}' to='alice@localhost'/>")
        await alice.expect_nothing()
