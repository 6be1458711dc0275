"""Invites: who may make them, how they end, and that all see the same."""

import asyncio
from datetime import datetime
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inviting import (
    ALICE,
    BOB,
    CAROL,
    KEY,
    NS,
    answer,
    ask,
    friends,
    id_of,
    invite,
    pending,
    pushes,
    world_of,
)

from xmppd import ns
from xmppd.admin.commands import CommandError
from xmppd.testing import World, refusal


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("what", "state"), [("accept", "accepted"), ("decline", "declined"), ("cancel", "cancelled")]
)
async def test_an_invite_ends_in_one_way_and_all_are_told(what: str, state: str) -> None:
    async with world_of() as world:
        alice, bob = await friends(world)
        phone = await world.login("bob", "phone")
        for client in (alice, bob, phone):
            assert await pending(client) == []
        id = await id_of(alice)
        for client in (bob, phone):
            assert await pushes(world, client) == ["pending"]
            assert await pending(client) == [(ALICE, BOB)]
        assert await pushes(world, alice) == ["pending"]
        assert await answer(alice if what == "cancel" else bob, what, id) == state
        for client in (alice, bob, phone):
            assert await pushes(world, client) == [state]
            assert await pending(client) == []
        assert await answer(alice if what == "cancel" else phone, what, id) == state, "once more is harmless"
        other = "decline" if what == "accept" else "accept"
        assert await answer(phone, other, id) == "cancel conflict"
        if what != "cancel":
            assert await answer(alice, "cancel", id) == "cancel conflict"
        await world.advance(400)
        assert await pushes(world, phone) == [], "it does not expire any more"


@pytest.mark.asyncio
async def test_one_that_nobody_answers_expires() -> None:
    async with world_of() as world:
        alice, bob = await friends(world)
        await pending(alice), await pending(bob)
        id = await id_of(alice, seconds="30")
        await world.advance(29)
        assert await pushes(world, bob) == ["pending"]
        await world.advance(2)
        for client, expected in ((bob, ["expired"]), (alice, ["pending", "expired"])):
            assert await pushes(world, client) == expected
        assert await answer(bob, "accept", id) == "cancel conflict"
        assert [row["state"] for row in await world.app.commands.call("invite list", {"account": BOB})] == [
            "expired"
        ]


@pytest.mark.asyncio
async def test_an_invite_survives_who_comes_again_and_a_reload() -> None:
    async with world_of() as world:
        alice, bob = await friends(world)
        id = await id_of(alice, seconds="60")
        await bob.drop()
        await alice.drop()
        for app in world.apps:
            await app.loader.reload("invites", app.config)
        again = await world.login("bob", node=0)
        assert await pending(again) == [(ALICE, BOB)]
        assert await answer(again, "accept", id) == "accepted"
        sender = await world.login("alice", node=0)
        assert await pending(sender) == []
        second = await id_of(sender, target="m-2", seconds="60")
        assert await pushes(world, again) == ["accepted", "pending"]
        for app in world.apps:
            await app.loader.reload("invites", app.config)
        await world.settle()
        await world.advance(61)
        assert await pushes(world, again) == ["expired"], second


@pytest.mark.asyncio
async def test_the_token_tells_a_back_end_all_of_it() -> None:
    async with world_of() as world:
        alice, bob = await friends(world)
        id = await id_of(alice, payload="a &lt;seed>")
        got = await ask(bob, f"<accept xmlns='{NS}' id='{id}'/>")
        token = got[0].findtext(f"{{{NS}}}token") or ""
        claims = jwt.decode(
            token,
            KEY,
            algorithms=["HS256"],
            issuer="localhost",
            options={"verify_exp": False, "verify_iat": False},
        )
        assert (claims["inviter"], claims["sub"], claims["jti"], claims["state"]) == (
            ALICE,
            BOB,
            id,
            "accepted",
        )
        assert (claims["kind"], claims["target"], claims["game"]) == ("match", "m-1", "chess")
        assert claims["payload"] == "a <seed>" == got[0].findtext(f"{{{NS}}}payload")
        assert claims["exp"] - claims["iat"] == 300 and jwt.get_unverified_header(token)["kid"] == "1"


@pytest.mark.asyncio
async def test_a_token_by_ed25519() -> None:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    async with world_of(key=pem, key_id="2") as world:
        alice, _ = await friends(world)
        token = (await invite(alice))[0].findtext(f"{{{NS}}}token") or ""
        options = {"verify_exp": False, "verify_iat": False}
        assert (
            jwt.decode(token, key.public_key(), algorithms=["EdDSA"], options=options)["state"] == "pending"
        )


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("more", "refused"),
    [
        ({"kind": "war"}, "modify bad-request"),
        ({"target": ""}, "modify bad-request"),
        ({"target": "x" * 201}, "modify bad-request"),
        ({"seconds": "0"}, "modify bad-request"),
        ({"seconds": "86401"}, "modify bad-request"),
        ({"seconds": "-5"}, "modify bad-request"),
        ({"payload": "x" * 2049}, "modify bad-request"),
        ({"to": ALICE}, "modify bad-request"),
        ({"to": "@"}, "modify jid-malformed"),
        ({"to": CAROL}, "cancel service-unavailable"),
        ({"to": "nobody@localhost"}, "cancel service-unavailable"),
    ],
)
async def test_what_is_refused(more: dict[str, str], refused: str) -> None:
    async with world_of() as world:
        alice, _ = await friends(world)
        await world.login("carol")
        assert refusal(await invite(alice, **more)) == refused


