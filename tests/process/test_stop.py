"""SIGTERM: nobody comes in, everybody is told, what was accepted is kept, and the end comes in time."""

import signal
import time

import pytest
from patience import PATIENCE

from xmppd import ns


@pytest.mark.asyncio
async def test_clients_are_told_and_writes_are_kept(serve):
    server = await serve(server={"drain_seconds": 2 * PATIENCE})
    alice, carol = await server.login("alice"), await server.login("carol", presence=False)
    stranger = await server.connect()
    await stranger.open()
    assert (await alice.put_contact("friend@localhost", "Friend")).get("type") == "result"
    await alice.send("<message to='bob@localhost' type='chat'><body>for later</body></message>")
    await alice.ping()

    started = time.monotonic()
    server.signal(signal.SIGTERM)
    assert await server.notified() == "STOPPING=1"
    ends = [await client.end() for client in (alice, carol, stranger)]
    with pytest.raises(ConnectionRefusedError):
        await server.connect()
    for client in (alice, carol, stranger):
        client.hang_up()
    assert await server.ended() == 0
    took = time.monotonic() - started
    assert ends == ["system-shutdown"] * 3
    assert took < PATIENCE, "clients that hang up are not waited for"
    assert not (server.data / "xmppd.sock").exists()

    await server.start()
    alice, bob = await server.login("alice"), await server.login("bob")
    assert await alice.roster() == [("friend@localhost", "Friend")]
    assert await bob.bodies() == ["for later"]


@pytest.mark.asyncio
async def test_who_waits_in_the_kernel_is_told_as_well(serve):
    """Not reset, as the kernel does with those that wait at a socket that is closed."""
    server = await serve()
    server.signal(signal.SIGSTOP)
    waiting = [await server.connect() for _ in range(150)]
    server.signal(signal.SIGTERM)
    server.signal(signal.SIGCONT)
    assert [await client.end() for client in waiting] == ["system-shutdown"] * 150
    for client in waiting:
        client.hang_up()
    assert await server.ended() == 0


@pytest.mark.asyncio
async def test_what_was_answered_is_on_disk_however_much_was_on_its_way(serve):
    server = await serve()
    alice = await server.login("alice", presence=False)
    sets = (
        f"<iq type='set' id='set-{n}'><query xmlns='{ns.ROSTER}'><item jid='c{n}@localhost'/></query></iq>"
        for n in range(600)
    )
    alice.write("".join(sets))
    answered = 0
    while answered < 50:
        answered += (await alice.receive("iq")).get("type") == "result"
    server.signal(signal.SIGTERM)
    try:
        while True:
            answered += (await alice.receive("iq")).get("type") == "result"
    except EOFError:
        alice.hang_up()
    assert await server.ended() == 0

    await server.start()
    alice = await server.login("alice", presence=False)
    assert answered <= len(await alice.roster()) <= 600


@pytest.mark.asyncio
async def test_a_client_that_does_not_hang_up_is_cut(serve):
    server = await serve(server={"drain_seconds": 0.5})
    alice = await server.login("alice")
    started = time.monotonic()
    server.signal(signal.SIGTERM)
    assert await server.ended() == 0
    assert 0.4 < time.monotonic() - started < PATIENCE
    assert await alice.end() == "system-shutdown"


@pytest.mark.asyncio
async def test_a_client_that_does_not_read_is_cut(serve):
    server = await serve(server={"drain_seconds": 0.5})
    alice = await server.login("alice", receive_buffer=4096)
    bob = await server.login("bob")
    for _ in range(40):
        await bob.send(f"<message to='{alice.jid}'><body>{'x' * 50_000}</body></message>")
    await bob.ping()
    server.signal(signal.SIGTERM)
    assert await server.ended(10) == 0


@pytest.mark.asyncio
async def test_a_second_signal_leaves_at_once(serve):
    server = await serve(server={"drain_seconds": 60})
    alice = await server.login("alice")
    await alice.put_contact("friend@localhost", "Friend")
    server.signal(signal.SIGTERM)
    assert await server.notified() == "STOPPING=1"
    started = time.monotonic()
    server.signal(signal.SIGTERM)
    assert await server.ended() == 0
    assert time.monotonic() - started < PATIENCE

    await server.start()
    assert await (await server.login("alice")).roster() == [("friend@localhost", "Friend")]


@pytest.mark.asyncio
@pytest.mark.parametrize("signals", [1, 2])
async def test_a_plugin_that_never_ends_cannot_hold_the_server(prepared, signals):
    server = prepared(server={"drain_seconds": 1 if signals == 1 else 60})
    server.configure({"plugins": {"folders": ["."], "enabled": ["hanging"]}})
    server.write_plugin(
        "hanging",
        """
        @iq_get("{urn:xmppd:test}hang")
        async def hang(self, request) -> None:
            await asyncio.Event().wait()
        """,
    )
    await server.start()
    server.add("alice")
    alice = await server.login("alice")
    await alice.send("<iq type='get' id='x' to='localhost'><hang xmlns='urn:xmppd:test'/></iq>")
    other = await server.login("alice")
    other.hang_up()
    alice.hang_up()
    started = time.monotonic()
    server.signal(signal.SIGTERM)
    assert await server.notified() == "STOPPING=1"
    if signals == 2:
        server.signal(signal.SIGTERM)
    assert await server.ended() == 0
    assert time.monotonic() - started < PATIENCE
    assert not [record for record in server.records() if record["level"] == "error"]


@pytest.mark.asyncio
async def test_a_signal_during_the_start(prepared):
    server = prepared(plugins={"enabled": ["slow"], "folders": ["."]})
    server.write_plugin(
        "slow",
        """
        async def start(self) -> None:
            open("starting", "w").close()
            await asyncio.Event().wait()
        """,
    )
    server.spawn()
    await server.until((server.folder / "starting").exists)
    server.signal(signal.SIGTERM)
    assert await server.ended(5) == 0, server.log
    assert "READY" not in server.log
    assert not (server.data / "xmppd.sock").exists()
