"""Names of players: who may have which, and what becomes of those given up."""

from typing import Any
from xml.etree.ElementTree import Element

import pytest

from xmppd import ns
from xmppd.admin.commands import Caller
from xmppd.errors import CommandError
from xmppd.testing import Client, World, refusal

NS = "urn:xmppd:players:0"
PLAYER = f"{{{NS}}}player"
DAY = 86_400


def world_of(*plugins: str, **config: Any) -> World:
    return World(plugins=("players", "disco", *plugins), plugin_config={"players": config})


async def asked(client: Client, kind: str, payload: str, to: str = "") -> Element:
    """The answer to an iq, whatever else comes before it; that is forgotten."""
    await client.receive_all()
    await client.send(f"<iq type='{kind}' id='q'{f' to={to!r}' if to else ''}>{payload}</iq>")
    (answer,) = [stanza for stanza in await client.receive_all() if stanza.get("id") == "q"]
    return answer


async def rename(client: Client, name: str) -> Element:
    return await asked(client, "set", f"<player xmlns='{NS}' name='{name}'/>")


async def found(client: Client, name: str) -> str | None:
    """The account that a name is of, as a client is told; None for item-not-found."""
    answer = await asked(client, "get", f"<player xmlns='{NS}' name='{name}'/>", to="localhost")
    if answer.get("type") == "error":
        assert refusal(answer) == "cancel item-not-found"
        return None
    return answer[0].get("jid")


async def call(world: World, command: str, **arguments: Any) -> Any:
    return await world.app.commands.call(command, arguments, Caller("http", "backend"))


@pytest.mark.asyncio
async def test_a_player_takes_a_name_and_is_found_by_it() -> None:
    async with world_of() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        assert (await asked(alice, "get", f"<player xmlns='{NS}'/>"))[0].attrib == {"jid": alice.bare}
        answer = await rename(alice, "Zoe#EUW")
        assert answer.get("type") in ("result", None)
        await alice.receive_all()
        assert await found(bob, "Zoe#EUW") == alice.bare
        assert await found(bob, "zOE#euw") == alice.bare
        assert await found(bob, "Zoe#NA1") is None
        mine = (await asked(alice, "get", f"<player xmlns='{NS}'/>"))[0]
        assert (mine.get("name"), mine.get("next-rename")) == ("Zoe#EUW", "2023-12-14T22:13:20Z")
        info = await asked(bob, "get", f"<query xmlns='{ns.DISCO_INFO}'/>", to="localhost")
        assert NS in [child.get("var") for child in info[0]]


@pytest.mark.asyncio
async def test_those_who_see_a_player_are_told_of_his_name() -> None:
    async with world_of() as world:
        alice, bob, carol = [await world.login(name) for name in ("alice", "bob", "carol")]
        await world.befriend(alice, bob)
        await alice.send(f"<iq type='set' id='1'><player xmlns='{NS}' name='Zoe#EUW'/></iq>")
        said = f"<player xmlns='{NS}' jid='alice@localhost' name='Zoe#EUW'/>"
        await bob.expect(f"<message type='headline' from='alice@localhost' to='{bob.bare}'>{said}</message>")
        await carol.expect_nothing()
        kinds = {stanza.tag.rpartition("}")[2] for stanza in await alice.receive_all()}
        assert kinds == {"message", "iq"}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "alike",
    [
        "Alice#EUW",
        "ALICE#euw",
        "alice#\uff25\uff35\uff37",
        "AIice#EUW",
        "Al\u0456ce#EUW",
        "\u0391lice#EUW",
        "Alice #EUW",
        "A1ice#EUW",
    ],
)
async def test_nobody_has_a_name_that_looks_like_another(alike: str) -> None:
    async with world_of() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await rename(alice, "Alice#EUW")
        assert refusal(await rename(bob, alike)) == "cancel conflict"
        assert world.plugins("players")[1 % len(world.apps)].refused.value == 1


