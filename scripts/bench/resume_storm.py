"""All clients of a server lose their connections and come back: by a login (PLAIN, bind, roster, presence),
or by resuming their sessions (PLAIN, XEP-0198). CPU of a server in memory for one client, with the events of
its loop and without any socket, TLS or client; see `resume-storm`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import statistics
import time

from xmppd import ns
from xmppd.testing import Client, World
from xmppd.testing.client import PASSWORD, STREAM_HEADER

HEADER = STREAM_HEADER.format(domain="localhost", more="")
LOGIN = (
    f"<iq type='set' id='b'><bind xmlns='{ns.BIND}'><resource>{{name}}</resource></bind></iq>"
    f"<iq type='get' id='r'><query xmlns='{ns.ROSTER}'/></iq><presence/>"
)


class Deaf(Client):
    """A client that reads nothing of what it is sent."""

    def _receive(self, data: bytes) -> None:
        self.raw = data


def proof(name: str) -> str:
    """The header, a login by PLAIN, and the header of the stream behind it."""
    initial = base64.b64encode(f"\0{name}\0{PASSWORD}".encode()).decode()
    return f"{HEADER}<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{initial}</auth>{HEADER}"


async def come(world: World, names: list[str], after: dict[str, str]) -> list[Client]:
    """Connect all, and have each say what comes after its login."""
    clients: list[Client] = []
    for name in names:
        client = Deaf(world, world.app, "127.0.0.1", starttls=True)
        client.jid = f"{name}@localhost/{name}"
        client.write(proof(name) + after[name])
        clients.append(client)
        world.clients.append(client)
    await world.settle()
    return clients


async def storm(
    world: World, names: list[str], clients: list[Client], after: dict[str, str]
) -> tuple[float, list[Client]]:
    """Seconds of CPU for all to lose their connection and come back."""
    world.clients.clear()
    start = time.process_time()
    for client in clients:
        client.transport.close()
    again = await come(world, names, after)
    return time.process_time() - start, again


async def measured(count: int, contacts: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds for one client, each round, by the way it comes back."""
    names = [f"user{number}" for number in range(count)]
    settings = {"sessions": {"ping_after": 0}}
    async with World(accounts=tuple(names), settings=settings) as world:
        for number, name in enumerate(names):
            account = f"{name}@localhost"
            for step in range(1, contacts // 2 + 1):
                other = f"{names[(number + step) % count]}@localhost"
                rosters = world.app.server.rosters
                await rosters.befriend(account, other)
        login = {name: LOGIN.format(name=name) for name in names}
        figures: dict[str, list[float]] = {"login": [], "resume": []}
        clients = await come(world, names, login)
        for _ in range(rounds):
            seconds, clients = await storm(world, names, clients, login)
            figures["login"].append(seconds * 1e6 / count)
            resume = {}
            for name, client in zip(names, clients, strict=True):
                client.write(f"<enable xmlns='{ns.SM}' resume='true'/>")
                resume[name] = f"<resume xmlns='{ns.SM}' previd='{client.session.managed.id}' h='0'/>"
            await world.settle()
            seconds, clients = await storm(world, names, clients, resume)
            figures["resume"].append(seconds * 1e6 / count)
            assert all(client.session.managed.stream is not None for client in clients)
            for client in clients:
                world.app.binding.end(client.session)
            clients = await come(world, names, login)
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--contacts", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    figures = asyncio.run(measured(given.sessions, given.contacts, given.rounds))
    for name, values in figures.items():
        print(f"{name:8}{statistics.median(values):10.0f} us    {[round(value) for value in values]}")


main()
