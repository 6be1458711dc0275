"""Clients of accounts that were imported with keys: what they are offered, tell operators, and wait."""

import base64
from collections.abc import Mapping
from typing import Any

import pytest
from saslclient import ScramClient

from xmppd import ns
from xmppd.core.accounts import ACCOUNT
from xmppd.core.credentials import NO_KEYS, columns_of, keys_in
from xmppd.stream.sasl import Challenge, Success
from xmppd.stream.scram import derive_keys
from xmppd.testing import Client, World

ALICE = "alice@localhost"
PEER = "203.0.113.9"
SALT = b"6f4c0d67-2a90-4928-867e-83cce6c0a006"

pytestmark = pytest.mark.asyncio


async def arrive(world: World, *hashes: str, password: str = "secret", account: str = ALICE) -> None:
    """An account with such keys instead of ours."""
    row = await world.app.store.get(ACCOUNT, (account,))
    keys = {name: derive_keys(name, password, SALT, 4096) for name in hashes}
    columns = {**NO_KEYS, **columns_of(keys), "imported": True}
    expected = {"changed": row["changed"]}
    assert await world.app.store.put_if(ACCOUNT, {"account": account, **columns}, expected)
    world.app.accounts.forget(account)


async def offered(world: World) -> list[str]:
    features = await world.connect().open()
    return [mechanism.text or "" for mechanism in features.iter(f"{{{ns.SASL}}}mechanism")]


