"""Stream management and client state together with a login and its resource (XEP-0388, 0386, 0198, 0352)."""

import pytest
from managing import SM, bodies, state
from sasl2 import BIND, PHONE, B, S, agent, identifier, login, opened, plain, request, tagged
from several import several

from plugins.archive import BIND_SECONDS
from xmppd import ns
from xmppd.errors import StoreUnavailable
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio
ENABLE = f"<enable xmlns='{ns.SM}' resume='true'/>"
FEATURES = f"{{{ns.STREAM}}}features"


async def enabled(world: World, node: int | None = None) -> tuple[Client, str]:
    """A client with a session that can be resumed, and its id."""
    client = await opened(world, node=node)
    success = await login(client, "alice", tagged("Phone", ENABLE) + agent(PHONE))
    found = success.find(f"{B}bound/{SM}enabled")
    assert found is not None and found.get("resume") == "true"
    return client, found.get("id", "")


def resume(id: str, h: int = 0) -> str:
    return f"<resume xmlns='{ns.SM}' previd='{id}' h='{h}'/>"


async def test_what_is_offered() -> None:
    async with World() as world:
        client = world.connect()
        inline = (await client.open()).find(f"{S}authentication/{S}inline")
        assert inline is not None and inline.find(f"{SM}sm") is not None
        names = [one.get("var") for one in inline.findall(f"{B}bind/{B}inline/{B}feature")]
        assert ns.SM in names and names.count(ns.CSI) == 1
        await client.send(request("PLAIN", plain("alice"), BIND))
        await client.receive()
        assert (await client.receive()).find(f"{SM}sm") is not None, "a session may enable it still"


async def test_a_session_that_has_it_is_not_offered_it() -> None:
    async with World() as world:
        client = await opened(world, node=0)
        await client.send(request("PLAIN", plain("alice"), tagged("Phone", ENABLE) + agent(PHONE)))
        enabled = (await client.receive()).find(f"{B}bound/{SM}enabled")
        assert enabled is not None
        features = await client.receive()
        assert features.tag == FEATURES and features.find(f"{SM}sm") is None
        await client.drop()
        again = await opened(world, node=len(world.apps) - 1)
        await again.send(request("PLAIN", plain("alice"), resume(enabled.get("id", "")) + agent(PHONE)))
        assert (await again.receive()).find(f"{SM}resumed") is not None
        features = await again.receive()
        assert features.tag == FEATURES and features.find(f"{SM}sm") is None


async def test_it_is_enabled_with_the_resource_and_counts_from_the_first_stanza_on() -> None:
    async with World() as world:
        client, _ = await enabled(world)
        assert (state(client).sent, state(client).received) == (0, 0)
        await client.send(f"<message to='{client.jid}'><body>one</body></message><r xmlns='{ns.SM}'/>")
        came = await client.receive_all()
        assert bodies(came) == ["one"] and state(client).sent == 1
        assert [one.get("h") for one in came if one.tag == f"{SM}a"] == ["1"]


async def test_a_session_is_resumed_in_the_same_round_trip() -> None:
    async with World() as world:
        bob = await world.login("bob")
        client, id = await enabled(world, node=0)
        await client.drop()
        await bob.send(f"<message to='{client.jid}' type='chat'><body>missed</body></message>")
        again = await opened(world, node=0)
        await again.send(request("PLAIN", plain("alice"), resume(id) + BIND + agent(PHONE)))
        success = await again.receive()
        assert identifier(success) == client.jid
        found = success.find(f"{SM}resumed")
        assert found is not None and (found.get("previd"), found.get("h")) == (id, "0")
        assert success.find(f"{B}bound") is None, "the bind is ignored"
        features = await again.receive()
        assert features.tag == FEATURES
        assert bodies(await again.receive_all()) == ["missed"], "behind the features"
        await again.send(f"<message to='{client.jid}'><body>on</body></message>")
        assert bodies(await again.receive_all()) == ["on"]
        assert sum(client.jid in app.sessions.by_full for app in world.apps) == 1


async def test_what_cannot_be_resumed_is_bound_anew() -> None:
    async with World() as world:
        client = await opened(world)
        await client.send(request("PLAIN", plain("alice"), resume("unknown") + tagged("Phone", ENABLE)))
        success = await client.receive()
        failed = success.find(f"{SM}failed")
        assert failed is not None and failed[0].tag == f"{{{ns.STANZA_ERRORS}}}item-not-found"
        assert success.find(f"{B}bound/{SM}enabled") is not None
        assert identifier(success).startswith("alice@localhost/Phone.")
        order = [child.tag for child in success]
        assert order.index(f"{SM}failed") < order.index(f"{B}bound")