@pytest.mark.asyncio
async def test_capitals_of_another_script_are_looked_at_as_they_are_written() -> None:
    async with world_of() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await rename(alice, "BOB#EUW")
        assert refusal(await rename(bob, "\u0412\u041e\u0412#EUW")) == "cancel conflict"
        assert (await rename(bob, "\u0432\u043e\u0432#EUW")).get("type") != "error"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "bad",
    [
        "",
        "Zo#EUW",
        "Zoezoezoezoezoezo#EUW",
        "Zoe#E",
        "Zoe#EUWEST",
        "Zoe#E-W",
        "Zoe#Zoe#EUW",
        "Z\u200boe#EUW",
        "Z\u202eoe#EUW",
        "Z\u0300\u0300\u0300oe#EUW",
        "\u0300oe#EUW",
        " .oe#EUW",
        "Zoe-#EUW",
        "Zo\U0001f600#EUW",
        "Z&lt;e#EUW",
        "x" * 300,
    ],
)
async def test_what_is_no_name(bad: str) -> None:
    async with world_of() as world:
        alice = await world.login("alice")
        assert refusal(await rename(alice, bad)) == "modify not-acceptable"
        assert await world.plugin("players").profiles.get(alice.bare) is None


@pytest.mark.asyncio
async def test_without_a_tag_one_is_made_up() -> None:
    async with world_of() as world:
        alice = await world.login("alice")
        await rename(alice, "Zoe")
        name = (await call(world, "player show", player=alice.bare))["name"]
        assert name.startswith("Zoe#")
        assert name[4:].isdigit()


@pytest.mark.asyncio
async def test_a_name_is_changed_seldom_and_the_old_one_kept_back() -> None:
    async with world_of() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await rename(alice, "Zoe#EUW")
        await world.advance(60)
        await alice.receive_all()
        answer = await rename(alice, "Zara#EUW")
        assert refusal(answer) == "wait policy-violation"
        assert answer.find(".//{urn:xmppd:moderation:0}retry").get("seconds") == str(30 * DAY - 60)  # type: ignore[union-attr]
        world.clock.seconds += 30 * DAY
        await rename(alice, "Zara#EUW")
        assert await found(bob, "Zoe#EUW") is None
        assert refusal(await rename(bob, "Zoe#EUW")) == "cancel conflict"
        history = await call(world, "player history", player="Zara#EUW")
        assert [(row["name"], bool(row["until"]), row["by"]) for row in history] == [
            ("Zara#EUW", False, "player"),
            ("Zoe#EUW", True, "player"),
        ]
        world.clock.seconds += 90 * DAY
        assert (await rename(bob, "Zoe#EUW")).get("type") != "error"


@pytest.mark.asyncio
async def test_one_comes_back_to_his_own_name() -> None:
    async with world_of(rename_days=0) as world:
        alice = await world.login("alice")
        for name in ("Zoe#EUW", "Zara#EUW", "zoe#EUW", "Zoe#EUW"):
            assert (await rename(alice, name)).get("type") != "error"
            await alice.receive_all()
        assert await found(alice, "Zoe#EUW") == alice.bare
        assert await found(alice, "Zara#EUW") is None


@pytest.mark.asyncio
async def test_reserved_names_are_taken_by_nobody_but_whom_they_are_for() -> None:
    async with world_of(reserved=["admin"]) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        assert refusal(await rename(alice, "\u0410dmin#EUW")) == "cancel conflict"
        await call(world, "player reserve", name="Faker", account=bob.bare, why="the real one")
        await call(world, "player reserve", name="Zoe#EUW")
        assert refusal(await rename(alice, "faker#123")) == "cancel conflict"
        assert refusal(await rename(alice, "zoe#EUW")) == "cancel conflict"
        assert [row["name"] for row in await call(world, "player reserved")] == ["Faker#*", "Zoe#EUW"]
        assert (await rename(bob, "Faker#KR1")).get("type") != "error"
        assert await call(world, "player release", name="Zoe#EUW") == {"released": True}
        assert await call(world, "player release", name="Zoe#EUW") == {"released": False}
        assert await call(world, "player release", name="Faker#KR1") == {"released": False}
        assert (await rename(alice, "Zoe#EUW")).get("type") != "error"
        with pytest.raises(CommandError, match="somebody has this name"):
            await call(world, "player reserve", name="Zoe#EUW")


