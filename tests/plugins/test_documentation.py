"""The examples of docs/plugins.md work."""

import hashlib
import inspect
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from keyserver import P256, public
from keyserver import token as issued
from sasl2 import login, opened, tagged

from xmppd import hooks, ns, plugin
from xmppd.finding import import_file
from xmppd.server import Server
from xmppd.testing import START, World, refusal

GUIDE = (Path(__file__).parent.parent.parent / "docs" / "plugins.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^`(\w+)\.py`\n\n```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL))
PLUGINS = sorted(name for name in EXAMPLES if not name.startswith("test_"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all examples of the guide."""
    for name, text in EXAMPLES.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    return tmp_path


def test_every_example_has_a_name() -> None:
    assert GUIDE.count("```python") == len(EXAMPLES) == 17


def test_the_guide_tells_all_that_there_is() -> None:
    words = set(re.findall(r"\w+", GUIDE))
    names = [*plugin.__all__, *(hook.name for hook in hooks.ALL)]
    names += [name for owner in (Server, plugin.Plugin) for name in vars(owner) if not name.startswith("_")]
    assert [name for name in names if name not in words] == []


def functions_of(name: str, folder: Path) -> list[Callable[[], Coroutine[Any, Any, None]]]:
    module = import_file(name, folder / f"{name}.py")
    return [
        test for key, test in vars(module).items() if key.startswith("test_") and inspect.isfunction(test)
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - set(PLUGINS)))
async def test_the_tests_of_the_guide_pass(name: str, folder: Path) -> None:
    tests = functions_of(name, folder)
    assert tests
    for test in tests:
        await test()


@pytest.mark.asyncio
async def test_the_plugins_of_the_guide_work_together(folder: Path) -> None:
    config = {"dice": {"sides": 1}, "guests": {"keys": [public(P256[0])], "jwks_uri": ""}}
    token = {"name": "game", "sha256": hashlib.sha256(b"secret").hexdigest(), "scopes": ["players"]}
    async with World(
        plugins=("disco", *PLUGINS),
        plugin_folders=(folder,),
        plugin_config=config,
        settings={"http": {"tokens": [token]}},
    ) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        dice = await alice.ask("get", "<roll xmlns='urn:xmppd:dice:0' count='3'/>", to="localhost")
        assert dice[0].text == "1 1 1"
        refused = await alice.ask("get", "<roll xmlns='urn:xmppd:dice:0' count='9'/>", to="localhost")
        assert refusal(refused) == "modify bad-request"
        body = b'["alice", "nobody"]'
        response = await world.http("POST", "/players/localhost/online", token="secret", body=body)
        assert (response.status, response.body) == (200, b'{"alice": 1, "nobody": 0}')
        for key, status in ((P256[0], 200), (P256[1], 401)):
            body = issued(key, START + 60).encode()
            assert (await world.http("POST", "/guests", body=body)).status == status
        await alice.send("<message to='any@echo.localhost' id='e'><body>hello?</body></message>")
        await alice.expect(
            f"<message from='any@echo.localhost' to='{alice.jid}' id='e'><body>hello?</body></message>"
        )
        said = await alice.ask("get", "<what xmlns='urn:x'/>", to="any@echo.localhost/x")
        assert (said[0].tag, said[0].get("to")) == ("{urn:xmppd:echo:0}said", "any@echo.localhost/x")
        ticket = (await world.app.commands.call("tickets sell", {"name": "zoe"}))["ticket"]
        for expected in ("success", "failure"):
            client = world.connect()
            await client.open()
            assert (await client.authenticate("zoe", ticket)).tag.endswith(expected)
        await world.app.commands.call("pins give", {"name": "carol", "pin": "4711"})
        client = world.connect()
        await client.open()
        for pin, answer in (("4712", "refused"), ("4711", "welcome")):
            await client.send(f"<login xmlns='urn:xmppd:pins:0' name='carol'>{pin}</login>")
            assert (await client.receive()).tag == f"{{urn:xmppd:pins:0}}{answer}"
        failed = sum(app.reports.counts["login-failed"] for app in world.apps)
        assert failed == 2, "the ticket and the number"
        await alice.send("<presence to='any@echo.localhost'/>")
        await alice.expect(f"<presence from='any@echo.localhost' to='{alice.jid}'/>")
        items = await alice.ask("get", f"<query xmlns='{ns.DISCO_ITEMS}'/>", to="localhost")
        assert [item.attrib for item in items[0]] == [{"jid": "echo.localhost", "name": "Echo"}]
        about = (await alice.ask("get", f"<query xmlns='{ns.DISCO_INFO}'/>", to="echo.localhost"))[0]
        assert about[0].attrib == {"category": "component", "type": "echo", "name": "Echo"}
        assert "urn:xmppd:echo:0" in [feature.get("var") for feature in about]
        about = (await alice.ask("get", f"<query xmlns='{ns.DISCO_INFO}'/>", to="localhost"))[0]
        assert {"category": "store", "type": "book", "name": "Library"} in [it.attrib for it in about]
        assert "urn:xmppd:library:0" in [feature.get("var") for feature in about]
        for kind in (ns.DISCO_INFO, ns.DISCO_ITEMS):
            node = "books/hamlet" if kind == ns.DISCO_INFO else "books"
            book = await alice.ask("get", f"<query xmlns='{kind}' node='{node}'/>", to="localhost")
            assert book[0][0].get("name") == "Hamlet"
        duel = "<duel xmlns='urn:xmppd:duel:0'/>"
        assert (await alice.ask("set", duel, to="localhost"))[0].get("seconds") == "300"
        assert refusal(await alice.ask("set", duel, to="localhost")) == "cancel conflict"
        await alice.send(f"<message to='{bob.jid}'><body>HELLO</body></message>")
        assert refusal(await alice.receive()) == "modify policy-violation"
        await alice.send(f"<message to='{bob.jid}'><body>oh darn</body></message>")
        await bob.expect(f"<message to='{bob.jid}' from='{alice.jid}'><body>oh d***</body></message>")
        await alice.send("<inactive xmlns='urn:xmppd:active:0'/>")
        assert world.plugin("active").idle[alice.session] and not world.plugin("active").idle[bob.session]
        await world.app.commands.call("nicks give", {"account": "alice@localhost", "nick": "Al"})
        greet = await alice.ask("get", "<greet xmlns='urn:xmppd:greeter:0'/>", to="localhost")
        assert greet[0].text == "Hello, Al!"
        await greeted(world)
        await world.advance(310)
        assert world.plugin("duel").duels == {}
        for player, points in (("alice", 3), ("bob", 5)):
            await world.plugin("league").points.put({"player": player, "points": points})
        await world.advance(3600)
        assert [league.table for league in world.plugins("league")] == [["bob", "alice"]] * len(world.apps)


async def greeted(world: World) -> None:
    """A client that logs in by XEP-0388 is told the news, and is silent."""
    client = await opened(world)
    more = tagged("Phone", "<silent xmlns='urn:xmppd:greeting:0'/>") + "<news xmlns='urn:xmppd:greeting:0'/>"
    success = await login(client, "carol", more)
    assert success.findtext("{urn:xmppd:greeting:0}news") == "Welcome, carol@localhost!"
    node = world.apps.index(client.app)
    assert world.plugin("greeting", node).silent[client.session]
