"""The game of the README: its back end and its clients, as they are shown, against a real server."""

import asyncio
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from keyserver import public
from ports import free_ports

from xmppd.admin.client import request

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples" / "game"
SECRET = "s" * 32
SECONDS = 20.0


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def connected(server: Any, player: Any) -> tuple[asyncio.Future[Any], asyncio.Future[Any]]:
    """When it has said all, and when it heard of a match."""
    loop = asyncio.get_running_loop()
    ready, match = loop.create_future(), loop.create_future()
    player.ssl_context = server.tls()
    player.use_ipv6 = False
    player.add_event_handler("ready", ready.set_result)
    player.add_event_handler("match", match.set_result)
    player.connect("127.0.0.1", server.ports["starttls"])
    return ready, match


@pytest.mark.asyncio
async def test_the_game_of_the_readme(own_server):
    backend, player = example("backend"), example("player")
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    about = {"issuer": backend.ISSUER, "audience": backend.AUDIENCE, "algorithms": ["ES256"]}
    [port] = free_ports(1)
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    server = own_server(
        listen={"http": {"address": "127.0.0.1", "port": port}},
        http={"tokens": [{"name": "game", "sha256": digest, "scopes": ["game-events:push"]}]},
        plugins={
            "enabled": ["disco", "ping", "game_login", "game_events", "friends", "rich_presence"],
            "config": {
                "game_login": {"issuers": [{**about, "keys": [public(key)]}]},
                "rich_presence": {
                    "games": {
                        "chess": {
                            "status": "Playing {mode}",
                            "says": {"properties": {"mode": {"type": "string"}}},
                        }
                    }
                },
            },
        },
    )
    bob = player.Player("bob", backend.token("bob", pem))
    bob_ready, bob_match = connected(server, bob)
    await asyncio.wait_for(bob_ready, SECONDS)
    kiva = player.Player("kiva", backend.token("kiva", pem), friend="bob@localhost")
    kiva_ready, kiva_match = connected(server, kiva)
    await asyncio.wait_for(kiva_ready, SECONDS)
    url = f"http://127.0.0.1:{port}"
    told = await asyncio.to_thread(backend.match_found, url, SECRET, "7", ["kiva", "bob", "zoe"])
    assert (told["reached"], told["unknown"]) == (2, 1)
    for match in (kiva_match, bob_match):
        assert await asyncio.wait_for(match, SECONDS) == '{"map": "rift"}'
    socket = server.folder / "data" / "xmppd.sock"
    shown = await asyncio.to_thread(request, socket, "game show", {"account": "kiva@localhost"})
    assert "blitz" in str(shown)
    friends = await asyncio.to_thread(request, socket, "friend list", {"player": "kiva@localhost"})
    assert "bob@localhost" in str(friends)
    for one in (bob, kiva):
        await one.disconnect(wait=SECONDS)
