"""What all tests share: how hypothesis runs, free ports, and real engines."""

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.utils
import stores
from clients import Clients
from hypothesis import settings
from ports import free_ports

from engines import SYNCED, Engines
from xmppd import finding
from xmppd.testing import World

# The same examples on every run where nobody watches: a change is judged by what it does, not by luck.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


# What each connection to Redis asks for; to look it up takes longer than to connect.
redis.utils.get_lib_version = functools.cache(redis.utils.get_lib_version)
# The text of a plugin, which is run anew in each world, and takes longer to compile than to run.
vars(finding)["compile"] = functools.cache(compile)


@pytest.fixture(name="free_ports")
def finds_free_ports() -> Callable[[int], list[int]]:
    """Finds loopback ports in a row that nobody listens on."""
    return free_ports


@contextlib.contextmanager
def started(factory: pytest.TempPathFactory, nodes: int, **options: Any) -> Iterator[Engines]:
    """Engines that are gone afterwards, with all their data; they do not outlive pytest either."""
    engines = Engines(factory.mktemp("engines"), nodes, tied=True, **options)
    engines.start()
    try:
        yield engines
    finally:
        engines.remove()


@pytest.fixture(scope="session")
def cassandra_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[str, int]]]:
    """Host and port of each node of the Cassandra that tests share: the one that is named, or an own one."""
    if named := os.environ.get("XMPPD_TEST_CASSANDRA"):
        points = [point.rpartition(":") for point in named.split(",")]
        yield [(host, int(port)) for host, _, port in points]
        return
    with started(tmp_path_factory, 1, redis=False) as engines:
        yield engines.contact_points


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The Redis that tests share: the one that is named, or an own one."""
    if named := os.environ.get("XMPPD_TEST_REDIS"):
        yield named
        return
    with started(tmp_path_factory, 0) as engines:
        yield engines.redis_url


def is_no_drivers(record: logging.LogRecord) -> bool:
    """Whether it was not logged by a driver."""
    return record.name.partition(".")[0] not in ("cassandra", "redis")


def pytest_sessionstart(session: pytest.Session) -> None:
    """What drivers log from threads of their own, about stores that were, is in nobody's records."""
    logs = session.config.pluginmanager.get_plugin("logging-plugin")
    for handler in (logs.caplog_handler, logs.report_handler):
        handler.addFilter(is_no_drivers)


def pytest_configure(config: pytest.Config) -> None:
    """With `XMPPD_TEST_CLIENTS`, see `clients`, for tests on several nodes."""
    if folder := os.environ.get("XMPPD_TEST_CLIENTS"):
        config.pluginmanager.register(Clients(Path(folder)), "clients")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where all run on Cassandra, leave out what runs on an engine of its own choice in any case; where all
    run on several nodes, what is about one.
    """
    left_out = [
        mark for mark, is_on in (("own_engine", stores.ON_CASSANDRA), ("one_node", stores.NODES > 1)) if is_on
    ]
    if left_out:
        elsewhere = {item for item in items for mark in left_out if item.get_closest_marker(mark)}
        items[:] = [item for item in items if item not in elsewhere]
        config.hook.pytest_deselected(items=[*elsewhere])


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    """What the test before has left on Cassandra ends: its threads would go on until all tests are done."""
    stores.end_left()


@pytest.fixture(scope="session", autouse=True)
def the_switch(request: pytest.FixtureRequest) -> Iterator[None]:
    """With `XMPPD_TEST_STORE=cassandra` engines for all tests, and every world on them; with
    `XMPPD_TEST_NODES=2` every world on two nodes, joined by Redis with `XMPPD_TEST_CARRIER=redis`.
    """
    if not stores.ON_CASSANDRA and stores.NODES == 1:
        yield
        return
    os.environ["XMPPD_TEST_REDIS"] = request.getfixturevalue("redis_url")
    with pytest.MonkeyPatch.context() as patch:
        clients = request.config.pluginmanager.get_plugin("clients")
        nodes_of = property(lambda world: stores.NODES if clients is None else clients.nodes)
        patch.setattr(World, "nodes_by_default", nodes_of)
        patch.setattr(World, "carrier", stores.CARRIER)
        patch.setattr(World, "common", property(lambda world: stores.cache_settings()))
        if not stores.ON_CASSANDRA:
            yield
            return
        nodes: list[tuple[str, int]] = request.getfixturevalue("cassandra_nodes")
        os.environ["XMPPD_TEST_CASSANDRA"] = ",".join(f"{host}:{port}" for host, port in nodes)
        patch.setattr(World, "engine", staticmethod(lambda now: stores.new_store(now=now)))
        yield
    stores.drop_keyspaces(stores.SHARED)


@pytest.fixture(scope="module")
def cassandra_ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """Three nodes for one module of tests, which may kill them: what they acknowledged survives that."""
    with started(tmp_path_factory, 3, redis=False, settings=SYNCED) as engines:
        yield engines


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """A Redis for one module of tests, which may kill it."""
    with started(tmp_path_factory, 0) as engines:
        yield engines
