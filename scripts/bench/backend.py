"""What a server of a benchmark keeps its data in: SQLite, or Cassandra with Redis before it."""

import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from cassandra.cluster import Cluster

sys.path.insert(0, str(Path(__file__).parents[1] / "lib"))

from engines import SYNCED, Engines

STORES = ("sqlite", "cassandra")
SETTINGS = {**SYNCED, "paxos_variant": "v2"}
"""As docs/operations.md has it for production: what is acknowledged is on disk, and fewer writes are in vain
where two servers change one roster at once.
"""
DEFAULT = os.environ.get("XMPPD_TEST_STORE", "sqlite")


class Backend:
    """One of STORES, in a `folder` of its own. `start` it, give servers its `environ`, `remove` it.

    The engines are those that XMPPD_TEST_CASSANDRA and XMPPD_TEST_REDIS name. What is not named, or has to be
    its own because it will be hurt, is started in the folder, and ends with the thread that called `start`.
    `heap`: MiB of a node of Cassandra that is started.
    """

    def __init__(
        self, store: str, *, own_cassandra: int = 0, own_redis: bool = False, heap: int | None = None
    ) -> None:
        self.store = store
        self.folder = Path(tempfile.mkdtemp(prefix="xmppd-bench-"))
        is_named = store == "cassandra" and not own_cassandra
        points = os.environ.get("XMPPD_TEST_CASSANDRA", "") if is_named else ""
        url = os.environ.get("XMPPD_TEST_REDIS", "") if not own_redis else ""
        self._has_own_nodes = not points
        self.engines = Engines(
            self.folder / "engines",
            nodes=own_cassandra or 1 if self._has_own_nodes else 0,
            redis=not url,
            heap=heap,
            settings=SETTINGS,
            tied=True,
        )
        self.points = points.split(",") if points else []
        self.redis = url
        self.keyspace = f"xmppd_bench_{secrets.token_hex(4)}"

    def start(self) -> None:
        """Start what is not there yet."""
        if self.store == "sqlite":
            return
        if not (self.points and self.redis):
            self.engines.start()
        self.points = self.points or [f"{host}:{port}" for host, port in self.engines.contact_points]
        self.redis = self.redis or self.engines.redis_url

    def environ(self, *, cached: bool = True) -> dict[str, str]:
        """What the environment of a server has to say; `cached` puts Redis before Cassandra."""
        if self.store == "sqlite":
            return {}
        nodes = min(3, len(self.points))
        cassandra = (
            f"{{contact_points: [{', '.join(self.points)}], keyspace: {self.keyspace}, "
            f"local_dc: datacenter1, replication: {{datacenter1: {nodes}}}}}"
        )
        cache = {
            "XMPPD__CACHE__REDIS": self.redis,
            "XMPPD__CACHE__PREFIX": self.keyspace,
        }
        store = {"XMPPD__STORE__ENGINE": "cassandra", "XMPPD__STORE__CASSANDRA": cassandra}
        return {**store, **(cache if cached else {})}

    def remove(self) -> None:
        """Leave nothing behind."""
        if self.points and not self._has_own_nodes:
            self._drop()
        self.engines.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _drop(self) -> None:
        host, _, port = self.points[0].partition(":")
        cluster = Cluster([host], port=int(port), protocol_version=5)
        try:
            cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {self.keyspace}", timeout=60)
        finally:
            cluster.shutdown()
