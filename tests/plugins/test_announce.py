"""Announcements and the message of the day (after XEP-0133)."""

from pathlib import Path

import pytest
from stores import new_store

from xmppd import ns
from xmppd.core.sessions import Session
from xmppd.errors import CommandError, ConfigError
from xmppd.testing import Client, World, refusal

ADMIN = {"announce": {"admins": ["Alice@localhost"]}}


def notice(body: str, to: str, subject: str = "") -> str:
    title = f"<subject>{subject}</subject>" if subject else ""
    return f"<message type='headline' from='localhost' to='{to}'>{title}<body>{body}</body></message>"


async def bodies(client: Client) -> list[str | None]:
    tag = f"{{{ns.CLIENT}}}body"
    return [stanza.findtext(tag) for stanza in await client.receive_all() if stanza.find(tag) is not None]


async def tell(admin: Client, what: str, body: str, subject: str = "") -> None:
    title = f"<subject>{subject}</subject>" if subject else ""
    await admin.send(f"<message to='localhost/announce/{what}'>{title}<body>{body}</body></message>")


# to all who are online


@pytest.mark.asyncio
async def test_a_command_reaches_everybody_online() -> None:
    async with World(plugins=("announce",)) as world:
        alice, bob, hidden = await world.login("alice"), await world.login("bob"), await world.bind("carol")
        second, bot = await world.login("bob"), await world.login("bob", priority=-1)
        for client in (alice, bob, second):
            await client.receive_all()
        result = await world.app.commands.call("announce send", {"text": "Tea & <cake>"})
        assert result == {"sent": 3}
        for client in (alice, bob, second):
            await client.expect(notice("Tea &amp; &lt;cake>", client.bare))
            await client.expect_nothing()
        await hidden.expect_nothing()
        await bot.expect_nothing()  # it takes no messages (RFC 6121 4.7.2.3)


@pytest.mark.asyncio
async def test_what_is_for_one_goes_before_an_announcement_to_many(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(plugins=("announce",)) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        urgent: list[str] = []
        monkeypatch.setattr(Session, "send", lambda session, data: urgent.append(session.full))
        assert await world.app.commands.call("announce send", {"text": "tea"}) == {"sent": 2}
        await world.settle()
        assert urgent == []
        for client in (alice, bob):
            await client.expect(notice("tea", client.bare))


@pytest.mark.asyncio
async def test_plugins_have_their_part_in_an_announcement(tmp_path: Path) -> None:
    (tmp_path / "sieve.py").write_text(
        "from xmppd import hooks\n"
        "from xmppd.plugin import Plugin, StanzaError\n\n"
        "class Sieve(Plugin):\n"
        "    @hooks.message_for\n"
        "    def sift(self, account, message):\n"
        "        if account.startswith('bob@'):\n"
        "            raise StanzaError('not-acceptable')\n"
        "        return message\n"
    )
    folders = {"plugins": {"folders": [str(tmp_path)]}}
    async with World(plugins=("announce", "sieve"), settings=folders) as world:
        alice, bob, second = await world.login("alice"), await world.login("bob"), await world.login("alice")
        await alice.receive_all()
        assert await world.app.commands.call("announce send", {"text": "tea"}) == {"sent": 2}
        for client in (alice, second):
            await client.expect(notice("tea", client.bare))
        await bob.expect_nothing()


@pytest.mark.asyncio
async def test_the_message_of_the_day_goes_to_who_takes_messages() -> None:
    async with World(plugins=("announce",)) as world:
        bot = await world.login("bob", priority=-1)
        await world.app.commands.call("announce motd", {"text": "hear"})
        await bot.expect_nothing()
        phone = await world.bind("bob")
        await phone.send("<presence/>")
        assert await bodies(phone) == ["hear"]
        await bot.receive_all()
        carol = await world.login("carol", priority=-1)
        await carol.expect_nothing()
        await carol.send("<presence/>")
        assert await bodies(carol) == ["hear"]


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["localhost", "LOCALHOST", "LocalHost."])
async def test_the_domain_of_an_announcement_in_any_letter_case(to: str) -> None:
    async with World(plugins=("announce",), plugin_config=ADMIN) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await bob.send(f"<message to='{to}/announce/online'><body>mine</body></message>")
        assert refusal(await bob.receive()) == "auth forbidden"
        await alice.send(f"<message to='{to}/announce/online'><body>hear</body></message>")
        assert await bodies(bob) == ["hear"]


