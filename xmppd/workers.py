"""Several nodes on one machine behind one port: the parent that starts them, and starts again one that died.

It has no connections of its own. Each worker is a whole node: it listens at the ports of the configuration
with SO_REUSEPORT, so that the kernel shares clients out, has the next port after another for other nodes (and
for who watches it, `listen.http.own_port`), and a data folder of its own. Commands go to the first one that
is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from xmppd import log as logs
from xmppd import systemd
from xmppd.admin.whereabouts import is_alive, noted
from xmppd.checks import refuse_fatal
from xmppd.config import Config
from xmppd.configfile import SOCKET_NAME
from xmppd.engines import prepare_folder
from xmppd.errors import CommandError
from xmppd.serve import RESTART
from xmppd.settings import address_of
from xmppd.text import host_and_port

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds until a worker that died is started again: doubled each time."""

WELL_SECONDS: Final = 60.0
"""Who has lived for so long is started again as if it had never died."""

BAD_CONFIG: Final = 78
PDEATHSIG: Final = 1
"""`prctl`: the signal that a process gets when its parent ends."""


def supervise(load: Callable[[], Config], count: int) -> int:
    """Run so many workers until told to stop; the exit code."""
    config = load()
    refuse_fatal(config)
    refuse_alone(config, count)
    logs.configure(config.log)
    return asyncio.run(Parent(config, count).run())


def refuse_alone(config: Config, count: int) -> None:
    """CommandError for what several workers cannot do."""
    if count < 1:
        raise CommandError("workers must be 1 or more", 2)
    if config.cluster.listen is None:
        raise CommandError(
            "workers are nodes of a cluster: cluster.listen has to name a port, the next ones are theirs as "
            "well, and they need Cassandra and Redis (config/cluster.yaml)",
            BAD_CONFIG,
        )
    http = config.listen.http
    ports = [door.port for door in config.listen.c2s]
    ports += [http.port, http.own_port if http.own_port is not None else http.port] if http else []
    if not all(ports) or not address_of(config.cluster.listen, 0)[1]:
        raise CommandError("workers share their ports, so none can be 0", BAD_CONFIG)


class Worker:
    """One node. `place` is its number from 0, `status` what it said when it was ready."""

    def __init__(self, config: Config, place: int) -> None:
        self.place = place
        self.folder = config.server.data_folder.absolute() / f"worker-{place}"
        self.is_ready = False
        self.status = ""
        self.code = 0
        self.process: asyncio.subprocess.Process | None = None
        self._config = config
        self._address = f"@xmppd-{os.getpid()}-{secrets.token_hex(8)}"
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.notices.bind("\0" + self._address[1:])
        self.notices.setblocking(False)

    @property
    def socket(self) -> Path:
        """Where it takes commands."""
        return self.folder / SOCKET_NAME

    @property
    def environ(self) -> Mapping[str, str]:
        """What differs from the configuration of all."""
        cluster = self._config.cluster
        changed = {
            "XMPPD__SERVER__DATA_FOLDER": str(self.folder),
            "XMPPD__CLUSTER__LISTEN": self._shifted(cluster.listen or ""),
            "XMPPD__CLUSTER__UNIX": "true",
            "XMPPD__LISTEN__REUSE_PORT": "true",
            "NOTIFY_SOCKET": self._address,
            # The note of where a server runs is the parent's.
            "XDG_STATE_HOME": str(self.folder),
        }
        http = self._config.listen.http
        if http is not None and http.own_port is not None:
            changed["XMPPD__LISTEN__HTTP__OWN_PORT"] = str(http.own_port + self.place)
        if cluster.advertise is not None:
            changed["XMPPD__CLUSTER__ADVERTISE"] = self._shifted(cluster.advertise)
        return {**os.environ, **changed}

    def _shifted(self, address: str) -> str:
        host, port = address_of(address, 0)
        return host_and_port(host, port + self.place)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def live(self, stopping: asyncio.Event) -> None:
        """One life, from its start to its end; `code` is its exit code."""
        command = [sys.executable, "-m", "xmppd", "--config", str(self._config.source), "serve", "--no-guide"]
        self.process = await asyncio.create_subprocess_exec(
            *command,
            env=self.environ,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # ^C is for the parent
            preexec_fn=_end_with_parent,
        )
        log.info("worker-started", extra={"worker": self.place, "pid": self.process.pid})
        if stopping.is_set():  # meanwhile
            self.send(signal.SIGTERM)
        self.code = await self.process.wait()
        self.is_ready = False


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGTERM)