@pytest.mark.asyncio
async def test_operators_give_names_without_a_pause() -> None:
    async with world_of() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await rename(alice, "Zoe#EUW")
        assert await call(world, "player rename", account=alice.bare, name="Admin#EUW") == {
            "account": alice.bare,
            "name": "Admin#EUW",
        }
        await call(world, "player rename", account=bob.bare, name="Zoe#EUW")
        assert await call(world, "player find", name=["zoe#EUW", "Zara#EUW"]) == [
            {"name": "zoe#EUW", "account": bob.bare},
            {"name": "Zara#EUW", "account": ""},
        ]
        for name, why in (("Zoe#EUW", "taken"), ("Zo#EUW", "characters")):
            with pytest.raises(CommandError, match=why):
                await call(world, "player rename", account=alice.bare, name=name)
        with pytest.raises(CommandError, match="too new"):
            await call(world, "player rename", account=alice.bare, name="Zara#EUW", by_the_rules=True)
        with pytest.raises(CommandError, match="no such player"):
            await call(world, "player rename", account="nobody@localhost", name="Zara#EUW")


@pytest.mark.asyncio
async def test_who_asks_too_often_waits_on_all_nodes() -> None:
    async with world_of(lookups=3) as world:
        alice, other = await world.login("alice"), await world.login("alice", "other")
        for client in (alice, other, alice):
            assert await found(client, "Zoe#EUW") is None
        for client in (alice, other):
            answer = await asked(client, "get", f"<player xmlns='{NS}' name='Zoe#EUW'/>", to="localhost")
            assert refusal(answer) == "wait policy-violation"
            assert answer.find(".//{urn:xmppd:moderation:0}retry").get("seconds") == "40"  # type: ignore[union-attr]
        assert refusal(await rename(alice, "Zara#EUW")) == "wait policy-violation"
        await world.advance(40)
        assert await found(alice, "Zoe#EUW") is None


@pytest.mark.asyncio
async def test_many_accounts_of_one_address_count_together() -> None:
    async with world_of(lookups=1) as world:
        names = [await world.login("alice"), await world.login("bob"), await world.login("carol")]
        for client in names:
            assert await found(client, "Zoe#EUW") is None
        await world.app.accounts.create("dora@localhost", "secret")
        await world.app.accounts.create("ed@localhost", "secret")
        assert await found(await world.login("dora"), "Zoe#EUW") is None
        answer = await rename(await world.login("ed"), "Zoe#EUW")
        assert refusal(answer) == "wait policy-violation"


@pytest.mark.asyncio
async def test_many_who_ask_at_once_are_counted_and_not_in_each_others_way() -> None:
    async with world_of(lookups=15) as world:
        clients = [await world.bind("alice", str(number), node=0) for number in range(10)]
        for client in clients:
            for number in range(2):
                client.write(
                    f"<iq type='get' id='q{number}' to='localhost'><player xmlns='{NS}' name='Zoe#EUW'/></iq>"
                )
        await world.settle()
        answers = [refusal(it) for client in clients for it in await client.receive_all()]
        assert (answers.count("cancel item-not-found"), answers.count("wait policy-violation")) == (15, 5)


@pytest.mark.asyncio
async def test_when_a_player_was_here_last_is_for_his_friends() -> None:
    async with world_of("last") as world:
        alice, bob, carol = [await world.login(name) for name in ("alice", "bob", "carol")]
        await rename(alice, "Zoe#EUW")
        await world.befriend(alice, bob)
        question = f"<player xmlns='{NS}' jid='alice@localhost'/>"
        assert (await asked(bob, "get", question, to="localhost"))[0].get("online") == "true"
        await world.advance(10)
        await alice.drop()
        await world.advance(10)
        await bob.receive_all()
        told = (await asked(bob, "get", question, to="localhost"))[0]
        assert (told.get("online"), told.get("last-online")) == (None, "2023-11-14T22:13:30Z")
        told = (await asked(carol, "get", question, to="localhost"))[0]
        assert dict(told.attrib) == {"jid": "alice@localhost", "name": "Zoe#EUW"}