@pytest.mark.asyncio
async def test_each_domain_announces_to_its_own() -> None:
    settings = {"server": {"domains": ("localhost", "two")}}
    async with World(plugins=("announce",), settings=settings) as world:
        await world.app.accounts.create("dora@two", "secret")
        dora = world.connect()
        await dora.open("two")
        await dora.authenticate("dora")
        await dora.open("two")
        await dora.bind()
        await dora.send("<presence/>")
        await dora.receive_all()
        await world.app.commands.call("announce send", {"text": "x"})
        await dora.expect("<message type='headline' from='two' to='dora@two'><body>x</body></message>")


@pytest.mark.asyncio
@pytest.mark.parametrize("text", ["", "bell \x07", "half \ud800", "\ufffe"])
@pytest.mark.parametrize("command", ["send", "motd"])
async def test_what_xml_cannot_hold_is_refused(command: str, text: str) -> None:
    async with World(plugins=("announce",)) as world:
        alice = await world.login("alice")
        with pytest.raises(CommandError, match="control characters"):
            await world.app.commands.call(f"announce {command}", {"text": text})
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_an_admin_announces_by_message() -> None:
    async with World(plugins=("announce",), plugin_config=ADMIN) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await tell(alice, "online", "Down at noon", subject="News")
        for client in (alice, bob):
            await client.expect(notice("Down at noon", client.bare, "News"))
            await client.expect_nothing()


@pytest.mark.asyncio
@pytest.mark.parametrize("what", ["online", "motd", "motd/update", "motd/delete"])
async def test_others_are_forbidden_to(what: str) -> None:
    async with World(plugins=("announce",), plugin_config=ADMIN) as world:
        bob = await world.login("bob")
        await world.app.commands.call("announce motd", {"text": "stays"})
        assert await bodies(bob) == ["stays"]
        await tell(bob, what, "I am the king")
        assert refusal(await bob.receive()) == "auth forbidden"
        await bob.expect_nothing()
        assert await bodies(await shown(world, "carol")) == ["stays"]


@pytest.mark.asyncio
@pytest.mark.parametrize("what", ["online", "motd", "motd/update"])
async def test_an_empty_announcement_is_refused(what: str) -> None:
    async with World(plugins=("announce",), plugin_config=ADMIN) as world:
        alice = await world.login("alice")
        await tell(alice, what, "")
        assert refusal(await alice.receive()) == "modify bad-request"


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["localhost/announce/nothing", "localhost/x", "localhost"])
async def test_other_addresses_are_what_they_were(to: str) -> None:
    async with World(plugins=("announce",), plugin_config=ADMIN) as world:
        alice = await world.login("alice")
        await alice.send(f"<message to='{to}'><body>x</body></message>")
        assert refusal(await alice.receive()) == "cancel service-unavailable"


@pytest.mark.asyncio
async def test_a_resource_of_that_name_gets_its_messages() -> None:
    async with World(plugins=("announce",), plugin_config=ADMIN) as world:
        alice, bob = await world.login("alice"), await world.login("bob", "announce/online")
        await alice.send("<message to='bob@localhost/announce/online'><body>x</body></message>")
        assert await bodies(bob) == ["x"]
        assert await bodies(alice) == []


@pytest.mark.asyncio
@pytest.mark.parametrize("admin", ["localhost", "alice@localhost/desk", "@", ""])
async def test_admins_are_accounts(admin: str) -> None:
    with pytest.raises(ConfigError, match=r"plugins\.config\.announce\.admins"):
        async with World(plugins=("announce",), plugin_config={"announce": {"admins": [admin]}}):
            pass


# the message of the day


async def shown(world: World, user: str) -> Client:
    """A client that just became available, with all it received since."""
    client = await world.bind(user)
    await client.send("<presence/>")
    return client


