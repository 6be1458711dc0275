"""What /metrics tells: true numbers, in a form that is one, to those who may have them."""

import asyncio
import base64
import gc
import hashlib
import logging
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from xmppd import log as logs
from xmppd.seeing.watch import Watch
from xmppd.settings import LogConfig
from xmppd.store.cassandra.store import CassandraOptions, CassandraStore
from xmppd.testing import World

PLUGIN = '''
from xmppd import hooks
from xmppd.plugin import Counter, Gauge, Histogram, Plugin, StanzaError

class Watched(Plugin):
    """Counts."""

    seen = Counter("Messages that were seen.")
    level = Gauge("How high it is.")
    sizes = Histogram("Sizes.", (10, 100))

    @hooks.message_sent
    def look(self, session, message):
        self.seen.inc()
        self.level.set(2.5)
        self.sizes.observe(50)
        if "forbidden" in message.raw.decode():
            raise StanzaError("policy-violation", "No.")

    @hooks.message_sent.at(hooks.FILTER)
    def drop(self, session, message):
        return hooks.DROP if "lost" in message.raw.decode() else message
'''


async def ask(world, token=""):
    async def nothing(most):
        return b""

    headers = {"authorization": f"Bearer {token}"} if token else {}
    return await world.app.routes.serve("GET", "/metrics", headers, nothing, "127.0.0.1")


async def numbers(world) -> dict[tuple[str, ...], float]:
    """All samples: name, and values of labels in the order of their names -> value."""
    answer = await ask(world)
    assert answer.status == 200, answer.body
    assert answer.content_type.startswith("application/openmetrics-text; version=1.0.0")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "watched.py").write_text(PLUGIN)
    return tmp_path


@pytest.mark.asyncio
async def test_stanzas_are_counted_by_kind_and_by_what_became_of_them(folder: Path) -> None:
    async with World(plugins=("watched",), plugin_folders=(folder,), nodes=1) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        before = await numbers(world)
        for body in ("hi", "hi", "forbidden", "lost"):
            await alice.send(f"<message to='{bob.jid}' type='chat'><body>{body}</body></message>")
        await alice.send("<iq type='get' id='1' to='localhost'><query xmlns='urn:nothing'/></iq>")
        await alice.send("<presence><show>away</show></presence>")
        await world.settle()
        after = await numbers(world)

        def grown(*key: str) -> float:
            return after[key] - before.get(key, 0.0)

        assert grown("xmppd_stanzas_total", "message") == 4
        assert grown("xmppd_stanzas_total", "iq") == 1
        assert grown("xmppd_stanzas_total", "presence") == 1
        refused = {key[1:]: value for key, value in after.items() if key[0] == "xmppd_stanzas_refused_total"}
        assert refused["service-unavailable", "iq", "core.iqs"] == 1
        assert [(key[:2], n) for key, n in refused.items() if "watched" in key[2]] == [
            (("policy-violation", "message"), 1)
        ]
        assert grown("xmppd_stanzas_dropped_total", "message") == 1
        assert grown("xmppd_plugin_watched_seen_total") == 4
        assert after["xmppd_plugin_watched_level",] == 2.5
        assert after["xmppd_plugin_watched_sizes_bucket", "100.0"] == 4
        assert after["xmppd_plugin_watched_sizes_bucket", "10.0"] == 0
        assert after["xmppd_plugin_watched_sizes_sum",] == 200


