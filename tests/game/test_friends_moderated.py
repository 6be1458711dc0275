"""Names, requests and notes where moderation is at work."""

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from xmppd.ns import STANZA_ERRORS
from xmppd.testing import Client, World, refusal

NS, PLAYERS = "urn:xmppd:friends:0", "urn:xmppd:players:0"
ALICE, BOB = "alice@localhost", "bob@localhost"
LIST = "darn\n[refuse]\nkill yourself\n[shadow]\ncheap gold\n"


def world_of(folder: Path, **config: Any) -> World:
    (folder / "words").mkdir(exist_ok=True)
    (folder / "words" / "en.txt").write_text(LIST)
    settings = {"words": str(folder / "words"), **config}
    return World(plugins=("players", "friends", "moderation"), plugin_config={"moderation": settings})


async def asked(client: Client, payload: str) -> Element:
    await client.receive_all()
    await client.send(f"<iq type='set' id='q'>{payload}</iq>")
    (answer,) = [stanza for stanza in await client.receive_all() if stanza.get("id") == "q"]
    return answer


async def outcome(client: Client, payload: str) -> str:
    answer = await asked(client, payload)
    return refusal(answer) if answer.get("type") == "error" else "done"


@pytest.mark.asyncio
async def test_what_may_not_be_said_is_no_name_no_request_and_no_note(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        name = f"<player xmlns='{PLAYERS}' name='{{}}#EUW'/>"
        assert await outcome(alice, name.format("d4rn Zoe")) == "modify not-acceptable"
        assert await outcome(alice, name.format("cheap gold")) == "modify not-acceptable"
        assert await outcome(alice, name.format("Zoe")) == "done"
        request = f"<request xmlns='{NS}' jid='{BOB}'>{{}}</request>"
        assert await outcome(alice, request.format("kill yourself")) == "modify not-acceptable"
        answer = await asked(alice, request.format("darn good game"))
        assert answer[0].findtext(f"{{{NS}}}text") == "**** good game"
        await world.app.commands.call("friend accept", {"one": BOB, "other": ALICE})
        note = f"<note xmlns='{NS}' jid='{BOB}'>{{}}</note>"
        assert await outcome(alice, note.format("kill yourself")) == "modify not-acceptable"
        assert await outcome(alice, note.format("darn")) == "done"
        row = await world.plugin("friends").cards.get(ALICE, BOB)
        assert row["note"] == "****"
        await world.app.commands.call("friend part", {"one": BOB, "other": ALICE})
        await bob.receive_all()
        await alice.send(f"<presence type='subscribe' to='{BOB}'><status>darn you</status></presence>")
        shown = [it for it in await bob.receive_all() if it.get("type") == "subscribe"]
        assert [it[0].text for it in shown] == ["**** you"]


@pytest.mark.asyncio
async def test_who_asks_too_often_is_told_how_long_to_wait(tmp_path: Path) -> None:
    rates = {"rates": {"request": {"burst": 2, "per_second": 0.1}}}
    async with world_of(tmp_path, **rates) as world:
        alice = await world.login("alice")
        request = f"<request xmlns='{NS}' jid='{BOB}'/>"
        cancel = f"<cancel xmlns='{NS}' jid='{BOB}'/>"
        for payload in (request, cancel, request, cancel):
            assert await outcome(alice, payload) == "done"
        answer = await asked(alice, request)
        assert refusal(answer) == "wait policy-violation"
        retry = answer.find(".//{urn:xmppd:moderation:0}retry")
        assert retry is not None
        assert retry.get("seconds") == "10"
        await alice.send(f"<presence type='subscribe' to='{BOB}'/>")
        assert refusal(await alice.receive()) == "wait policy-violation"
        await world.advance(11)
        assert await outcome(alice, request) == "done"


@pytest.mark.asyncio
async def test_who_is_muted_asks_nobody_and_is_told_why_in_his_language(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        alice = await world.bind("alice", lang="de")
        await alice.send("<presence/>")
        bob = await world.login("bob")
        await world.app.commands.call("friend befriend", {"one": ALICE, "other": "carol@localhost"})
        await world.app.commands.call(
            "moderation sanction", {"account": ALICE, "kind": "mute", "reason": "Spam."}
        )
        await world.settle()
        for payload in (
            f"<request xmlns='{NS}' jid='{BOB}'/>",
            f"<request xmlns='{NS}' jid='{BOB}'>hello</request>",
            f"<note xmlns='{NS}' jid='carol@localhost'>hello</note>",
            f"<player xmlns='{PLAYERS}' name='Zoe#EUW'/>",
        ):
            assert told(await asked(alice, payload)) == "Du kannst nicht mehr chatten. Spam.", payload
        await alice.send(f"<presence type='subscribe' to='{BOB}'/>")
        assert told(await alice.receive()) == "Du kannst nicht mehr chatten. Spam."
        await bob.receive_all()
        assert (await world.plugin("friends").between(ALICE, BOB)).state == "none"


def told(answer: Element) -> str | None:
    """What a refusal says to who is muted."""
    assert refusal(answer) == "cancel not-allowed"
    assert answer.find(".//{urn:xmppd:moderation:0}muted") is not None
    return answer.findtext(f".//{{{STANZA_ERRORS}}}text")