@pytest.mark.asyncio
async def test_the_message_of_the_day_is_shown_once_to_everybody_now_or_later() -> None:
    async with World(plugins=("announce",)) as world:
        alice = await world.login("alice")
        result = await world.app.commands.call("announce motd", {"text": "Be kind"})
        assert result == {"motd": "Be kind"}
        await alice.expect(notice("Be kind", alice.bare))
        assert await bodies(await shown(world, "alice")) == []
        bob = await shown(world, "bob")
        await bob.expect(f"<presence from='{bob.jid}' to='bob@localhost'/>")
        await bob.expect(notice("Be kind", "bob@localhost"))
        await bob.send("<presence type='unavailable'/><presence/>")
        assert await bodies(bob) == []
        assert await bodies(await shown(world, "bob")) == []


@pytest.mark.asyncio
async def test_a_new_one_is_shown_again() -> None:
    async with World(plugins=("announce",), plugin_config=ADMIN) as world:
        alice = await world.login("alice")
        await tell(alice, "motd", "one")
        await tell(alice, "motd", "two", subject="S")
        assert await bodies(alice) == ["one", "two"]
        bob = await shown(world, "bob")
        await bob.receive()
        await bob.expect(notice("two", "bob@localhost", "S"))
        await bob.expect_nothing()


@pytest.mark.asyncio
async def test_an_update_is_shown_only_to_those_who_come() -> None:
    async with World(plugins=("announce",), plugin_config=ADMIN) as world:
        alice = await world.login("alice")
        await tell(alice, "motd", "one")
        await tell(alice, "motd/update", "two")
        assert await bodies(alice) == ["one"]
        assert await bodies(await shown(world, "alice")) == ["two"]


@pytest.mark.asyncio
async def test_it_can_be_removed() -> None:
    async with World(plugins=("announce",), plugin_config=ADMIN) as world:
        alice = await world.login("alice")
        await tell(alice, "motd", "one")
        await tell(alice, "motd/delete", "")
        assert await bodies(await shown(world, "bob")) == []
        assert await world.app.commands.call("announce clear", {}) == {"removed": False}
        await tell(alice, "motd", "two")
        assert await world.app.commands.call("announce clear", {}) == {"removed": True}
        assert await bodies(await shown(world, "bob")) == []


@pytest.mark.asyncio
async def test_it_survives_a_restart_and_so_does_who_has_seen_it(tmp_path: Path) -> None:
    path = tmp_path / "xmppd.sqlite"
    async with World(plugins=("announce",), store=new_store(path)) as world:
        alice = await world.login("alice")
        await world.app.commands.call("announce motd", {"text": "x"})
        assert await bodies(alice) == ["x"]
    async with World(plugins=("announce",), store=new_store(path), accounts=()) as world:
        assert await bodies(await shown(world, "alice")) == []
        assert await bodies(await shown(world, "bob")) == ["x"]
        await world.app.commands.call("announce clear", {})
    async with World(plugins=("announce",), store=new_store(path), accounts=()) as world:
        assert await bodies(await shown(world, "carol")) == []


@pytest.mark.asyncio
async def test_two_resources_that_come_at_once_are_shown_it_once(tmp_path: Path) -> None:
    async with World(plugins=("announce",), store=new_store(tmp_path / "xmppd.sqlite")) as world:
        await world.app.commands.call("announce motd", {"text": "x"})
        for text in ("one", "two"):
            bobs = [await world.bind("bob") for _ in range(3)]
            for bob in bobs:
                bob.write("<presence/>")
            await world.settle()
            assert sorted([body for bob in bobs for body in await bodies(bob)]) == [
                "x" if text == "one" else "y"
            ]
            for bob in bobs:
                await bob.drop()
            await world.app.commands.call("announce motd", {"text": "y"})


@pytest.mark.asyncio
async def test_anonymous_sessions_see_it_and_leave_nothing_behind() -> None:
    async with World(plugins=("announce",), settings={"auth": {"anonymous": True}}) as world:
        await world.app.commands.call("announce motd", {"text": "x"})
        guest = await world.guest()
        await guest.send("<presence/><presence type='unavailable'/><presence/>")
        assert await bodies(guest) == ["x"]
        assert [row async for row in world.plugin("announce").seen.everything()] == []


@pytest.mark.asyncio
async def test_a_removed_account_has_seen_nothing() -> None:
    async with World(plugins=("announce",)) as world:
        await world.login("alice")
        await world.app.commands.call("announce motd", {"text": "x"})
        await world.app.commands.call("user remove", {"account": "alice@localhost"})
        await world.app.accounts.create("alice@localhost", "secret")
        assert await bodies(await shown(world, "alice")) == ["x"]
