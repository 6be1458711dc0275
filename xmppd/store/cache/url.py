"""From the url of a configuration to clients of `redis.asyncio`: one server, Sentinel or Cluster.

    redis://[[user]:password@]host:port/db     rediss:// with TLS     unix://[:password@]/path?db=0
    redis+sentinel://[[user]:password@]host:port,host:port/service/db      rediss+sentinel://
    redis+cluster://[[user]:password@]host:port,host:port                  rediss+cluster://

What redis-py takes in the query of a url (`ssl_ca_certs`, `ssl_certfile`, ...) is taken in all of them.
"""

from __future__ import annotations

import os
import random
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

Client = Any
"""`Redis` or `RedisCluster`; their types differ between the versions of redis-py that are supported."""

_SENTINEL_PORT = 26379


class Place:
    """Where Redis is: makes the client for commands, and those for the channel, which read without a
    limit. ValueError for a url that redis-py cannot use, or that names files that cannot be read.
    """

    def __init__(self, url: str, connect_timeout: float) -> None:
        scheme, _, self._kind = urlsplit(url).scheme.partition("+")
        parts = urlsplit(url)
        userinfo, at, hosts = parts.netloc.rpartition("@")
        self._hosts = [_host(host) for host in hosts.split(",")] if self._kind else []
        path = parts.path.strip("/").split("/")
        self._service = path[0] if self._kind == "sentinel" else ""
        first = hosts.split(",")[0]
        plain_path = "/" + "/".join(path[1:]) if self._kind == "sentinel" else parts.path
        plain = f"{scheme}://{userinfo}{at}{first}{plain_path}" + (f"?{parts.query}" if parts.query else "")
        self._options: dict[str, Any] = {
            **parse_url(plain),
            "socket_connect_timeout": connect_timeout,
            "socket_timeout": None,  # of a whole batch instead, by who sends it
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
        }
        _try_out(self._options)
        self._connect_timeout = connect_timeout
        self._cluster: Client | None = None

    async def commands(self) -> Client:
        """A new client for commands."""
        if self._kind == "cluster":
            self._cluster = await self._cluster_client()
            return self._cluster
        return self._single(max_connections=8)

    def channel(self) -> Client:
        """A new client for one subscription. In a cluster any node hears what is published on any other."""
        if self._cluster is None:
            return self._single(max_connections=1)
        node = random.SystemRandom().choice(self._cluster.get_nodes())
        options = {**self._options, "host": node.host, "port": node.port}
        return Redis(connection_pool=ConnectionPool(max_connections=1, **options))

    def _single(self, *, max_connections: int) -> Client:
        if self._kind == "sentinel":
            options = {name: value for name, value in self._options.items() if name not in ("host", "port")}
            options["ssl"] = options.pop("connection_class", None) is not None
            limits = {
                "socket_connect_timeout": self._connect_timeout,
                "socket_timeout": self._connect_timeout,
            }
            make: Any = Sentinel  # it has no types
            sentinel = make(self._hosts, sentinel_kwargs=limits, **options)
            return sentinel.master_for(self._service, max_connections=max_connections)
        return Redis(connection_pool=ConnectionPool(max_connections=max_connections, **self._options))

    async def _cluster_client(self) -> Client:
        options = {
            name: value
            for name, value in self._options.items()
            if name not in ("host", "port", "db", "connection_class")
        }
        client = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in self._hosts],
            ssl=self._options.get("connection_class") is not None,
            max_connections=16,
            **options,
        )
        # Now, in peace: a client that has not seen the cluster yet fails when many use it at once.
        await client.initialize()
        return client


def _try_out(options: dict[str, Any]) -> None:
    """Make a connection, not yet connected: redis-py says only then what it does not know."""
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if name in options and not os.access(options[name], os.R_OK):
            raise ValueError(f"{name}: {options[name]} cannot be read")
    pool: Any = ConnectionPool(max_connections=1, **options)
    try:
        pool.make_connection()
    except (TypeError, RedisError) as error:
        raise ValueError(str(error)) from None


def _host(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return text.strip("[]"), _SENTINEL_PORT
    return host.strip("[]"), int(port)
