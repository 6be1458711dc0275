"""What others may do to a server without hurting anybody but themselves."""

import asyncio
import signal
import time

import pytest
from patience import PATIENCE

from xmppd import ns

DESCRIPTORS = 64


@pytest.mark.asyncio
@pytest.mark.parametrize("uvloop", [True, False])
async def test_out_of_descriptors(prepared, uvloop):
    server = prepared(loop={"uvloop": uvloop})
    await server.start(descriptors=DESCRIPTORS)
    server.add("alice")
    alice = await server.login("alice")
    crowd = [await server.connect() for _ in range(2 * DESCRIPTORS)]
    await server.logged("accepting-paused")

    burnt, started = server.cpu_seconds(), time.monotonic()
    for _ in range(8):
        await alice.put_contact("friend@localhost", "the store still writes")
        await asyncio.sleep(0.25)
    share = (server.cpu_seconds() - burnt) / (time.monotonic() - started)
    print(f"CPU without descriptors: {share:.1%}")
    assert share < 0.2
    assert server.command("status")["connections"] < DESCRIPTORS, "commands still work"
    paused, said = server.records("accepting-paused"), server.records()
    assert paused[0]["descriptors"] == DESCRIPTORS
    begun = next(at for at, record in enumerate(said) if record["event"] == "accepting-paused")
    assert len(said) - begun < 10, "it says so, and does not say so again and again"

    for client in crowd:
        client.cut()
    await server.logged("accepting-again")
    other = await server.login("alice")
    await other.ping()
    await alice.ping()
    assert await alice.roster() == [("friend@localhost", "the store still writes")]


@pytest.mark.asyncio
@pytest.mark.parametrize("offline", [False, True])
async def test_a_client_that_does_not_read(serve, offline):
    plugins = ["ping", "offline"] if offline else ["ping"]
    limits = {"write_buffer_soft": 65_536, "write_buffer_hard": 262_144}
    server = await serve(limits=limits, plugins={"enabled": plugins})
    bob = await server.login("bob", receive_buffer=4096)
    alice, carol, dave = [await server.login(name) for name in ("alice", "carol", "dave")]
    await carol.ping()
    before = server.memory()

    async def flood():
        text = "x" * 24_000
        for number in range(1000):
            await alice.send(
                f"<message to='{bob.jid}' type='chat' id='{number}'><body>{text}</body></message>"
            )
            if number % 20 == 19:
                await alice.bodies()  # errors come back once he is gone
        await alice.ping()

    longest, chatted = 0.0, 0
    flooding = asyncio.create_task(flood())
    while not flooding.done():
        started = time.monotonic()
        await carol.send(f"<message to='{dave.jid}' type='chat'><body>hello {chatted}</body></message>")
        assert (await dave.receive("message"))[0].text == f"hello {chatted}"
        longest = max(longest, time.monotonic() - started)
        chatted += 1
        await asyncio.sleep(0.002)
    await flooding
    grown = server.memory() - before
    print(f"24 MB to one that does not read: memory +{grown / 1e6:.1f} MB, others waited {longest:.3f} s")
    assert chatted > 10
    assert longest < 2
    assert grown < 12_000_000
    assert server.command("status")["sessions"] == 3, "the one that does not read is cut"
    await alice.ping()


# limits.stanza_rate

RATE, BURST = 10, 10


async def answers(client, count):
    return [(await client.receive("iq")).get("id") for _ in range(count)]


def pings(first, last):
    ping = f"<ping xmlns='{ns.PING}'/>"
    return "".join(f"<iq type='get' id='{n}' to='localhost'>{ping}</iq>" for n in range(first, last))


@pytest.mark.asyncio
async def test_stanzas_over_the_rate_wait_and_none_is_lost(serve):
    server = await serve(limits={"stanza_rate": RATE, "stanza_burst": BURST})
    alice, bob = await server.login("alice", presence=False), await server.login("bob", presence=False)
    started = time.monotonic()
    alice.write(pings(0, 50))
    got = await answers(alice, BURST)
    await bob.ping()
    assert time.monotonic() - started < 0.8 * (50 - BURST) / RATE, "a burst is not held up, nor is bob"
    got += await answers(alice, 50 - BURST)
    took = time.monotonic() - started
    assert got == [str(n) for n in range(50)]
    assert 0.9 * (50 - BURST) / RATE <= took < PATIENCE


@pytest.mark.asyncio
async def test_a_client_over_the_rate_is_not_read(serve):
    server = await serve(limits={"stanza_rate": RATE, "stanza_burst": BURST})
    alice = await server.login("alice", presence=False)
    before = server.memory()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await alice.send(pings(0, 250_000))  # more than what the kernel keeps
    assert server.memory() - before < 3_000_000
    burnt = server.cpu_seconds()
    await asyncio.sleep(1)
    assert server.cpu_seconds() - burnt < 0.3
    alice.cut()
    await server.stop()


@pytest.mark.asyncio
async def test_without_a_rate_nobody_waits(serve):
    server = await serve(limits={"stanza_rate": 0, "stanza_burst": 1})
    alice = await server.login("alice", presence=False)
    started = time.monotonic()
    alice.write(pings(0, 2000))
    assert await answers(alice, 2000) == [str(n) for n in range(2000)]
    assert time.monotonic() - started < PATIENCE


@pytest.mark.asyncio
async def test_a_new_rate_is_for_new_sessions(serve):
    server = await serve()
    server.configure({"limits": {"stanza_rate": 0.1, "stanza_burst": 2}})
    server.signal(signal.SIGHUP)
    await server.logged("reloaded")
    alice = await server.login("alice", presence=False)
    alice.write(pings(0, 3))
    assert await answers(alice, 2) == ["0", "1"]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await alice.receive()
    alice.cut()
    await server.stop()