@pytest.mark.asyncio
async def test_whoever_blocked_somebody_is_not_found_by_him() -> None:
    async with world_of("blocking") as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await rename(alice, "Zoe#EUW")
        await call(world, "block add", account=alice.bare, address=bob.bare)
        await world.settle()
        assert await found(bob, "Zoe#EUW") is None


@pytest.mark.asyncio
async def test_a_removed_account_leaves_its_name_to_nobody_for_a_while() -> None:
    async with world_of() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await rename(alice, "Zoe#EUW")
        await call(world, "player link", account=alice.bare, platform="steam", id="1")
        await call(world, "user remove", account=alice.bare)
        assert await found(bob, "Zoe#EUW") is None
        assert refusal(await rename(bob, "Zoe#EUW")) == "cancel conflict"
        await call(world, "player link", account=bob.bare, platform="steam", id="1")
        await world.app.accounts.create("alice@localhost", "secret")
        assert (await call(world, "player show", player="alice@localhost"))["name"] == ""
        world.clock.seconds += 90 * DAY
        assert (await rename(bob, "Zoe#EUW")).get("type") != "error"


@pytest.mark.asyncio
async def test_a_renamed_account_keeps_name_and_platforms() -> None:
    async with world_of() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await rename(alice, "Zoe#EUW")
        await call(world, "player link", account=alice.bare, platform="steam", id="1")
        await call(world, "account rename", old="alice@localhost", new="zoe@localhost")
        await world.settle()
        assert await found(bob, "Zoe#EUW") == "zoe@localhost"
        with pytest.raises(CommandError, match="linked to zoe@localhost"):
            await call(world, "player link", account=bob.bare, platform="steam", id="1")
        assert refusal(await rename(bob, "Zoe#EUW")) == "cancel conflict"
        assert await world.plugin("players").accounts_on("steam", ["1", "2"]) == {"1": "zoe@localhost"}


@pytest.mark.asyncio
async def test_a_session_says_which_platform_it_is_on() -> None:
    async with world_of() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        lie = f"<platform xmlns='{NS}' name='ps5'/>"
        await alice.send(f"<presence>{lie}</presence>")
        await bob.expect(f"<presence from='{alice.jid}' to='bob@localhost'/>")
        chosen = f"<platform xmlns='{NS}' name='{{}}'/>"
        assert refusal(await asked(alice, "set", chosen.format("steam"))) == "cancel item-not-found"
        await call(world, "player link", account=alice.bare, platform="steam", id="1")
        await alice.receive_all()
        assert (await asked(alice, "set", chosen.format("steam"))).get("type") == "result"
        await alice.send("<presence><show>away</show></presence>")
        platform = chosen.format("steam")
        await bob.expect(
            f"<presence from='{alice.jid}' to='bob@localhost'><show>away</show>{platform}</presence>"
        )
        await alice.send(f"<presence to='carol@localhost'>{lie}</presence>")
        assert await call(world, "player unlink", account=alice.bare, platform="steam") == {"unlinked": True}
        assert await call(world, "player unlink", account=alice.bare, platform="steam") == {"unlinked": False}


@pytest.mark.asyncio
async def test_bad_links_are_refused() -> None:
    async with world_of(links=1) as world:
        await call(world, "player link", account="alice@localhost", platform="steam", id="1")
        await call(world, "player link", account="alice@localhost", platform="steam", id="1")
        for account, platform, id, why in (
            ("alice@localhost", "steam", "2", "unlink that first"),
            ("alice@localhost", "psn", "2", "1 platforms at most"),
            ("bob@localhost", "steam", "1", "linked to alice@localhost"),
            ("nobody@localhost", "steam", "3", "no account"),
            ("bob@localhost", "", "3", "characters"),
        ):
            with pytest.raises(CommandError, match=why):
                await call(world, "player link", account=account, platform=platform, id=id)


@pytest.mark.asyncio
async def test_guests_have_no_name() -> None:
    settings = {"auth": {"anonymous": True, "plain_without_tls": True, "iterations": 4096}}
    async with World(plugins=("players",), settings=settings) as world:
        assert refusal(await rename(await world.guest(), "Zoe#EUW")) == "cancel not-allowed"
