"""Routing knows targets: whatever has `send` and `send_copy` takes part like a session, without a branch."""

from __future__ import annotations

import asyncio

import pytest

from xmppd.core.sessions import LiveAccount
from xmppd.testing import World


class Remote:
    """A session somewhere else: it keeps what would be put into frames for its node."""

    presence = None
    priority = 0
    takes_messages = True

    def __init__(self, full: str) -> None:
        self.full = full
        self.frames: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.frames.append(data)

    send_copy = send


def bring_in(world: World, remote: Remote) -> None:
    """Let routing know of a remote session, as whoever joins nodes will."""
    account = remote.full.partition("/")[0]
    live = world.app.sessions.accounts.setdefault(account, LiveAccount(account))
    live.available = live.targets = (remote,)
    world.app.sessions.targets[remote.full] = remote


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["bob@localhost/far", "bob@localhost"])
async def test_messages_go_to_a_remote_target(to: str) -> None:
    async with World() as world:
        alice, remote = await world.login("alice"), Remote("bob@localhost/far")
        bring_in(world, remote)
        await alice.send(f"<message to='{to}' type='chat'><body>x</body></message>")
        await alice.expect_nothing()
        assert remote.frames == [
            f"<message from='{alice.jid}' to='{to}' type='chat'><body>x</body></message>".encode()
        ]


@pytest.mark.asyncio
async def test_broadcasts_and_directed_presence_go_to_a_remote_target() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        await bob.drop()
        remote = Remote("bob@localhost/far")
        bring_in(world, remote)
        await alice.send("<presence><show>dnd</show></presence>")
        await alice.send("<presence to='bob@localhost/far'/>")
        broadcast, directed = remote.frames
        assert broadcast.startswith(f"<presence from='{alice.jid}' to='bob@localhost'".encode())
        assert directed == f"<presence from='{alice.jid}' to='bob@localhost/far'/>".encode()


@pytest.mark.asyncio
async def test_who_is_not_known_here_is_looked_for_before_a_message_is_kept() -> None:
    async with World() as world:
        alice, remote = await world.login("alice"), Remote("bob@localhost/far")

        async def look_for(account: str) -> None:
            await asyncio.sleep(0)
            bring_in(world, remote)

        world.app.sessions.locate = lambda account: look_for(account) if account == "bob@localhost" else None
        await alice.send("<message to='bob@localhost' type='chat'><body>x</body></message>")
        await alice.expect_nothing()
        assert len(remote.frames) == 1