class Parent:
    """Keeps workers alive, hands signals on, and keeps the way of commands to one that lives."""

    def __init__(self, config: Config, count: int) -> None:
        prepare_folder(config)
        self._config = config
        self._link = config.socket_path.absolute()
        self._workers = [Worker(config, place) for place in range(count)]
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._is_up = False

    async def run(self) -> int:
        """Until all have ended; the exit code."""
        if is_alive(self._link):
            raise CommandError(f"another server is running here (it answers at {self._link})")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._terminate)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        for worker in self._workers:
            loop.add_reader(worker.notices, self._noticed, worker)
        first, *others = self._workers
        with noted(self._config.source, self._link):
            lives = [asyncio.create_task(self._keep(first))]
            await self._ready_or_over(first, lives[0])  # it makes the tables
            lives += [asyncio.create_task(self._keep(worker)) for worker in others]
            waiting = asyncio.create_task(self._stop())
            await asyncio.gather(*lives)
            waiting.cancel()
        self._link.unlink(missing_ok=True)
        log.info("workers-stopped")
        return max((worker.code for worker in self._workers), default=0) if not self._is_up else 0

    async def _ready_or_over(self, worker: Worker, life: asyncio.Task[None]) -> None:
        while not (worker.is_ready or life.done() or self._stopping.is_set()):
            self._changed.clear()
            changed = asyncio.ensure_future(self._changed.wait())
            await asyncio.wait((changed, life), return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()

    async def _keep(self, worker: Worker) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            await worker.live(self._stopping)
            self._point()
            if self._stopping.is_set():
                return
            facts = {"worker": worker.place, "code": worker.code}
            if worker.code == 0 or (worker.code == BAD_CONFIG and not worker.status):
                log.warning("worker-left", extra=facts)
                return
            if worker.code == RESTART:
                log.info("worker-restarts", extra=facts)
                continue
            if time.monotonic() - began >= WELL_SECONDS:
                pause = FIRST_PAUSE
            log.error("worker-died", extra={**facts, "seconds": pause})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _noticed(self, worker: Worker) -> None:
        with contextlib.suppress(BlockingIOError):
            said = worker.notices.recv(4096).decode(errors="replace")
            if said.startswith("READY=1"):
                worker.is_ready = True
                worker.status = said.partition("STATUS=")[2] or worker.status
                self._point()
                if not self._is_up and all(one.is_ready for one in self._workers):
                    self._is_up = True
                    log.info("workers-ready", extra={"workers": len(self._workers)})
                    systemd.notify(f"READY=1\nSTATUS={len(self._workers)} workers, {worker.status}")
            elif said.startswith("STOPPING=1"):
                worker.is_ready = False
                self._point()

    def _point(self) -> None:
        """Let commands find the first worker that is ready."""
        self._changed.set()
        found = next((worker for worker in self._workers if worker.is_ready), None)
        if found is None:
            return
        fresh = self._link.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(found.socket)
        fresh.replace(self._link)

    # signals

    def _hang_up(self) -> None:
        for worker in self._workers:
            worker.send(signal.SIGHUP)

    def _terminate(self) -> None:
        if self._stopping.is_set():
            for worker in self._workers:
                worker.send(signal.SIGTERM)
        self._stopping.set()
        self._changed.set()

    async def _stop(self) -> None:
        """Stop one after the other."""
        await self._stopping.wait()
        systemd.notify("STOPPING=1")
        log.info("workers-stopping", extra={"workers": len(self._workers)})
        for worker in self._workers:
            worker.send(signal.SIGTERM)
            if worker.process is not None:
                await worker.process.wait()
