"""Services: hosts below a domain that a plugin answers for, as origin and target of every stanza."""

from pathlib import Path

import pytest

from xmppd import ns
from xmppd.plugin import element
from xmppd.testing import Client, World, refusal

MIRROR = """
from xmppd.plugin import Origin, Plugin, Stanza, StanzaError, element, service


class Mirror(Plugin):
    async def start(self) -> None:
        self.seen = []

    @service("mirror", category="component", type="mirror", title="Mirror", features=("urn:xmppd:mirror:0",))
    async def take(self, origin: Origin, stanza: Stanza, to: object) -> object:
        self.seen.append((stanza.kind, stanza.type, stanza.attrs["from"], str(to)))
        if stanza.kind == "iq":
            return element("{urn:xmppd:mirror:0}looked")
        if stanza.kind == "message" and b"broken" in stanza.raw:
            raise StanzaError("not-acceptable", "It broke.")
        answer = {"from": str(to), "to": stanza.attrs["from"]}
        if stanza.type:
            answer["type"] = stanza.type
        if stanza.type == "subscribe":
            answer["type"] = "subscribed"
        await self.server.send(element(f"{{jabber:client}}{stanza.kind}", answer))
        return None
"""

WATCH = """
from xmppd.plugin import Origin, Plugin, Stanza, element, service


class Watch(Plugin):
    async def start(self) -> None:
        self.seen = []

    @service("watch")
    async def take(self, origin: Origin, stanza: Stanza, to: object) -> None:
        self.seen.append((stanza.type, stanza.attrs["from"], str(to)))
        if stanza.type == "subscribe":
            answer = {"from": str(to), "to": stanza.attrs["from"], "type": "subscribed"}
            await self.server.send(element("{jabber:client}presence", answer))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mirror.py").write_text(MIRROR)
    (tmp_path / "watch.py").write_text(WATCH)
    return tmp_path


def world_of(folder: Path) -> World:
    return World(plugins=("disco", "ping", "mirror", "watch"), plugin_folders=(folder,))


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["mirror.localhost", "me@mirror.localhost", "Me@MIRROR.localhost/x"])
async def test_a_message_is_handed_over_and_answered(folder: Path, to: str) -> None:
    async with world_of(folder) as world:
        alice = await world.login("alice")
        await alice.send(f"<message to='{to}' type='chat'><body>x</body></message>")
        normal = to.replace("MIRROR", "mirror").replace("Me", "me")
        await alice.expect(f"<message from='{normal}' to='{alice.jid}' type='chat'/>")
        assert world.plugin("mirror").seen == [("message", "chat", alice.jid, normal)]


@pytest.mark.asyncio
async def test_a_service_refuses_like_anybody(folder: Path) -> None:
    async with world_of(folder) as world:
        alice = await world.login("alice")
        await alice.send("<message to='mirror.localhost' id='b'><body>broken</body></message>")
        assert refusal(await alice.receive()) == "modify not-acceptable"
        await alice.send("<message to='elsewhere.localhost' id='b'><body>x</body></message>")
        assert refusal(await alice.receive()) == "cancel remote-server-not-found"


@pytest.mark.asyncio
async def test_directed_presence_reaches_a_service_and_so_does_its_end(folder: Path) -> None:
    async with world_of(folder) as world:
        alice = await world.login("alice")
        await alice.send("<presence to='room@mirror.localhost/alice'/>")
        await alice.expect(f"<presence from='room@mirror.localhost/alice' to='{alice.jid}'/>")
        await alice.drop()
        assert world.plugin("mirror").seen == [
            ("presence", None, alice.jid, "room@mirror.localhost/alice"),
            ("presence", "unavailable", alice.jid, "room@mirror.localhost/alice"),
        ]


@pytest.mark.asyncio
async def test_an_account_subscribes_to_an_address_of_a_service(folder: Path) -> None:
    async with world_of(folder) as world:
        alice = await world.login("alice")
        await alice.send("<presence type='subscribe' to='bot@mirror.localhost'/>")
        item = "<item jid='bot@mirror.localhost' subscription='{0}'{1}/>"
        query = f"<query xmlns='{ns.ROSTER}' ver='*'>{{0}}</query>"
        push = f"<iq type='set' id='*' to='{alice.jid}'>{{0}}</iq>"
        await alice.expect(push.format(query.format(item.format("none", " ask='subscribe'"))))
        received = await alice.receive_all()
        assert [(tree.get("type"), tree.get("from")) for tree in received] == [
            ("subscribed", "bot@mirror.localhost"),
            ("set", None),
        ]
        assert received[1][0][0].get("subscription") == "to"


@pytest.mark.asyncio
async def test_discovery_shows_a_service_by_itself(folder: Path) -> None:
    async with world_of(folder) as world:
        alice = await world.login("alice")
        items = await alice.ask("get", f"<query xmlns='{ns.DISCO_ITEMS}'/>", "localhost")
        assert {"jid": "mirror.localhost", "name": "Mirror"} in [item.attrib for item in items[0]]
        about = (await alice.ask("get", f"<query xmlns='{ns.DISCO_INFO}'/>", "mirror.localhost"))[0]
        assert about[0].attrib == {"category": "component", "type": "mirror", "name": "Mirror"}
        features = {child.get("var") for child in about[1:]}
        assert {"urn:xmppd:mirror:0", ns.PING, ns.DISCO_INFO} <= features
        pong = await alice.ask("get", f"<ping xmlns='{ns.PING}'/>", "mirror.localhost")
        assert pong.get("type") == "result"


@pytest.mark.asyncio
async def test_what_it_returns_answers_an_iq(folder: Path) -> None:
    async with world_of(folder) as world:
        alice = await world.login("alice")
        await alice.send(
            "<iq type='get' id='i' to='x@mirror.localhost'><look xmlns='urn:xmppd:mirror:0'/></iq>"
        )
        await alice.expect(
            f"<iq type='result' id='i' from='x@mirror.localhost' to='{alice.jid}'>"
            "<looked xmlns='urn:xmppd:mirror:0'/></iq>"
        )
        await alice.send("<iq type='result' id='i' to='x@mirror.localhost'/>")
        await alice.expect_nothing()
        await alice.send("<iq type='get' id='i' to='x@mirror.localhost'/>")
        assert refusal(await alice.receive()) == "modify bad-request"


@pytest.mark.asyncio
async def test_the_configuration_gives_it_another_label(folder: Path) -> None:
    plugins = {"enabled": ("mirror",), "folders": (str(folder),), "hosts": {"mirror": "glass"}}
    async with World(settings={"plugins": plugins}) as world:
        alice = await world.login("alice")
        await alice.send("<message to='glass.localhost'/>")
        await alice.expect(f"<message from='glass.localhost' to='{alice.jid}'/>")
        await alice.send("<message to='mirror.localhost'/>")
        assert refusal(await alice.receive()) == "cancel remote-server-not-found"


@pytest.mark.asyncio
async def test_two_services_of_one_name_do_not_load(folder: Path) -> None:
    (folder / "second.py").write_text(MIRROR)
    with pytest.raises(Exception, match=r"mirror\.localhost"):
        async with World(plugins=("mirror", "second"), plugin_folders=(folder,)):
            pass


def seen_by(world: World) -> list[tuple[str | None, str, str]]:
    """What presences the service was given, of what type, from whom and for whom; they are forgotten."""
    seen: list[tuple[str | None, str, str]] = []
    for watch in world.plugins("watch"):
        seen += watch.seen
        watch.seen = []
    return seen


BOT = "bot@watch.localhost"


async def let_it_follow(world: World, alice: Client) -> None:
    """Have an address of the service see the client's presence."""
    request = element(f"{{{ns.CLIENT}}}presence", {"from": BOT, "to": "alice@localhost", "type": "subscribe"})
    await world.plugin("watch").server.send(request)
    await alice.send(f"<presence type='subscribed' to='{BOT}'/>")
    await alice.receive_all()


