"""The machine that the server runs on: descriptors, queues, files, the disk, its clock, who it runs as."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import resource
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from xmppd.config import Config
from xmppd.doctor.advice import Advice

RESERVED = 128
"""Descriptors that are not for clients: files, engines, other nodes."""

FEW_CONNECTIONS = 10_000
SLOW_SYNC_SECONDS = 0.02
SYNCS = 5
LITTLE_BYTES = 1 << 30
LITTLE_SHARE = 0.05

TIME_ERROR = 5
"""What adjtimex(2) returns while nothing keeps the clock right."""

_TIMEX_BYTES = 512
"""More than the structure has anywhere; modes, its first member, is 0: nothing is set."""


def look(config: Config) -> Iterator[Advice]:
    """All of it. Blocks for some fsyncs."""
    yield from _descriptors(config)
    yield from _backlog(config)
    yield from _folder(config)
    yield from _disk(config)
    yield from _keys(config)
    yield from _clock()
    yield from _process(config)


def _descriptors(config: Config) -> Iterator[Advice]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = soft - RESERVED
    wanted = config.limits.connections
    do = "LimitNOFILE= of the unit, or ulimit -n"
    if wanted > room:
        text = f"{soft} are allowed, and limits.connections is {wanted}"
        yield Advice("error", "descriptors", text, do)
    elif room < FEW_CONNECTIONS:
        yield Advice("warning", "descriptors", f"{soft} are allowed: no more than {room} clients", do)
    else:
        yield Advice("ok", "descriptors", f"{soft} are allowed")


def _backlog(config: Config) -> Iterator[Advice]:
    try:
        allowed = int(Path("/proc/sys/net/core/somaxconn").read_text())
    except (OSError, ValueError):
        return
    if allowed < config.listen.backlog:
        text = f"{allowed} connections may wait to be accepted, and listen.backlog is {config.listen.backlog}"
        yield Advice("note", "backlog", text, f"sysctl net.core.somaxconn={config.listen.backlog}")


def _folder(config: Config) -> Iterator[Advice]:
    folder = config.server.data_folder
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError as error:
        yield Advice("error", str(folder), f"cannot be looked at: {error.strerror}", "server.data_folder")
        return
    if mode & 0o077:
        text = f"others than its owner get in (mode {mode:04o}); tokens and messages are there"
        yield Advice("warning", str(folder), text, f"chmod 700 {folder}")


def _disk(config: Config) -> Iterator[Advice]:
    folder = config.server.data_folder
    try:
        usage = shutil.disk_usage(folder)
        seconds = _sync_seconds(folder)
    except OSError as error:
        yield Advice("error", str(folder), f"cannot be written: {error.strerror}", "server.data_folder")
        return
    free = f"{usage.free / (1 << 30):.1f} GiB are free"
    if usage.free < LITTLE_BYTES or usage.free < LITTLE_SHARE * usage.total:
        yield Advice("warning", "disk", free, "a full disk stops every write")
    else:
        yield Advice("ok", "disk", free)
    text = f"a write is on the disk after {seconds * 1000:.1f} ms"
    is_slow = seconds > SLOW_SYNC_SECONDS and config.store.engine == "sqlite"
    do = "every acknowledged message waits for that: a disk with less delay"
    yield Advice("warning", "disk", text, do) if is_slow else Advice("ok", "disk", text)


def _sync_seconds(folder: Path) -> float:
    """What a small write with fsync takes, by the middle one of some; OSError."""
    took = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(SYNCS):
            started = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - started)
    return sorted(took)[SYNCS // 2]


def _keys(config: Config) -> Iterator[Advice]:
    for name, pair in config.tls.certificates.items():
        try:
            mode = stat.S_IMODE(pair.key.stat().st_mode)
        except OSError:
            continue  # of the certificates' own advice
        if mode & 0o007:
            text = f"{pair.key} can be read by everybody (mode {mode:04o})"
            yield Advice("error", f"key of {name}", text, f"chmod 640 {pair.key}")


def _clock() -> Iterator[Advice]:
    state = _clock_state()
    if state == TIME_ERROR:
        text = "nothing keeps the clock of this machine right"
        yield Advice("warning", "clock", text, "run chrony or systemd-timesyncd")
    elif state >= 0:
        yield Advice("ok", "clock", "the clock of this machine is kept right")


def _clock_state() -> int:
    """What adjtimex(2) says; -1 where it cannot be asked."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return int(libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    except (OSError, AttributeError):
        return -1


def _process(config: Config) -> Iterator[Advice]:
    if os.geteuid() == 0:
        yield Advice("warning", "process", "the server runs as root", "a user of its own (deploy/)")
    if config.loop.uvloop and importlib.util.find_spec("uvloop") is None:
        yield Advice("warning", "process", "uvloop is not installed", "pip install uvloop")