class Stream:
    """The SASL of a client's stream, for a `ScramClient`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def start(self, mechanism: str, payload: str) -> Any:
        await self._client.send(f"<auth xmlns='{ns.SASL}' mechanism='{mechanism}'>{payload}</auth>")
        return await self._step()

    async def respond(self, payload: str) -> Any:
        await self._client.send(f"<response xmlns='{ns.SASL}'>{payload}</response>")
        return await self._step()

    async def _step(self) -> Any:
        answer = await self._client.receive()
        if answer.tag == f"{{{ns.SASL}}}failure":
            return answer[0].tag.rpartition("}")[2]
        data = base64.b64decode(answer.text or "")
        return Challenge(data) if answer.tag.endswith("}challenge") else Success(None, data)  # type: ignore[arg-type]


async def scram(client: Client, mechanism: str, name: str = "alice", password: str = "secret") -> bool:
    """Whether an attempt on an open stream lets in."""
    attempt = ScramClient(name, password)
    try:
        await attempt.login(Stream(client), mechanism)  # type: ignore[arg-type]
    except AssertionError:
        return False
    return True


async def test_sha_512_is_offered_where_the_configuration_says_so() -> None:
    async with World() as world:
        assert await offered(world) == ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"]
        assert (await world.app.accounts.info(ALICE)).mechanisms == ("SCRAM-SHA-256", "SCRAM-SHA-1")
    wanted = ["SCRAM-SHA-512-PLUS", "SCRAM-SHA-512", "SCRAM-SHA-1", "PLAIN"]
    async with World(settings={"auth": {"mechanisms": wanted}}) as world:
        assert await offered(world) == ["SCRAM-SHA-512", "SCRAM-SHA-1", "PLAIN"]
        assert (await world.app.accounts.info(ALICE)).mechanisms == (
            "SCRAM-SHA-256",
            "SCRAM-SHA-1",
            "SCRAM-SHA-512",
        )
        client = world.connect()
        await client.open()
        assert await scram(client, "SCRAM-SHA-512")


async def test_after_an_import_of_sha_1_keys_less_may_be_offered() -> None:
    settings = {"auth": {"mechanisms": ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN"]}}
    async with World(settings=settings) as world:
        await arrive(world, "sha1")
        assert await offered(world) == ["SCRAM-SHA-1", "PLAIN"]
        client = world.connect()
        await client.open()
        assert await scram(client, "SCRAM-SHA-1")
        assert await counted(world) == {"SCRAM-SHA-256": 1, "SCRAM-SHA-1": 0, "SCRAM-SHA-512": 3}
        await world.login("alice")  # by PLAIN
        assert await counted(world) == {"SCRAM-SHA-256": 0, "SCRAM-SHA-1": 0, "SCRAM-SHA-512": 3}


async def counted(world: World) -> dict[str, int]:
    """How many accounts lack which keys."""
    rows = await world.app.commands.call("user keys", {})
    return {row["mechanism"]: row["lacking"] for row in rows[:-1]}


async def test_sessions_stay_when_keys_are_made() -> None:
    async with World() as world:
        await arrive(world, "sha512")
        alice = await world.login("alice")
        row = await world.app.store.get(ACCOUNT, (ALICE,))
        assert set(keys_in(row)) == {"sha1", "sha256", "sha512"}
        await world.app.logins.look_at(ALICE)
        await alice.expect_nothing()
        assert not alice.closed
        other = await world.login("alice")
        assert other.jid


async def test_who_must_reset_is_on_a_list() -> None:
    async with World() as world:
        await arrive(world)
        rows = await world.app.commands.call("user list", {"without_password": True})
        assert [(row["account"], row["mechanisms"]) for row in rows] == [(ALICE, [])]
        client = world.connect()
        await client.open()
        assert (await client.authenticate("alice"))[0].tag == f"{{{ns.SASL}}}not-authorized"
        await world.app.accounts.set_password(ALICE, "new")
        assert await world.app.commands.call("user list", {"without_password": True}) == []


async def failures_of(world: World, name: str, times: int) -> list[float]:
    """What the answers to wrong attempts by SCRAM-SHA-256 wait, each on a stream of its own."""
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)
        world.clock.seconds += seconds

    for app in world.apps:
        app.logins.pause = pause
    for _ in range(times):
        client = world.connect(PEER)
        await client.open()
        assert not await scram(client, "SCRAM-SHA-256", name, "wrong")
        await client.drop()
    return waited


@pytest.mark.parametrize("name", ["alice", "bob", "carol", "nobody"])
async def test_who_lacks_keys_is_slowed_down_like_everybody(name: str) -> None:
    async with World() as world:
        await arrive(world, "sha1")
        await arrive(world, account="carol@localhost")
        assert await failures_of(world, name, 6) == [1.0, 2.0]


async def test_a_network_of_clients_that_try_sha_256_first_is_not_slowed_down() -> None:
    async with World() as world:
        await arrive(world, "sha1")
        pauses: list[float] = []

        async def pause(seconds: float) -> None:
            pauses.append(seconds)

        for app in world.apps:
            app.logins.pause = pause
        for _ in range(30):
            client = world.connect(PEER)
            await client.open()
            assert not await scram(client, "SCRAM-SHA-256")
            assert await scram(client, "SCRAM-SHA-1")
            await client.drop()
        assert pauses == []
        assert not any(len(app.logins.brake) for app in world.apps)
        assert sum(app.reports.counts["login-without-keys"] for app in world.apps) == 30


async def test_the_owner_of_an_account_buys_no_guesses_at_others() -> None:
    async with World() as world:
        await arrive(world, "sha1")
        for number in range(10):
            client = world.connect(PEER)
            await client.open()
            assert not await scram(client, "SCRAM-SHA-256", "bob", f"guess{number}")
            assert not await scram(client, "SCRAM-SHA-1", "alice", "wrong")
            assert not await scram(client, "SCRAM-SHA-256", "alice")
            client.app.logins.pause = no_time
            assert await scram(client, "SCRAM-SHA-1")
            await client.drop()
        for app in world.apps:
            counts = {key[1]: entry.count for key, entry in app.logins.brake._entries.items()}
            assert counts == {"": 20, "bob@localhost": 10}


async def no_time(seconds: float) -> None:
    """A pause that is over at once."""


async def test_operators_are_told_that_there_are_no_such_keys(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with World() as world:
        await arrive(world, "sha1")
        for name in ("alice", "bob", "nobody"):
            client = world.connect(PEER)
            await client.open()
            assert not await scram(client, "SCRAM-SHA-256", name, "wrong")
        told: list[Mapping[str, Any]] = [vars(r) for r in caplog.records if r.msg == "login-failed"]
        assert [(line["jid"], line["reason"], line.get("keys")) for line in told] == [
            (ALICE, "not-authorized", "none"),
            ("bob@localhost", "not-authorized", None),
            ("nobody@localhost", "not-authorized", None),
        ]
