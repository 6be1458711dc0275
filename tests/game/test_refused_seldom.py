"""What is refused to guests, to who goes just now, without a plugin, and where others never stop."""

from __future__ import annotations

from typing import Any

import pytest
from gameworld import answer_to
from inviting import invite

from xmppd.errors import StanzaError
from xmppd.testing import World, refusal

pytestmark = pytest.mark.asyncio

BOB, GHOST = "bob@localhost", "ghost@localhost"
FRIENDS, INVITES = "urn:xmppd:friends:0", "urn:xmppd:invites:0"
OF_GUESTS = {
    "request": f"<request xmlns='{FRIENDS}' jid='{BOB}'/>",
    "group": f"<group xmlns='{FRIENDS}' name='Raid' priority='1'/>",
    "invite": f"<invite xmlns='{INVITES}' to='{BOB}' kind='match' target='m' game='g'/>",
    "report": f"<report xmlns='urn:xmppd:moderation:0' jid='{BOB}' reason='urn:xmpp:reporting:abuse'/>",
    "hide": "<hidden xmlns='urn:xmppd:rich-presence:0'><all/></hidden>",
}


@pytest.mark.parametrize("what", OF_GUESTS)
async def test_guests_do_nothing_of_this(what: str) -> None:
    plugins = ("friends", "invites", "moderation", "rich_presence")
    async with World(plugins=plugins, settings={"auth": {"anonymous": True}}) as world:
        guest = await world.guest()
        assert refusal(await answer_to(guest, "set", OF_GUESTS[what])) == "cancel not-allowed"


async def test_who_is_there_no_more_has_no_friends() -> None:
    async with World(plugins=("friends",)) as world:
        friends = world.plugin("friends")
        for asked, condition in (
            (friends.ask(GHOST, BOB, ""), "not-allowed"),
            (friends._counts(GHOST), "item-not-found"),
            (friends._remove_item(GHOST, BOB), "not-allowed"),
        ):
            with pytest.raises(StanzaError) as caught:
                await asked
            assert caught.value.condition == condition


async def test_without_the_plugins_that_know() -> None:
    async with World(plugins=("friends", "riot_profile")) as world:
        alice = await world.login("alice")
        named = f"<request xmlns='{FRIENDS}' name='Bob#ONE'/>"
        assert refusal(await answer_to(alice, "set", named)) == "cancel feature-not-implemented"
        token = "<query xmlns='jabber:iq:riotgames:rso'><access-token>x</access-token></query>"
        assert refusal(await answer_to(alice, "set", token)) == "cancel service-unavailable"


async def test_where_others_never_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"invites": {"message": "", "senders": "anybody"}}
    async with World(plugins=("friends", "invites"), plugin_config=config, nodes=1) as world:
        alice = await world.login("alice")

        async def lost(*args: Any, **named: Any) -> bool:
            return False

        monkeypatch.setattr(world.app.store, "put_if", lost)
        asked = await answer_to(alice, "set", OF_GUESTS["request"])
        assert refusal(asked) == "wait resource-constraint"
        monkeypatch.setattr(world.app.store, "batch", lost)
        assert refusal(await invite(alice, BOB)) == "wait resource-constraint"
