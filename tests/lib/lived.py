"""An account that did everything which leaves something behind: a row in every table of a person."""

from __future__ import annotations

from xmppd.core.tokens import TOKENS
from xmppd.testing import Client, World

PLUGINS = (
    "archive", "offline", "announce", "blocking", "private", "vcard", "last", "push", "carbons", "privacy",
)  # fmt: skip
MARKABLE = "<markable xmlns='urn:xmpp:chat-markers:0'/>"
DISPLAYED = "<displayed xmlns='urn:xmpp:chat-markers:0' id='m'/>"
SUM = "3ba3f5f43b92602683c19aee62a20342b084dd5971ddd33808d81a328879a547"
TOKEN = "a" * 32
HTTP = {"http": {"tokens": [{"name": "back-end", "sha256": SUM, "scopes": ["*"]}]}}


async def befriended(world: World, one: str, other: str) -> None:
    """Both see each other."""
    call = world.app.commands.call
    await call("roster befriend", {"one": f"{one}@localhost", "other": f"{other}@localhost"})
    await world.settle()


async def lived(world: World, who: str = "zoe") -> tuple[Client, Client]:
    """Zoë's life: she is the account `who`, with contacts bob and carol. Bob is there at its end. What would
    take a service of push notifications, or a second login, is written by hand.
    """
    me, call = f"{who}@localhost", world.app.commands.call
    await befriended(world, who, "bob")
    await befriended(world, who, "carol")
    await call("announce motd", {"text": "hello"})
    zoe, bob = await world.login(who), await world.login("bob")
    await zoe.ask("set", "<vCard xmlns='vcard-temp'><FN>Zoe</FN></vCard>")
    await zoe.ask("set", f"<query xmlns='jabber:iq:private'><a xmlns='urn:a'>{me}</a></query>")
    await zoe.ask("set", "<block xmlns='urn:xmpp:blocking'><item jid='mallory@localhost'/></block>")
    await bob.ask("set", f"<block xmlns='urn:xmpp:blocking'><item jid='{me}/x'/></block>")
    report = (
        "<block xmlns='urn:xmpp:blocking'><item jid='spam@example.org'>"
        "<report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'>"
        f"<text>to {me}</text></report></item></block>"
    )
    await zoe.ask("set", report)
    await zoe.send("<message to='bob@localhost' type='chat'><body>from zoe</body></message>")
    await bob.send(f"<message to='{me}' type='chat'><body>to zoe</body></message>")
    await bob.send(f"<message to='{me}' type='chat' id='m'><body>read</body>{MARKABLE}</message>")
    await zoe.send(f"<message to='bob@localhost' type='chat'>{DISPLAYED}</message>")
    await zoe.send("<message to='carol@localhost' type='chat'><body>later</body></message>")
    await world.settle()
    await zoe.send("<presence type='unavailable'><status>bye</status></presence>")
    await zoe.send("</stream:stream>")
    await world.settle()
    archive = world.plugin("archive")
    archive.crowd.tell(await archive.uid_of(me), world.app.server.ids.time.read())
    await world.settle()
    await bob.send(f"<message to='{me}' type='chat'><body>waits</body></message>")
    await world.settle()
    registration = {
        "account": me,
        "service": "app.example",
        "node": "n1",
        "options": "",
        "at": 1.0,
    }
    await world.plugin("push").registrations.put(registration)
    await world.app.store.put(TOKENS, {"account": me, "client": "phone", "device": "Zoe's"})
    return zoe, bob
