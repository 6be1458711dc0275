"""What a plugin may forbid by the hook `sees`: every way by which somebody's presence is seen."""

from pathlib import Path

import pytest

from xmppd import ns
from xmppd.core.sessions import Broadcast
from xmppd.jid import Jid
from xmppd.testing import Client, World

VEIL = """
from xmppd import hooks
from xmppd.plugin import Plugin

class Veil(Plugin):
    async def start(self):
        self.hidden = set()

    @hooks.sees
    def sees(self, viewer, owner):
        return (viewer, owner) not in self.hidden and (viewer, owner.partition("/")[0]) not in self.hidden
"""

BOB = "bob@localhost"


async def friends(world: World) -> tuple[Client, Client]:
    alice, bob = await world.login("alice"), await world.login("bob", "one")
    await world.befriend(alice, bob)
    return alice, bob


def veiled(tmp_path: Path) -> World:
    (tmp_path / "veil.py").write_text(VEIL)
    return World(plugins=("veil", "disco", "last"), plugin_folders=(tmp_path,))


def hide(world: World, owner: str) -> None:
    for veil in world.plugins("veil"):
        veil.hidden.add(("alice@localhost", owner))


@pytest.mark.asyncio
@pytest.mark.parametrize("owner", [BOB, "bob@localhost/one"])
async def test_broadcasts_and_their_end_are_not_seen(tmp_path: Path, owner: str) -> None:
    async with veiled(tmp_path) as world:
        alice, bob = await friends(world)
        hide(world, owner)
        await bob.send("<presence><show>away</show></presence>")
        await bob.drop()
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_one_session_may_be_hidden_and_another_seen(tmp_path: Path) -> None:
    async with veiled(tmp_path) as world:
        alice, _bob = await friends(world)
        hide(world, "bob@localhost/one")
        two = await world.bind("bob", "two")
        await two.send("<presence/>")
        await alice.expect(f"<presence from='{two.jid}' to='alice@localhost'/>")
        await alice.send("<presence type='probe' to='bob@localhost'/>")
        await alice.expect(f"<presence from='{two.jid}' to='alice@localhost'/>")
        await alice.send("<presence type='unavailable'/>")
        await alice.receive_all()
        await alice.send("<presence/>")
        assert {s.get("from") for s in await alice.receive_all()} == {alice.jid, two.jid}


@pytest.mark.asyncio
async def test_who_comes_online_probes_and_asks_learns_nothing(tmp_path: Path) -> None:
    async with veiled(tmp_path) as world:
        alice, bob = await friends(world)
        hide(world, BOB)
        await alice.send("<presence type='unavailable'/>")
        await alice.receive_all()
        await alice.send("<presence/>")
        assert {s.get("from") for s in await alice.receive_all()} == {alice.jid}
        await alice.send("<presence type='probe' to='bob@localhost'/>")
        await alice.expect("<presence type='unsubscribed' from='bob@localhost' to='alice@localhost'/>")
        for query, to in ((ns.DISCO_INFO, BOB), (ns.LAST, BOB), ("urn:x", bob.jid), (ns.LAST, bob.jid)):
            await alice.send(f"<iq type='get' id='q' to='{to}'><query xmlns='{query}'/></iq>")
            assert (await alice.receive()).get("type") == "error"
        assert [s.get("type") for s in await bob.receive_all()] == ["unavailable", None]


@pytest.mark.asyncio
async def test_directed_presence_is_not_shown(tmp_path: Path) -> None:
    async with veiled(tmp_path) as world:
        alice, bob = await world.login("alice"), await world.login("bob", "one")
        hide(world, BOB)
        await bob.send(f"<presence to='{alice.jid}'/>")
        await bob.drop()
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_last_words_are_not_shown(tmp_path: Path) -> None:
    async with veiled(tmp_path) as world:
        alice, bob = await friends(world)
        await alice.send("<presence type='unavailable'/>")
        await bob.send("<presence type='unavailable'><status>bye</status></presence>")
        await alice.receive_all()
        hide(world, BOB)
        await alice.send("<presence/>")
        assert {s.get("from") for s in await alice.receive_all()} == {alice.jid}


@pytest.mark.asyncio
async def test_the_end_of_a_subscription_tells_nothing_of_who_was_hidden(tmp_path: Path) -> None:
    async with veiled(tmp_path) as world:
        alice, bob = await friends(world)
        hide(world, BOB)
        await bob.send("<presence type='unsubscribed' to='alice@localhost'/>")
        kinds = [s.get("type") for s in await alice.receive_all() if s.tag.endswith("presence")]
        assert kinds == ["unsubscribed"]


@pytest.mark.asyncio
async def test_a_rule_that_fails_forbids(tmp_path: Path) -> None:
    async with veiled(tmp_path) as world:
        alice, bob = await friends(world)
        for veil in world.plugins("veil"):
            veil.hidden = None
        await bob.send("<presence><show>away</show></presence>")
        await alice.expect_nothing()
        assert bob.app.hooks.failures > 0


@pytest.mark.asyncio
@pytest.mark.parametrize("owner", [BOB, "bob@localhost/one"])
async def test_who_was_sent_presence_once_is_not_told_again(tmp_path: Path, owner: str) -> None:
    async with veiled(tmp_path) as world:
        alice, bob = await world.login("alice"), await world.bind("bob", "one")
        await bob.send(f"<presence to='{alice.jid}'/>")
        await alice.receive_all()
        hide(world, owner)
        await alice.send("<presence type='probe' to='bob@localhost'/>")
        await alice.expect("<presence type='unsubscribed' from='bob@localhost' to='alice@localhost'/>")
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_who_is_hidden_while_last_words_are_looked_up_is_not_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with veiled(tmp_path) as world:
        alice, bob = await friends(world)
        await bob.drop()
        await alice.receive_all()
        last_seen = world.app.last_seen
        words = last_seen.words

        async def hiding(to: Jid) -> Broadcast:
            hide(world, BOB)
            return await words(to)

        monkeypatch.setattr(type(last_seen), "words", staticmethod(hiding))
        await alice.send("<presence type='probe' to='bob@localhost'/>")
        await alice.expect("<presence type='unsubscribed' from='bob@localhost' to='alice@localhost'/>")
