"""Web hooks: what receivers are told, and what they may answer."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from patience import until
from receiver import Receiver, is_signed

from plugins.webhooks.config import WebhooksConfig
from plugins.webhooks.outbox import BUCKET
from xmppd import ns
from xmppd.config import load
from xmppd.core.happenings import CREATED, MESSAGE
from xmppd.errors import CommandError, ConfigError, StoreError, StoreUnavailable
from xmppd.testing import World

LOCAL = {"webhooks": {"allowed": ["127.0.0.0/8"]}}


@asynccontextmanager
async def told(
    receiver: Receiver, *events: str, config: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[World, str]]:
    """A server whose web hook leads to the receiver, and the key that signs."""
    settings = {"webhooks": {**LOCAL["webhooks"], **(config or {})}}
    async with World(plugins=("webhooks", "blocking"), plugin_config=settings) as world:
        arguments = {"name": "game", "url": receiver.url, "event": [*events], **options}
        made = await world.app.commands.call("webhook add", arguments)
        yield world, made["secret"]


@pytest.mark.asyncio
async def test_an_account_that_was_made_is_told_with_a_signature() -> None:
    async with Receiver() as receiver, told(receiver, "account.*") as (world, secret):
        await world.app.accounts.create("zoe@localhost", "secret")
        await passing(world, lambda: bool(receiver.events))
        event = receiver.events[0]
        assert (event["kind"], event["account"], event["data"]) == ("account.created", "zoe@localhost", {})
        assert is_signed(*receiver.requests[0], secret)
        assert not is_signed(*receiver.requests[0], "another")


async def call(world: World, verb: str, /, **arguments: Any) -> Any:
    return await world.app.commands.call(f"webhook {verb}", arguments)


async def passing(world: World, happened: Callable[[], bool]) -> None:
    """Time goes on until something happened."""
    await until(happened, lambda: world.advance(0.25))


async def taken(world: World, receiver: Receiver, count: int) -> list[dict[str, Any]]:
    """So many events, or more, that were taken: time goes on until then."""
    await passing(world, lambda: len(receiver.events) >= count)
    return receiver.events


def is_old(events: list[dict[str, Any]]) -> list[str]:
    return [event["account"].partition("@")[0] for event in events]


@pytest.mark.asyncio
async def test_each_of_the_servers_own_events_is_told() -> None:
    wanted = ("account.*", "session.*", "presence.*", "message.routed", "roster.*", "report.*")
    async with Receiver() as receiver, told(receiver, *wanted, bodies=True) as (world, _):
        accounts = world.app.accounts
        await accounts.create("zoe@localhost", "secret")
        await accounts.set_password("zoe@localhost", "other")
        await accounts.disable("zoe@localhost")
        await accounts.enable("zoe@localhost")
        await accounts.remove("zoe@localhost")
        alice = await world.login("alice", "phone")
        bob = await world.login("bob", "pc")
        await alice.send("<presence><show>away</show><status>in a match</status></presence>")
        await alice.send("<presence><show>away</show><status>in a match</status></presence>")
        await world.befriend(alice, bob)
        await alice.send(f"<message to='{bob.bare}' type='chat' id='m1'><body>hi</body></message>")
        await alice.ask(
            "set",
            f"<block xmlns='{ns.BLOCKING}'><item jid='spam@localhost'>"
            f"<report xmlns='{ns.REPORTING}' reason='{ns.REPORTING_SPAM}'><text>gold</text></report>"
            "</item></block>",
        )
        await alice.send("</stream:stream>")
        events = await taken(world, receiver, 20)

    def of(kind: str, account: str = "alice@localhost") -> list[dict[str, Any]]:
        return [event["data"] for event in events if (event["kind"], event["account"]) == (kind, account)]

    assert [event["kind"] for event in events if event["account"] == "zoe@localhost"] == [
        "account.created",
        "account.changed",
        "account.changed",
        "account.changed",
        "account.removed",
    ]
    assert [it["what"] for it in of("account.changed", "zoe@localhost")] == [
        "password",
        "disabled",
        "enabled",
    ]
    assert of("session.started") == [{"resource": "phone", "peer": "127.0.0.1", "mechanism": "PLAIN"}]
    ended = of("session.ended")[0]
    assert (ended["resource"], ended["reason"]) == ("phone", "closed")
    shown = [(it["available"], it["show"], it["status"], it["anywhere"]) for it in of("presence.changed")]
    assert shown == [(True, "", "", True), (True, "away", "in a match", True), (False, "", "", False)]
    message = {"from": alice.jid, "to": "bob@localhost", "type": "chat", "id": "m1", "outcome": "delivered"}
    assert of("message.routed") == [{**message, "body": "hi"}]
    last = of("roster.changed")[-1]
    assert (last["contact"], last["friends"]) == ("bob@localhost", True)
    assert last["before"]["subscription"] in ("to", "from")
    assert last["after"]["subscription"] == "both"
    assert of("report.made") == [
        {"reported": "spam@localhost", "reason": ns.REPORTING_SPAM, "texts": ["gold"], "stanza_ids": []}
    ]
    for event in events:
        world.app.events.kinds[event["kind"]].check(event["data"])
    assert len({event["id"] for event in events}) == len(events)


@pytest.mark.asyncio
async def test_bodies_are_told_to_who_asked_for_them_only() -> None:
    async with Receiver() as receiver, told(receiver, "message.routed") as (world, _):
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(f"<message to='{bob.bare}' type='chat'><body>secret</body></message>")
        await bob.receive()
        (event,) = await taken(world, receiver, 1)
        assert event["data"]["body"] is None
        assert b"secret" not in receiver.requests[0][1]


@pytest.mark.asyncio
async def test_no_star_means_messages() -> None:
    async with Receiver() as receiver, told(receiver, "*") as (world, _):
        assert world.app.events.wants(CREATED)
        assert not world.app.events.wants(MESSAGE)
        assert not world.app.hooks.watches_messages
        await call(world, "change", name="game", event=["*", "message.routed"])
        assert world.app.hooks.watches_messages


@pytest.mark.asyncio
async def test_nothing_is_looked_for_that_nobody_wants() -> None:
    async with World(plugins=("webhooks",), plugin_config=LOCAL) as world:
        hooks = world.app.hooks
        assert hooks.message_sent is None
        assert hooks.presence_sent is None
        assert not hooks.watches_messages
        assert not hooks.session_bound_signal
        assert not hooks.roster_changed_record


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"account": ["ann"]}, ["ann", "anna"]),
        ({"account": ["anna@"]}, ["anna"]),
        ({"domain": ["localhost"]}, ["ann", "anna", "ben"]),
        ({"domain": ["example.org"]}, []),
        ({"where": ["account=ben@localhost"]}, ["ben"]),
        ({"where": ["$.account^=an", "account!=ann@localhost"]}, ["anna"]),
        ({"where": ["data.nothing"]}, []),
        ({"account": ["ben"], "domain": ["example.org"]}, ["ben"]),
    ],
)
async def test_filters(options: dict[str, Any], expected: list[str]) -> None:
    async with Receiver() as receiver, told(receiver, "account.created", **options) as (world, _):
        for name in ("ann", "anna", "ben"):
            await world.app.accounts.create(f"{name}@localhost", "secret")
        await taken(world, receiver, len(expected))
        await world.advance(3)
        assert sorted(is_old(receiver.events)) == expected


@pytest.mark.asyncio
async def test_events_wait_for_a_receiver_that_is_away_and_none_is_to_blame() -> None:
    answers = [503, 500, 200]
    async with (
        Receiver(lambda body: answers.pop(0) if len(answers) > 1 else 200) as receiver,
        told(receiver, "account.created") as (world, _),
    ):
        for name in ("ann", "ben", "cid"):
            await world.app.accounts.create(f"{name}@localhost", "secret")
        events = await taken(world, receiver, 3)
        assert sorted(is_old(events)) == ["ann", "ben", "cid"]
        assert world.plugin("webhooks").buried.value == 0


@pytest.mark.asyncio
async def test_what_is_refused_for_itself_is_a_dead_letter_and_holds_up_nobody_else() -> None:
    def answer(body: dict[str, Any]) -> int:
        return 422 if any(it["data"].get("what") == "disabled" for it in body["events"]) else 204

    config = {"attempts": 3}
    async with Receiver(answer) as receiver, told(receiver, "account.*", config=config) as (world, _):
        await world.app.accounts.disable("alice@localhost")
        await world.app.accounts.enable("alice@localhost")
        await world.app.accounts.create("zoe@localhost", "secret")
        await taken(world, receiver, 2)
        assert sorted((it["account"], it["data"].get("what")) for it in receiver.events) == [
            ("alice@localhost", "enabled"),
            ("zoe@localhost", None),
        ]
        assert (await call(world, "show", name="game"))["dead"] == 1
        (row,) = (await call(world, "dead list", name="game"))["rows"]
        assert (row["event"], row["account"], row["reason"]) == (
            "account.changed",
            "alice@localhost",
            "it answered 422",
        )
        receiver.answer = lambda body: 200
        assert await call(world, "dead replay", name="game") == {"letters": 1}
        await taken(world, receiver, 3)
        assert receiver.events[-1]["id"] == row["id"]
        assert (await call(world, "dead list", name="game"))["rows"] == []


@pytest.mark.asyncio
async def test_dead_letters_are_dropped_one_by_one_and_all() -> None:
    config = {"attempts": 1}
    async with (
        Receiver(lambda body: 400) as receiver,
        told(receiver, "account.created", config=config) as (world, _),
    ):
        for name in ("ann", "ben", "cid"):
            await world.app.accounts.create(f"{name}@localhost", "secret")
        for _ in range(60):
            await world.advance(1)
            if world.plugin("webhooks").buried.value == 3:
                break
        rows = (await call(world, "dead list", name="game"))["rows"]
        assert is_old(rows) == ["ann", "ben", "cid"]
        assert await call(world, "dead drop", name="game", id=rows[0]["id"]) == {"letters": 1}
        with pytest.raises(CommandError, match="there is no dead letter"):
            await call(world, "dead drop", name="game", id=rows[0]["id"])
        assert await call(world, "dead drop", name="game") == {"letters": 2}
        assert (await call(world, "show", name="game"))["dead"] == 0


@pytest.mark.asyncio
async def test_who_says_that_it_is_gone_is_told_nothing_until_it_is_resumed() -> None:
    async with Receiver(lambda body: 410) as receiver, told(receiver, "account.created") as (world, _):
        await world.app.accounts.create("ann@localhost", "secret")
        await passing(world, lambda: len(receiver.requests) == 1)
        await world.advance(1)
        assert (await call(world, "show", name="game"))["state"] == "gone"
        assert not world.app.events.wants(CREATED)
        receiver.answer = lambda body: 200
        await call(world, "resume", name="game")
        await world.app.accounts.create("ben@localhost", "secret")
        assert is_old(await taken(world, receiver, 2)) == ["ann", "ben"]


@pytest.mark.asyncio
async def test_a_pause_collects() -> None:
    async with Receiver() as receiver, told(receiver, "account.created") as (world, _):
        assert (await call(world, "pause", name="game"))["state"] == "paused"
        await world.app.accounts.create("ann@localhost", "secret")
        await world.advance(5)
        assert receiver.requests == []
        await call(world, "resume", name="game")
        assert is_old(await taken(world, receiver, 1)) == ["ann"]


@pytest.mark.asyncio
async def test_what_a_receiver_asks_for_is_heeded() -> None:
    async with Receiver() as receiver, told(receiver, "account.created") as (world, _):
        receiver.answer = lambda body: web.Response(status=429, headers={"Retry-After": "60"})
        await world.app.accounts.create("ann@localhost", "secret")
        await passing(world, lambda: len(receiver.requests) == 1)
        receiver.answer = lambda body: 200
        await world.advance(55)
        assert len(receiver.requests) == 1
        await world.advance(6)
        assert is_old(await taken(world, receiver, 1)) == ["ann"]


@pytest.mark.asyncio
async def test_a_redirect_is_not_followed() -> None:
    async with Receiver() as other, Receiver() as receiver:
        receiver.answer = lambda body: web.Response(status=307, headers={"Location": other.url})
        async with told(receiver, "account.created") as (world, _):
            await world.app.accounts.create("ann@localhost", "secret")
            await passing(world, lambda: len(receiver.requests) >= 1)
            await world.advance(5)
            assert other.requests == []
            assert await call(world, "test", name="game") == {"status": 307, "taken": False}


@pytest.mark.asyncio
async def test_keys_are_rotated_and_both_sign_for_a_day() -> None:
    config = {"rotate_hours": 0.01}
    async with Receiver() as receiver, told(receiver, "account.created", config=config) as (world, old):
        new = (await call(world, "rotate", name="game"))["secret"]
        assert await call(world, "test", name="game") == {"status": 200, "taken": True}
        assert [is_signed(*receiver.requests[-1], key) for key in (old, new)] == [True, True]
        await world.advance(37)
        await call(world, "test", name="game")
        assert [is_signed(*receiver.requests[-1], key) for key in (old, new)] == [False, True]
        newest = (await call(world, "rotate", name="game", now=True))["secret"]
        await call(world, "test", name="game")
        assert [is_signed(*receiver.requests[-1], key) for key in (new, newest)] == [False, True]


@pytest.mark.asyncio
async def test_no_secret_is_shown_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with Receiver() as receiver, told(receiver, "account.created") as (world, secret):
        new = (await call(world, "rotate", name="game"))["secret"]
        audit = await world.app.commands.call("audit list", {})
        shown = f"{await call(world, 'list')} {await call(world, 'show', name='game')} {audit}"
        shown += repr(world.plugin("webhooks").known)
        for key in (secret, new):
            assert key not in shown
            assert key not in caplog.text


@pytest.mark.asyncio
async def test_beyond_the_bound_events_are_lost_and_counted_and_nobody_waits() -> None:
    config = {"waiting": 2}
    async with (
        Receiver(lambda body: 503) as receiver,
        told(receiver, "account.created", config=config) as (world, _),
    ):
        for name in ("ann", "ben", "cid", "dan"):
            await world.app.accounts.create(f"{name}@localhost", "secret")
        assert world.plugin("webhooks").lost.value == 2
        receiver.answer = lambda body: 200
        assert sorted(is_old(await taken(world, receiver, 2))) == ["ann", "ben"]
        await world.advance(3)
        await world.app.accounts.create("eve@localhost", "secret")
        assert is_old((await taken(world, receiver, 3))[2:]) == ["eve"]


@pytest.mark.asyncio
async def test_a_removed_subscription_leaves_nothing() -> None:
    async with Receiver(lambda body: 503) as receiver, told(receiver, "account.created") as (world, _):
        await world.app.accounts.create("ann@localhost", "secret")
        await passing(world, lambda: len(receiver.requests) == 1)
        await call(world, "remove", name="game")
        await world.advance(10)
        plugin = world.plugin("webhooks")
        for table in (plugin.subscriptions, plugin.outbox, plugin.cursors, plugin.dead):
            assert [row async for row in table.everything()] == []
        assert not plugin.couriers


@pytest.mark.asyncio
async def test_what_was_delivered_is_deleted_a_minute_later() -> None:
    async with Receiver() as receiver, told(receiver, "account.created") as (world, _):
        for name in ("ann", "ben"):
            await world.app.accounts.create(f"{name}@localhost", "secret")
        await taken(world, receiver, 2)
        await world.advance(70)
        assert [row async for row in world.plugin("webhooks").outbox.everything()] == []


@pytest.mark.asyncio
async def test_a_reload_loses_nothing() -> None:
    async with Receiver(lambda body: 503) as receiver, told(receiver, "account.created") as (world, _):
        await world.app.accounts.create("ann@localhost", "secret")
        await world.app.loader.reload("webhooks", world.app.config)
        await world.app.accounts.create("ben@localhost", "secret")
        receiver.answer = lambda body: 200
        assert sorted(is_old(await taken(world, receiver, 2))) == ["ann", "ben"]


@pytest.mark.asyncio
@pytest.mark.parametrize("table", ["outbox", "marks"])
async def test_who_waits_for_an_event_that_a_reload_cuts_off_learns_it(
    monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    async with Receiver() as receiver, told(receiver, "account.created") as (world, _):
        plugin = world.plugin("webhooks")

        reached: list[bool] = []

        async def fail(*_: object, **__: object) -> None:
            reached.append(True)
            await asyncio.get_running_loop().create_future()

        for module in (plugin.boxes, plugin.foreseen):
            monkeypatch.setattr(sys.modules[type(module).__module__], "CLOSE_SECONDS", 0.01)
        monkeypatch.setattr(getattr(plugin, table), "write", fail)
        making = asyncio.ensure_future(world.app.accounts.create("ann@localhost", "secret"))
        await until(lambda: bool(reached), world.settle)
        assert not making.done()
        await world.app.loader.reload("webhooks", world.app.config)
        await world.settle()
        assert isinstance(making.exception(), StoreError)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"url": "http://example.org/"}, None),
        ({"url": "ftp://example.org/"}, "must begin with https"),
        ({"url": "https://user:pw@example.org/"}, "no user"),
        ({"url": "https://10.1.2.3/"}, "may not be connected to"),
        ({"url": "https://[::ffff:10.1.2.3]/"}, "may not be connected to"),
        ({"url": "https://169.254.169.254/"}, "may not be connected to"),
        ({"event": []}, "say which events"),
        ({"event": ["accounts.*"]}, "no kind of event is meant"),
        ({"where": ["a b"]}, "is no condition"),
        ({"domain": ["a b"]}, "is not a domain"),
        ({"name": "A B"}, "a name is made of"),
    ],
)
async def test_what_is_wrong_is_refused(arguments: dict[str, Any], why: str | None) -> None:
    given = {"name": "one", "url": "https://example.org/", "event": ["account.*"], **arguments}
    async with World(plugins=("webhooks",), plugin_config=LOCAL) as world:
        if why is None:
            await call(world, "add", **given)
            with pytest.raises(CommandError, match="already"):
                await call(world, "add", **given)
        else:
            with pytest.raises(CommandError, match=why):
                await call(world, "add", **given)


@pytest.mark.asyncio
async def test_what_ended_unread_is_passed_over() -> None:
    async with Receiver(lambda body: 503) as receiver, told(receiver, "account.created") as (world, _):
        plugin = world.plugin("webhooks")
        await call(world, "pause", name="game")
        (courier,) = plugin.couriers.values()
        for number in range(BUCKET + 3):
            await world.app.accounts.provision(f"a{number}@localhost")
        await plugin.boxes.say()
        await plugin.outbox.delete(courier.subscription.id, plugin.boxes.writer, 0)  # as by its time
        receiver.answer = lambda body: 200
        await call(world, "resume", name="game")
        assert is_old(await taken(world, receiver, 3)) == [
            f"a{number}" for number in range(BUCKET, BUCKET + 3)
        ]


@pytest.mark.asyncio
async def test_an_account_that_is_refused_opens_no_circuit() -> None:
    def answer(body: dict[str, Any]) -> int:
        return 500 if any(it["account"].startswith("bad") for it in body["events"]) else 200

    async with Receiver(answer) as receiver, told(receiver, "account.created") as (world, _):
        await world.app.accounts.provision("bad@localhost")
        await passing(world, lambda: len(receiver.requests) >= 7)
        assert not (await call(world, "show", name="game"))["failing"]
        await world.app.accounts.provision("good@localhost")
        assert is_old(await taken(world, receiver, 1)) == ["good"]
        assert not (await call(world, "show", name="game"))["failing"]


@pytest.mark.one_node("each shows what it knows itself of a receiver, and any of them may deliver")
@pytest.mark.asyncio
async def test_a_receiver_that_takes_nothing_of_anybody_is_asked_less_and_less() -> None:
    async with Receiver(lambda body: 500) as receiver, told(receiver, "account.created") as (world, _):
        for number in range(20):
            await world.app.accounts.provision(f"a{number}@localhost")
        await world.advance(120)
        assert (await call(world, "show", name="game"))["failing"]
        assert len(receiver.requests) < 40
        assert world.plugin("webhooks").buried.value == 0
        receiver.answer = lambda body: 200
        await world.advance(120)
        assert sorted(is_old(await taken(world, receiver, 20))) == sorted(f"a{n}" for n in range(20))
        assert not (await call(world, "show", name="game"))["failing"]


class Failing:
    """Some writes of a store that works otherwise fail, after some that do not."""

    def __init__(self, store: Any, times: int, after: int = 0) -> None:
        self.real = store.write
        self.times = times
        self.after = after

    def __call__(self, rows: Any, *, ttl: float | None = None) -> Any:
        self.after -= 1
        if self.after >= 0:
            return self.real(rows, ttl=ttl)
        self.times -= 1
        if self.times >= 0:
            raise StoreUnavailable("for a test")
        return self.real(rows, ttl=ttl)


@pytest.mark.asyncio
async def test_who_causes_an_event_waits_until_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver() as receiver, told(receiver, "account.created") as (world, _):
        monkeypatch.setattr(world.app.store, "write", Failing(world.app.store, 3, after=1))
        making = asyncio.ensure_future(world.app.accounts.provision("ann@localhost"))
        await world.settle()
        assert not making.done()
        await world.advance(3)
        await making
        assert is_old(await taken(world, receiver, 1)) == ["ann"]


@pytest.mark.asyncio
async def test_who_was_erased_is_told_to_be_forgotten() -> None:
    async with Receiver() as receiver, told(receiver, "account.*") as (world, _):
        await world.app.commands.call("account erase", {"account": "carol@localhost"})
        events = await taken(world, receiver, 2)
        assert [(it["kind"], it["account"]) for it in events] == [
            ("account.removed", "carol@localhost"),
            ("account.erased", "carol@localhost"),
        ]


def test_a_network_that_is_none_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "xmppd.yaml"
    file.write_text(
        "plugins:\n  config:\n    webhooks:\n      allowed: [10.0.0.0/8, 10.0.0.1/8]\n      batch: 0\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(file, {}).plugin("webhooks", WebhooksConfig)
    said = str(caught.value)
    assert f"{file}:4:29: " in said
    assert "must be a network as 10.0.0.0/8" in said
    assert f"{file}:5:" in said


@pytest.mark.asyncio
async def test_messages_that_are_archived_are_told_in_order() -> None:
    async with (
        Receiver() as receiver,
        World(plugins=("archive", "offline", "webhooks"), plugin_config=LOCAL) as world,
    ):
        await call(world, "add", name="game", url=receiver.url, event=["message.routed"], bodies=True)
        alice, bob = await world.login("alice"), await world.login("bob")
        stanzas = [f"<message to='{bob.bare}' type='chat'><body>{n}</body></message>" for n in range(40)]
        await alice.send("".join(stanzas) + "<message to='carol@localhost'><body>kept</body></message>")
        events = await taken(world, receiver, 41)
        if len(world.apps) > 1:  # who is elsewhere is told of by another node
            events.sort(key=lambda it: it["data"]["outcome"])
        assert [it["data"]["body"] for it in events] == [*map(str, range(40)), "kept"]
        assert {it["data"]["outcome"] for it in events[:40]} == {"delivered"}
        assert events[40]["data"]["outcome"] == "kept"
        assert len(await bob.receive_all()) == 40
