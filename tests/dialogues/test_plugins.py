"""What plugins add to streams and sessions, seen from a client."""

import base64
from pathlib import Path

import pytest

from xmppd import ns
from xmppd.testing import PASSWORD, STREAM_HEADER, World

TOKEN = '''
from xmppd.plugin import Channel, Identity, Plugin, SaslError, Success

class Exchange:
    def step(self, data):
        if data != b"let me in":
            raise SaslError("not-authorized")
        return Success(Identity("alice"))

class TokenMechanism:
    name, priority, needs_tls = "X-TOKEN", 200, False
    def available(self, channel: Channel) -> bool:
        return True
    def start(self, channel: Channel) -> Exchange:
        return Exchange()

class Token(Plugin):
    """Login by token."""
    def mechanisms(self):
        return [TokenMechanism()]
'''

SLOW_HELLO = '''
import asyncio
from xmppd import hooks
from xmppd.plugin import Plugin

class Slow(Plugin):
    """Takes its time with every session."""
    @hooks.session_bound
    async def wait(self, session):
        for _ in range(5):
            await asyncio.sleep(0)

    @hooks.message_sent.at(hooks.POLICY)
    async def think(self, session, message):
        await asyncio.sleep(0)

    @hooks.message_sent.at(hooks.FILTER)
    def drop(self, session, message):
        return hooks.DROP if b"forget" in message.raw else message
'''


def folder_with(tmp_path: Path, name: str, text: str) -> tuple[Path, ...]:
    """A plugin folder with one plugin."""
    (tmp_path / f"{name}.py").write_text(text)
    return (tmp_path,)


@pytest.mark.asyncio
async def test_a_plugin_adds_a_sasl_mechanism(tmp_path: Path) -> None:
    async with World(plugins=("token",), plugin_folders=folder_with(tmp_path, "token", TOKEN)) as world:
        client = world.connect()
        features = await client.open()
        names = [mechanism.text for mechanism in features.iter(f"{{{ns.SASL}}}mechanism")]
        assert "X-TOKEN" in names
        for token, answer in (("wrong", "failure"), ("let me in", "success")):
            text = base64.b64encode(token.encode()).decode()
            await client.send(f"<auth xmlns='{ns.SASL}' mechanism='X-TOKEN'>{text}</auth>")
            assert (await client.receive()).tag == f"{{{ns.SASL}}}{answer}"
        await client.open()
        await client.bind("game")
        assert client.jid == "alice@localhost/game"


@pytest.mark.asyncio
async def test_stanzas_that_wait_keep_their_order(tmp_path: Path) -> None:
    async with World(plugins=("slow",), plugin_folders=folder_with(tmp_path, "slow", SLOW_HELLO)) as world:
        bob, client = await world.login("bob"), world.connect()
        header = STREAM_HEADER.format(domain="localhost", more="")
        plain = base64.b64encode(f"\0alice\0{PASSWORD}".encode()).decode()
        messages = "".join(
            f"<message to='{bob.jid}' id='{n}'><body>{'forget' if n % 3 == 0 else n}</body></message>"
            for n in range(20)
        )
        await client.send(
            f"{header}<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{plain}</auth>{header}"
            f"<iq type='set' id='b'><bind xmlns='{ns.BIND}'/></iq>{messages}"
        )
        received = [int(stanza.get("id", "")) for stanza in await bob.receive_all()]
        assert received == [n for n in range(20) if n % 3]