@pytest.mark.asyncio
async def test_nobody_answers_for_others() -> None:
    async with world_of(senders="anybody") as world:
        alice, bob = await friends(world)
        carol = await world.login("carol")
        id = await id_of(carol)
        for client, what in ((alice, "accept"), (carol, "accept"), (bob, "cancel"), (alice, "cancel")):
            assert await answer(client, what, id) == "cancel item-not-found"
        assert await answer(bob, "accept", "") == "cancel item-not-found"
        assert await answer(bob, "accept", id) == "accepted"


@pytest.mark.asyncio
async def test_blocks_win() -> None:
    async with world_of("blocking") as world:
        alice, bob = await friends(world)
        await pending(alice)
        await id_of(alice)
        await bob.send(
            f"<iq type='set' id='b'><block xmlns='{ns.BLOCKING}'><item jid='{ALICE}'/></block></iq>"
        )
        await world.settle()
        assert await pushes(world, alice) == ["pending", "declined"]
        assert await pending(bob) == []
        assert refusal(await invite(alice)) == "cancel service-unavailable"
        assert refusal(await invite(bob, ALICE)) == "cancel service-unavailable"
        with pytest.raises(CommandError, match="blocked"):
            await world.app.commands.call(
                "invite send", {"sender": ALICE, "to": BOB, "kind": "game", "target": "x"}
            )


@pytest.mark.asyncio
async def test_who_is_offline_or_looks_so_is_invited_if_that_is_configured() -> None:
    async with world_of("rich_presence", offline="refuse") as world:
        alice, bob = await friends(world)
        await id_of(alice)
        hidden = "<hidden xmlns='urn:xmppd:rich-presence:0'><all/></hidden>"
        await bob.send(f"<iq type='set' id='h'>{hidden}</iq>")
        hiding = refusal(await invite(alice, target="m-2"))
        await bob.drop()
        assert hiding == refusal(await invite(alice, target="m-3")) == "wait recipient-unavailable"


@pytest.mark.asyncio
async def test_how_many_are_pending_and_how_often() -> None:
    async with world_of(pending=2, per_minute=4) as world:
        alice, _ = await friends(world)
        first = await id_of(alice)
        assert await id_of(alice) == first, "it is there already"
        second = await id_of(alice, target="m-2")
        assert refusal(await invite(alice, target="m-3")) == "wait resource-constraint"
        got = await invite(alice, target="m-3")
        assert refusal(got) == "wait policy-violation"
        assert got.find(".//{urn:xmppd:moderation:0}retry").get("seconds") == "15"  # type: ignore[union-attr]
        await world.advance(30)
        assert await answer(alice, "cancel", second) == "cancelled"
        assert await id_of(alice, target="m-3")


@pytest.mark.asyncio
async def test_how_often_counts_on_all_nodes() -> None:
    async with world_of(per_minute=4, nodes=2) as world:
        alice, _ = await friends(world)
        again = await world.bind("alice", node=1)
        assert alice.app is not again.app
        for number in range(4):
            await id_of((alice, again)[number % 2], target=f"m-{number}")
            await world.settle()
        for client in (alice, again):
            assert refusal(await invite(client, target="m-5")) == "wait policy-violation"


@pytest.mark.asyncio
async def test_clients_that_know_no_invites_are_written_to() -> None:
    async with world_of("offline", message="{who} asks for {kind} {what}") as world:
        alice, bob = await friends(world)
        await bob.drop()
        await id_of(alice)
        again = await world.bind("bob", node=0)
        await again.send("<presence/>")
        await world.settle()
        bodies = [it.findtext(f"{{{ns.CLIENT}}}body") for it in await again.receive_all()]
        assert [body for body in bodies if body] == [f"{ALICE} asks for match m-1"]


@pytest.mark.asyncio
async def test_back_ends_invite_and_take_back() -> None:
    async with world_of() as world:
        _, bob = await friends(world)
        await pending(bob)
        call = world.app.commands.call
        about = {"sender": CAROL, "to": BOB, "kind": "party", "target": "p-1", "seconds": 60}
        made = await call("invite send", about)
        assert await pushes(world, bob) == ["pending"]
        at, expires = (datetime.fromisoformat(made[name]) for name in ("at", "expires"))
        assert (expires - at).total_seconds() == 60
        assert (await call("invite cancel", {"to": BOB, "id": made["id"]}))["state"] == "cancelled"
        assert await pushes(world, bob) == ["cancelled"]
        for wrong in ({"kind": "war"}, {"sender": "zoe@localhost"}, {"to": "zoe@localhost"}, {"seconds": 0}):
            with pytest.raises(CommandError):
                await call("invite send", {**about, **wrong})
        with pytest.raises(CommandError, match="no such"):
            await call("invite cancel", {"to": BOB, "id": "x"})


