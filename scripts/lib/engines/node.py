"""Engines as processes: a node of Cassandra, a Redis. Each knows its command and its files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines import install

EXPORTS = """
    java.base/java.lang.ref
    java.base/jdk.internal.misc
    java.base/sun.nio.ch
    java.management.rmi/com.sun.jmx.remote.internal.rmi
    java.rmi/sun.rmi.registry
    java.rmi/sun.rmi.server
    java.sql/java.sql
    jdk.attach/sun.tools.attach
    jdk.compiler/com.sun.tools.javac.file
    jdk.unsupported/sun.misc
""".split()
OPENS = """
    java.base/java.io
    java.base/java.lang
    java.base/java.lang.module
    java.base/java.lang.reflect
    java.base/java.net
    java.base/java.nio
    java.base/java.util
    java.base/java.util.concurrent
    java.base/java.util.concurrent.atomic
    java.base/jdk.internal.loader
    java.base/jdk.internal.math
    java.base/jdk.internal.module
    java.base/jdk.internal.ref
    java.base/jdk.internal.reflect
    java.base/jdk.internal.util.jar
    java.base/sun.nio.ch
    jdk.compiler/com.sun.tools.javac
    jdk.management/com.sun.management.internal
""".split()
LONG = 2048
"""MiB of heap from which on a node is for runs of an hour: it compiles, collects its garbage and keeps what
is new in memory as it does in production.
"""
MODULES = [
    *(word for package in EXPORTS for word in ("--add-exports", f"{package}=ALL-UNNAMED")),
    *(word for package in OPENS for word in ("--add-opens", f"{package}=ALL-UNNAMED")),
]
LOGBACK = """\
<configuration>
  <appender name="output" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level %date{ISO8601} %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="output"/></root>
