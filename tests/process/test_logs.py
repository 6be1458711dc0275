"""What a run leaves in its log: lines of JSON, and no secret."""

import base64
import signal

import pytest

from xmppd import ns

BODY = "the-treasure-is-under-the-oak"
WRONG = "guessed-at-random"


def forms(secret):
    """A secret as it may look in a log."""
    yield secret
    for user in ("alice", "bob", ""):
        for text in (f"\0{user}\0{secret}", secret):
            yield base64.b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.asyncio
async def test_neither_bodies_nor_passwords_are_logged(serve):
    server = await serve(log={"level": "debug"}, auth={"attempts": 2})
    alice, bob = await server.login("alice"), await server.login("bob")
    body = f"<body>{BODY}</body>"
    await alice.send(f"<message to='{bob.jid}' type='chat'>{body}</message>")
    await alice.send(f"<message to='carol@localhost' type='chat'>{body}</message>")  # kept
    await alice.send(f"<message to='{bob.jid}x' type='normal'>{body}</message>")  # refused
    await alice.send(f"<message to='a@b@c' type='chat'>{body}</message>")
    await alice.send(f"<presence><status>{BODY}</status></presence>")
    await alice.ask("set", f"<query xmlns='{ns.PRIVATE}'><notes xmlns='x:y'>{BODY}</notes></query>")
    await alice.ping()
    assert BODY in await bob.bodies()
    carol = await server.login("carol")
    assert await carol.bodies() == [BODY]
    await carol.send(f"<message to='{bob.jid}'><body>{BODY}<!-- --></body></message>")  # ends the stream
    assert await carol.end()

    guesser = await server.connect()
    await guesser.open()
    assert (await guesser.authenticate("alice", WRONG)).tag == f"{{{ns.SASL}}}failure"
    assert (await guesser.authenticate("alice", WRONG)).tag == f"{{{ns.SASL}}}failure"
    assert await guesser.end() == "policy-violation"
    broken = await server.connect()
    await broken.open()
    await broken.send(f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{WRONG}</auth>")
    await broken.receive()
    server.command("user passwd", account="bob@localhost", password=WRONG)
    with pytest.raises(Exception, match="treasure"):
        server.command("user add", account=f"{BODY} @localhost", password=WRONG)
    server.signal(signal.SIGHUP)
    await server.logged("reloaded")
    server.signal(signal.SIGTERM)
    for client in (alice, bob, carol, guesser, broken):
        client.hang_up()
    assert await server.ended() == 0

    records = server.records()  # every line is JSON
    assert {"ts", "level", "event"} <= set.intersection(*(set(record) for record in records))
    assert {"listening", "login", "reloaded", "stopping", "stopped"} <= {
        record["event"] for record in records
    }
    for secret in (BODY, WRONG, server.password):
        for form in forms(secret):
            assert form not in server.log