async def test_nobody_resumes_the_session_of_another_account() -> None:
    async with World() as world:
        client, id = await enabled(world, node=0)
        await client.drop()
        other = await opened(world, node=0)
        await other.send(request("PLAIN", plain("bob"), resume(id)))
        success = await other.receive()
        assert identifier(success) == "bob@localhost" and success.find(f"{SM}failed") is not None


async def test_a_count_too_high_ends_the_stream() -> None:
    async with World() as world:
        client, id = await enabled(world, node=0)
        await client.drop()
        again = await opened(world, node=0)
        await again.send(request("PLAIN", plain("alice"), resume(id, 7)))
        await again.expect_closed("undefined-condition")


async def test_a_failed_login_resumes_nothing() -> None:
    async with World() as world:
        client, id = await enabled(world, node=0)
        await client.drop()
        again = await opened(world, node=0)
        await again.send(request("PLAIN", plain("alice", "wrong"), resume(id)))
        assert (await again.receive()).tag == f"{S}failure"
        assert state(client).stream is None


async def test_a_session_may_begin_inactive() -> None:
    async with World() as world:
        bob = await world.login("bob")
        client = await opened(world)
        await login(client, "alice", tagged("Phone", f"<inactive xmlns='{ns.CSI}'/>"))
        await client.send("<presence/>")
        await client.receive_all()
        state_ = "<composing xmlns='http://jabber.org/protocol/chatstates'/>"
        await bob.send(f"<message to='{client.jid}' type='chat'>{state_}</message>")
        assert await client.receive_all() == [], "it waits"
        await client.send(f"<active xmlns='{ns.CSI}'/>")
        assert len(await client.receive_all()) == 1


async def test_the_ends_of_the_archive_come_with_the_resource() -> None:
    """XEP-0386 3.2."""
    metadata = f"{B}bound/{{{ns.MAM}}}metadata"
    async with World(plugins=("archive",), settings={"auth": {"anonymous": True}}) as world:
        first = await login(await opened(world), "alice", BIND)
        found = first.find(metadata)
        assert found is not None and len(found) == 0, "there is nothing yet"
        bob = await world.login("bob")
        await bob.send("<message to='alice@localhost' type='chat'><body>hi</body></message>")
        success = await login(await opened(world), "alice", BIND)
        ends = success.findall(f"{metadata}/*")
        assert [end.tag for end in ends] == [f"{{{ns.MAM}}}start", f"{{{ns.MAM}}}end"]
        assert ends[0].get("id") == ends[1].get("id") and ends[0].get("timestamp")
        guest = await login(await opened(world), "", BIND, mechanism="ANONYMOUS", initial="")
        assert guest.find(f"{B}bound") is not None and guest.find(metadata) is None


async def test_an_archive_that_cannot_be_asked_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(plugins=("archive",)) as world:

        async def fails(account: str, seconds: float) -> None:
            raise StoreUnavailable("no")

        for plugin in world.plugins("archive"):
            monkeypatch.setattr(plugin, "_metadata", fails)
        success = await login(await opened(world), "alice", BIND)
        bound = success.find(f"{B}bound")
        assert bound is not None and len(bound) == 0


async def test_a_node_that_hangs_delays_no_login(redis_url: str) -> None:
    async with World(plugins=("archive",), settings=several(redis_url), nodes=2) as world:
        world.plugin("archive", 1).order.hear = lambda *_: None
        client = await opened(world, node=0)
        await client.send(request("PLAIN", plain("alice"), BIND))
        await world.advance(BIND_SECONDS)
        success = await client.receive()
        bound = success.find(f"{B}bound")
        assert bound is not None and len(bound) == 0


async def test_whom_the_account_has_blocked_is_known_from_the_first_moment_on() -> None:
    async with World(plugins=("blocking",)) as world:
        first = await world.login("alice")
        await first.ask("set", f"<block xmlns='{ns.BLOCKING}'><item jid='bob@localhost'/></block>")
        await first.drop()
        for app in world.apps:
            app.blocks.release()  # as if it had just started
        bob = await world.login("bob")
        alice = await opened(world)
        await login(alice, "alice", BIND)
        await alice.send("<presence/>")
        await alice.receive_all()
        await bob.send("<message to='alice@localhost' type='chat'><body>hi</body></message>")
        await alice.expect_nothing()