</configuration>
"""
"""Everything to the one log of the process."""
SMALL: Mapping[str, Any] = {
    "memtable_heap_space": "64MiB",
    "memtable_offheap_space": "64MiB",
    "file_cache_size": "32MiB",
    "key_cache_size": "8MiB",
    "commitlog_segment_size": "8MiB",
    "concurrent_reads": 8,
    "concurrent_writes": 8,
    "disk_access_mode": "mmap_index_only",
}


@dataclass(frozen=True, slots=True)
class CassandraNode:
    """The node `index` (from 0) of `count`, on an address of its own; all nodes use the same ports."""

    folder: Path
    index: int
    count: int
    port: int
    storage_port: int
    heap: int
    """MiB."""
    settings: Mapping[str, Any]
    """What differs from our cassandra.yaml; None leaves a key out."""
    jmx_port: int | None = None
    """Where `nodetool` asks it, on 127.0.0.1."""

    @property
    def name(self) -> str:
        return f"cassandra{self.index + 1}"

    @property
    def address(self) -> str:
        return address_of(self.index)

    @property
    def ports(self) -> list[int]:
        """All it listens on."""
        return [self.port, self.storage_port]

    @property
    def is_long(self) -> bool:
        """Whether it is for long runs."""
        return self.heap >= LONG

    def prepare(self) -> list[str]:
        """Write its files, and say how it is started."""
        jars = install.cassandra_jars()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "cassandra.yaml").write_text(json.dumps(self._yaml(), indent=1))
        (self.folder / "logback.xml").write_text(LOGBACK)
        properties = {
            "jdk.attach.allowAttachSelf": "true",
            "io.netty.tryReflectionSetAccessible": "true",
            "java.net.preferIPv4Stack": "true",
            "cassandra.config": (self.folder / "cassandra.yaml").as_uri(),
            "cassandra.storagedir": self.folder,
            "cassandra.logdir": self.folder,
            "logback.configurationFile": self.folder / "logback.xml",
            "cassandra-foreground": "yes",
            "cassandra.skip_wait_for_gossip_to_settle": 0,
            "cassandra.ring_delay_ms": 0 if self.count == 1 else 5000,
            "cassandra.shutdown_announce_in_ms": 200,
            # So long after the start the first role is made, and when no quorum is up it is tried again.
            "cassandra.superuser_setup_delay_ms": 1000,
            "jna.tmpdir": self.folder,
        }
        if self.jmx_port is not None:
            properties["cassandra.jmx.local.port"] = self.jmx_port
        java = install.java()
        if install.java_version(java) not in ("11", "17"):
            # It installs a security manager, which later ones allow only when told.
            properties["java.security.manager"] = "allow"
        return [
            str(java),
            *MODULES,
            *(f"-Xms{self.heap}M", f"-Xmx{self.heap}M", "-Xss384k", "-XX:+ExitOnOutOfMemoryError"),
            # The small compiler halves the start; the large one takes a processor of its own for minutes.
            *(("-XX:+UseG1GC",) if self.is_long else ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")),
            f"-XX:ErrorFile={self.folder}/crash-%p.log",
            f"-javaagent:{jars}/jamm-{install.JAMM}.jar",
            *(f"-D{key}={value}" for key, value in properties.items()),
            *("-cp", f"{self.folder}:{jars}/*", "org.apache.cassandra.service.CassandraDaemon"),
        ]

    def nodetool(self, *words: str) -> list[str]:
        """What does a command of `nodetool` with this node, which has a `jmx_port`."""
        java, jars = install.java(), install.cassandra_jars()
        head = [str(java), *MODULES, "-XX:TieredStopAtLevel=1", f"-Duser.home={self.folder}"]
        where = ["-h", "127.0.0.1", "-p", str(self.jmx_port)]
        return [
            *head,
            "-cp",
            f"{self.folder}:{jars}/*",
            "org.apache.cassandra.tools.NodeTool",
            *where,
            *words,
        ]

    def _yaml(self) -> dict[str, Any]:
        merged = {**self._usual(), **self.settings}
        return {key: value for key, value in merged.items() if value is not None}

    def _usual(self) -> dict[str, Any]:
        seeds = [{"seeds": f"{address_of(0)}:{self.storage_port}"}]
        return {
            "cluster_name": "xmppd engines",
            "num_tokens": 1,
            "initial_token": str(-(2**63) + self.index * 2**64 // self.count),
            "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
            "endpoint_snitch": "SimpleSnitch",
            "seed_provider": [
                {"class_name": "org.apache.cassandra.locator.SimpleSeedProvider", "parameters": seeds}
            ],
            "auto_bootstrap": False,
            # The first node of a ring that is started again would wait ten seconds for the others.
            "block_for_peers_timeout_in_secs": 1,
            "auto_snapshot": False,
            "listen_address": self.address,
            "rpc_address": self.address,
            "native_transport_port": self.port,
            "storage_port": self.storage_port,
            "ssl_storage_port": self.storage_port + 1,
            "commitlog_sync": "periodic",
            "commitlog_sync_period": "10000ms",
            "commitlog_directory": f"{self.folder}/commitlog",
            "data_file_directories": [f"{self.folder}/data"],
            "hints_directory": f"{self.folder}/hints",
            "saved_caches_directory": f"{self.folder}/saved_caches",
            "cdc_enabled": False,
            "cdc_raw_directory": f"{self.folder}/cdc_raw",
            **SMALL,
            **(_large(self.heap) if self.is_long else {}),
        }


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A Redis without persistence: after a restart it is empty."""

    folder: Path
    port: int
    name = "redis"
    address = "127.0.0.1"

    @property
    def ports(self) -> list[int]:
        """All it listens on."""
        return [self.port]

    def prepare(self) -> list[str]:
        """Make its folder, and say how it is started."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return [
            str(install.redis_server()),
            *("--bind", self.address, "--port", str(self.port), "--dir", str(self.folder)),
            *("--save", "", "--appendonly", "no", "--daemonize", "no"),
            # Tests of faults make it slow by DEBUG SLEEP.
            *("--enable-debug-command", "local"),
        ]


Node = CassandraNode | RedisServer


def _large(heap: int) -> dict[str, Any]:
    """What differs with so many MiB of it: a quarter for what is new is Cassandra's own share."""
    share = f"{heap // 4}MiB"
    return {
        "memtable_heap_space": share,
        "memtable_offheap_space": share,
        "file_cache_size": f"{heap // 16}MiB",
        "key_cache_size": f"{heap // 32}MiB",
    }


def address_of(index: int) -> str:
    """The loopback address of a node of Cassandra."""
    return f"127.0.0.{11 + index}"