@pytest.mark.asyncio
async def test_a_removed_accounts_invites_are_at_their_end() -> None:
    async with world_of() as world:
        alice, bob = await friends(world)
        await pending(bob)
        await id_of(alice)
        await world.app.server.remove_account(ALICE)
        await world.settle()
        assert await pushes(world, bob) == ["pending", "cancelled"]
        assert [row async for row in world.plugin("invites").made.everything()] == []


@pytest.mark.asyncio
async def test_what_moderation_says_of_an_invite(tmp_path: Path) -> None:
    (tmp_path / "any.txt").write_text("[mask]\nrude\n[refuse]\nbad\n")
    rates = {"invite": {"burst": 3, "per_second": 0.1}}
    async with World(
        plugins=("invites", "moderation"),
        plugin_config={
            "invites": {"message": "", "senders": "anybody"},
            "moderation": {"words": str(tmp_path), "rates": rates},
        },
    ) as world:
        alice = await world.login("alice")
        refused = await invite(alice, payload="bad")
        assert refusal(refused) == "modify policy-violation"
        assert refused.findtext(f".//{{{ns.STANZA_ERRORS}}}text") == "This may not be said."
        assert (await invite(alice, payload="rude"))[0].findtext(f"{{{NS}}}payload") == "****"
        await invite(alice, CAROL)
        answer = await invite(alice, CAROL)
        assert refusal(answer) == "wait policy-violation"
        assert answer.find(".//{urn:xmppd:moderation:0}retry") is not None


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "more", [{"target": "bad"}, {"game": "B4D"}, {"target": "rude"}, {"game": "so rude"}]
)
async def test_what_an_invite_is_to_is_judged_and_never_masked(tmp_path: Path, more: dict[str, str]) -> None:
    (tmp_path / "any.txt").write_text("[mask]\nrude\n[refuse]\nbad\n[flag]\nodd\n")
    async with World(
        plugins=("invites", "moderation"),
        plugin_config={
            "invites": {"message": "", "senders": "anybody"},
            "moderation": {"words": str(tmp_path)},
        },
    ) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        assert await pending(bob) == []
        assert refusal(await invite(alice, **more)) == "modify policy-violation"
        assert await pending(bob) == []
        assert (await invite(alice, target="odd"))[0].get("target") == "odd"


@pytest.mark.asyncio
async def test_who_is_muted_invites_nobody_and_is_told_why() -> None:
    async with World(
        plugins=("invites", "moderation"), plugin_config={"invites": {"message": "", "senders": "anybody"}}
    ) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        sanction = {"account": ALICE, "kind": "mute", "minutes": 1}
        await world.app.commands.call("moderation sanction", sanction)
        await alice.receive_all()
        assert await pending(bob) == []
        answer = await invite(alice)
        assert refusal(answer) == "cancel not-allowed"
        assert (answer.findtext(f".//{{{ns.STANZA_ERRORS}}}text") or "").startswith("You cannot chat until ")
        assert answer.find(".//{urn:xmppd:moderation:0}muted").get("until")  # type: ignore[union-attr]
        assert await pending(bob) == []
        await world.advance(61)
        await alice.receive_all()
        assert (await invite(alice)).tag.endswith("iq")


STEPS = st.lists(
    st.tuples(st.sampled_from(["accept", "decline", "cancel", "wait"]), st.integers(0, 1)), max_size=6
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_whoever_answers_at_once_it_is_in_one_state(steps: list[tuple[str, int]]) -> None:
    asyncio.run(_race(steps))


async def _race(steps: list[tuple[str, int]]) -> None:
    async with world_of() as world:
        alice, bob = await friends(world)
        phone = await world.login("bob", "phone")
        for client in (alice, bob, phone):
            await pending(client)
        id = await id_of(alice, seconds="30")
        for number, (what, which) in enumerate(steps):
            client = alice if what == "cancel" else (bob, phone)[which]
            if what == "wait":
                await world.advance(31)
            else:
                client.write(f"<iq type='set' id='a{number}'><{what} xmlns='{NS}' id='{id}'/></iq>")
        await world.settle()
        seen = [await pushes(world, client) for client in (alice, bob, phone)]
        assert all(states[0] == "pending" and len(states) == min(2, 1 + len(steps)) for states in seen), seen
        assert len({states[-1] for states in seen}) == 1
        [row] = await world.app.commands.call("invite list", {"account": BOB})
        assert row["state"] == seen[0][-1]
