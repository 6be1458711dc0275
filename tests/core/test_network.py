"""What counts as one address."""

import pytest

from xmppd.core.network import network_of
from xmppd.testing import World


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::/64"),
        ("2001:0DB8:0000:0001::1", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::1", "2001:db8:0:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("local", "local"),
        ("", ""),
        ("a:b", "a:b"),
    ],
)
def test_networks(peer: str, network: str) -> None:
    assert network_of(peer) == network


@pytest.mark.one_node("each process counts its own connections")
@pytest.mark.asyncio
async def test_connections_of_one_network_are_counted_together() -> None:
    async with World(settings={"limits": {"connections_before_login_per_address": 2}}) as world:
        peers = ("2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1:9::3", "2001:db8:0:2::1")
        clients = [world.connect(peer) for peer in peers]
        await world.settle()
        assert [b"resource-constraint" in client.raw for client in clients] == [False, False, True, False]
        await clients[0].drop()
        await clients[2].drop()
        later = world.connect("2001:db8:0:1::4")
        await world.settle()
        assert later.raw == b""