@pytest.mark.asyncio
async def test_an_address_of_a_service_follows_an_account(folder: Path) -> None:
    async with world_of(folder) as world:
        alice = await world.login("alice")
        await let_it_follow(world, alice)
        granted = [("subscribed", "alice@localhost", BOT), (None, alice.jid, BOT)]
        assert seen_by(world) == granted
        await alice.send("<presence><show>away</show></presence>")
        await alice.receive_all()
        assert seen_by(world) == [(None, alice.jid, BOT)]
        phone = await world.login("alice", "phone")
        await phone.receive_all()
        assert seen_by(world) == [(None, phone.jid, BOT)]
        await phone.drop()
        assert seen_by(world) == [("unavailable", phone.jid, BOT)]
        await alice.send(f"<presence type='unsubscribed' to='{BOT}'/>")
        await alice.receive_all()
        assert seen_by(world) == [("unavailable", alice.jid, BOT), ("unsubscribed", "alice@localhost", BOT)]
        await alice.send("<presence/>")
        await alice.receive_all()
        assert seen_by(world) == []


@pytest.mark.asyncio
async def test_an_occupant_is_told_of_an_end_beside_its_room(folder: Path) -> None:
    async with world_of(folder) as world:
        alice = await world.login("alice")
        await let_it_follow(world, alice)
        await alice.send(f"<presence to='{BOT}/alice'/>")
        await alice.send(f"<presence to='{BOT}'/>")
        await alice.receive_all()
        seen_by(world)
        await alice.drop()
        assert sorted(seen_by(world)) == [
            ("unavailable", alice.jid, BOT),
            ("unavailable", alice.jid, f"{BOT}/alice"),
        ]


@pytest.mark.asyncio
async def test_who_logs_in_asks_a_service_for_its_presence(folder: Path) -> None:
    async with world_of(folder) as world:
        alice = await world.login("alice")
        await alice.send(f"<presence type='subscribe' to='{BOT}'/>")
        await alice.receive_all()
        seen_by(world)
        phone = await world.login("alice", "phone")
        await phone.receive_all()
        assert seen_by(world) == [("probe", phone.jid, BOT)]


@pytest.mark.asyncio
async def test_what_answers_a_probe_of_a_service_is_handed_to_it(folder: Path) -> None:
    async with world_of(folder) as world:
        alice = await world.login("alice")
        await let_it_follow(world, alice)
        seen_by(world)
        probe = {"from": f"{BOT}/x", "to": "alice@localhost", "type": "probe"}
        await world.plugin("watch").server.send(element(f"{{{ns.CLIENT}}}presence", probe))
        await alice.expect_nothing()
        assert seen_by(world) == [(None, alice.jid, f"{BOT}/x")]
        probe["from"] = "stranger@watch.localhost"
        await world.plugin("watch").server.send(element(f"{{{ns.CLIENT}}}presence", probe))
        await alice.expect_nothing()
        assert seen_by(world) == [("unsubscribed", "alice@localhost", "stranger@watch.localhost")]
