"""Who fails a plugin's own way to log in is treated as who fails SASL."""

import logging
from pathlib import Path

import pytest

from xmppd.testing import Client, World

GATES = '''
"""Another way to log in than SASL, with a proof."""
from xmppd import hooks
from xmppd.plugin import Identity, Phase, Plugin, SaslError, element, negotiates, serialize

NS = "urn:test:gate"


class Gate(Plugin):
    async def start(self):
        self.failures = []

    @hooks.login_failed
    def note(self, attempt, condition):
        self.failures.append((attempt.account, attempt.mechanism, condition))

    @negotiates(Phase.LOGIN, f"{{{NS}}}knock")
    async def knock(self, stream, stanza):
        name, _, proof = stanza.text.partition(" with ")
        try:
            if proof != "key":
                await self.server.refuse_login(stream, name, "gate", proof or "not-authorized")
            login = await self.server.admit(stream, Identity(name), "gate")
        except SaslError as error:
            stream.write(serialize(element(f"{{{NS}}}shut", None, error.condition)))
        else:
            stream.write(serialize(element(f"{{{NS}}}open")))
            stream.authenticated(login)
'''
PEER = "203.0.113.9"


async def knock(client: Client, said: str) -> str:
    await client.send(f"<knock xmlns='urn:test:gate'>{said}</knock>")
    answer = await client.receive()
    return answer.text or answer.tag.rpartition("}")[2]


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "gate.py").write_text(GATES)
    return World(plugins=("gate",), plugin_folders=(tmp_path,))


def pauses_of(world: World) -> list[float]:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        world.clock.seconds += seconds

    world.app.logins.pause = pause
    return pauses


@pytest.mark.asyncio
async def test_guesses_are_slowed_down_logged_and_counted(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with world:
        pauses, client = pauses_of(world), world.connect(PEER)
        await client.open()
        assert [await knock(client, "Alice") for _ in range(5)] == ["not-authorized"] * 5
        assert pauses == [1.0]
        assert world.app.reports.counts["login-failed"] == 5
        assert world.app.reports.counts["login-delayed"] == 1
        assert world.plugin("gate").failures == [("alice@localhost", "gate", "not-authorized")] * 5
        line = next(record for record in caplog.records if record.message == "login-failed")
        about = (line.__dict__[name] for name in ("peer", "jid", "mechanism", "reason"))
        assert tuple(about) == (PEER, "alice@localhost", "gate", "not-authorized")


@pytest.mark.asyncio
async def test_they_count_with_those_of_sasl_and_so_do_answers_that_are_right(world: World) -> None:
    async with world:
        pauses, client = pauses_of(world), world.connect(PEER)
        await client.open()
        for _ in range(2):
            await client.authenticate("alice", "wrong")
        for _ in range(2):
            await knock(client, "alice")
        assert pauses == []
        assert await knock(client, "alice with key") == "open"
        assert pauses == [1.0]


@pytest.mark.asyncio
async def test_who_can_be_nobody_is_one_of_the_network_and_is_not_named(world: World) -> None:
    async with world:
        client = world.connect(PEER)
        await client.open()
        for name in ("", "a b", "x" * 2000):
            assert await knock(client, name) == "not-authorized"
        assert world.plugin("gate").failures == [("", "gate", "not-authorized")] * 3
        assert len(world.app.logins.brake) == 1


@pytest.mark.asyncio
async def test_what_is_no_guess_is_logged_and_costs_nothing(world: World) -> None:
    async with world:
        pauses, client = pauses_of(world), world.connect(PEER)
        await client.open()
        for _ in range(6):
            assert await knock(client, "alice with credentials-expired") == "credentials-expired"
        assert pauses == []
        assert len(world.app.logins.brake) == 0
        assert world.app.reports.counts["login-failed"] == 6


@pytest.mark.asyncio
async def test_beyond_all_bounds_it_is_told_nothing_of_its_proof(world: World) -> None:
    async with world:
        pauses, client = pauses_of(world), world.connect(PEER)
        await client.open()
        for _ in range(9):
            world.app.logins.brake.failed(PEER, "alice@localhost")
        waits = [world.app.logins.brake.wait(PEER, "alice@localhost") for _ in range(3)]
        assert waits == [0.0, 10.0, 20.0]
        assert await knock(client, "alice") == "temporary-auth-failure"
        assert pauses == [10.0]