@pytest.mark.asyncio
async def test_one_stanza_of_many_is_timed_and_all_it_meets(folder: Path) -> None:
    async with World(plugins=("watched", "ping"), plugin_folders=(folder,), nodes=1) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        hook, table = world.app.hooks.message_sent, world.app.iqs._handlers
        for number in range(3):
            if number == 1:
                world.app.router.watch_next()
            await alice.send(f"<message to='{bob.jid}'><body>hi</body></message>")
        await world.settle()
        found = await numbers(world)
        assert found["xmppd_routing_seconds_count", "message"] == 1
        assert found["xmppd_hook_seconds_count", "watched"] == 2
        assert 0 < found["xmppd_hook_seconds_sum", "watched"] < 1
        world.app.router.watch_next()
        for _ in range(3):
            await alice.send("<iq type='get' id='1' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
        await world.settle()
        found = await numbers(world)
        assert found["xmppd_routing_seconds_count", "iq"] == 1
        assert found["xmppd_hook_seconds_count", "ping"] == 1
        assert world.app.hooks.message_sent is hook
        assert world.app.iqs._handlers is table


@pytest.mark.asyncio
async def test_what_a_timed_stanza_waits_for_is_part_of_its_time() -> None:
    async with World(plugins=("archive", "private"), nodes=1) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(f"<message to='{bob.jid}' type='chat'><body>hi</body></message>")
        await world.settle()
        world.app.router.watch_next()
        await alice.send(f"<message to='{bob.jid}' type='chat'><body>hi</body></message>")
        await world.settle()
        world.app.router.watch_next()
        await alice.send("<iq type='get' id='1'><query xmlns='jabber:iq:private'><x xmlns='a'/></query></iq>")
        await world.settle()
        found = await numbers(world)
        assert found["xmppd_handling_seconds_count", "message"] == 1
        assert found["xmppd_routing_seconds_count", "iq"] == 1


@pytest.mark.asyncio
async def test_what_is_refused_for_a_block_is_refused_alike_when_it_is_timed() -> None:
    async with World(plugins=("archive", "blocking"), nodes=1) as world:
        await world.app.commands.call("block add", {"account": "bob@localhost", "address": "alice@localhost"})
        alice, answers = await world.login("alice"), []
        for is_timed in (False, True):
            if is_timed:
                world.app.router.watch_next()
            await alice.send("<message to='bob@localhost' type='chat' id='1'><body>hi</body></message>")
            answers += [it.tag for it in (await alice.receive())[-1]]
        assert len(answers) == 2
        assert answers[0] == answers[1]
        found = await numbers(world)
        assert found["xmppd_hook_seconds_count", "archive"] >= 1


@pytest.mark.asyncio
async def test_sessions_are_there_by_transport_and_security_while_they_are() -> None:
    async with World(nodes=1) as world:
        assert not [key for key in await numbers(world) if key[0] == "xmppd_streams"]
        alice = await world.login("alice")
        found = await numbers(world)
        streams = {key[1:]: value for key, value in found.items() if key[0] == "xmppd_streams"}
        assert list(streams.values()) == [1.0]
        assert next(iter(streams)) == ("none", "tcp")
        assert found["xmppd_sessions", "connected"] == found["xmppd_accounts_online",] == 1
        await alice.drop()
        await world.settle()
        found = await numbers(world)
        assert [value for key, value in found.items() if key[0] == "xmppd_streams"] == [0.0]
        assert found["xmppd_sessions", "connected"] == 0


@pytest.mark.asyncio
async def test_logins_are_counted_by_mechanism_and_outcome() -> None:
    async with World(nodes=1) as world:
        await world.login("alice")
        stranger = world.connect()
        await stranger.open()
        wrong = base64.b64encode(b"\0alice\0wrong").decode()
        await stranger.send(
            f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{wrong}</auth>"
        )
        await world.settle()
        found = await numbers(world)
        logins = {key[1:]: value for key, value in found.items() if key[0] == "xmppd_logins_total"}
        assert logins["PLAIN", "not-authorized"] == 1
        assert sum(value for (_, outcome), value in logins.items() if outcome == "success") == 1
        assert found["xmppd_refusals_total", "login-failed"] == 1


@pytest.mark.asyncio
async def test_no_label_has_the_name_of_anybody(folder: Path) -> None:
    async with World(plugins=("watched", "archive"), plugin_folders=(folder,), nodes=1) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        for _ in range(4):
            world.app.router.watch_next()
            await alice.send(f"<message to='{bob.jid}' type='chat'><body>forbidden</body></message>")
        await world.settle()
        text = (await ask(world)).body.decode()
        assert "alice" not in text
        assert "127.0.0.1" not in text


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("metrics", "address", "without"),
    [
        ("auto", "127.0.0.1", 200),
        ("auto", "::1", 200),
        ("auto", "0.0.0.0", 401),
        ("open", "0.0.0.0", 200),
        ("token", "127.0.0.1", 401),
    ],
)
async def test_numbers_are_for_those_who_may_have_them(metrics: str, address: str, without: int) -> None:
    tokens = [
        {"name": "scraper", "sha256": hashlib.sha256(b"s").hexdigest(), "scopes": ["metrics"]},
        {"name": "other", "sha256": hashlib.sha256(b"o").hexdigest(), "scopes": ["rooms"]},
    ]
    settings = {
        "http": {"tokens": tokens, "metrics": metrics},
        "listen": {"http": {"address": address, "port": 5280}},
    }
    async with World(settings=settings) as world:
        assert (await ask(world)).status == without
        assert (await ask(world, "s")).status == 200
        assert (await ask(world, "o")).status == (200 if without == 200 else 403)


@pytest.mark.asyncio
async def test_the_loop_and_the_collector_are_watched_while_somebody_may_ask() -> None:
    before = len(gc.callbacks)
    ticks: list[int] = []
    watch = Watch(lambda: ticks.append(1))
    gc.collect()
    assert watch.pauses[2].counts[-1] == 0
    assert sum(watch.pauses[2].counts) == 1
    while not sum(watch.lag.counts):  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)
    watch.close()
    assert len(ticks) == sum(watch.lag.counts)
    assert len(gc.callbacks) == before


def test_lines_are_counted_also_those_that_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure(LogConfig())
        before = logs.counted()
        log = logging.getLogger("xmppd.somewhere")
        for _ in range(3):
            log.warning("store-failed")
        log.info("login")
        log.warning("Some text of %s", "a plugin")
        logging.getLogger("asyncio").warning("library")
        logs.configure(LogConfig())
        grown = {key: n - before.get(key, 0) for key, n in logs.counted().items()}
        assert {key: n for key, n in grown.items() if n} == {
            ("store-failed", "warning"): 3,
            ("other", "warning"): 1,
        }
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.mark.asyncio
async def test_what_cassandra_has_under_way_is_shown_with_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(nodes=1) as world:
        cassandra = CassandraStore(CassandraOptions(contact_points=(("127.0.0.1", 9),), keyspace="nowhere"))
        with monkeypatch.context() as patched:
            patched.setattr(world.app, "store", cassandra)
            found = await numbers(world)
    assert found["xmppd_queue", "store_in_flight"] == found["xmppd_queue", "store_waiting"] == 0
    assert found["xmppd_queue_bound", "store_waiting"] == world.app.config.store.cassandra.waiting
    assert ("xmppd_store_total", "breaker_opened") in found
    assert ("xmppd_store_total", "waiting") not in found
