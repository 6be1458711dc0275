"""Processes that are known by pid and time of birth, so that nobody else's is ever taken for one of ours."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.errors import EngineError

POLL = 0.05
"""Seconds between two looks at something that has no event."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this machine, running or gone."""

    pid: int
    born: int
    """Clock ticks since the machine started."""

    def is_up(self) -> bool:
        """Whether any of its threads lives; another process with the same pid does not count."""
        stat = read_stat(self.pid)
        if stat is None or int(stat[19]) != self.born:
            return False
        if stat[0] != "Z" or self._has_threads():
            return True
        with contextlib.suppress(ChildProcessError):  # it is not ours
            os.waitpid(self.pid, os.WNOHANG)
        return False

    def _has_threads(self) -> bool:
        """Whether a zombie still holds its ports: the first thread of a process may end before others."""
        try:
            return len(list(Path(f"/proc/{self.pid}/task").iterdir())) > 1
        except OSError:
            return False

    def send(self, number: signal.Signals) -> None:
        """Send a signal if it still runs."""
        if self.is_up():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def memory(self) -> int:
        """Its resident memory in MiB; 0 when it is gone."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) // 1024
        return 0


def read_stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third (the state) on, or None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def spawn(command: Sequence[str | Path], log: Path, *, tied: bool) -> Process:
    """Start a process in a session of its own, with everything it says appended to `log`.

    A tied one is killed by the kernel when the calling thread ends, in whatever way.
    """
    arguments = [*(["setpriv", "--pdeathsig", "KILL", "--"] if tied else []), *map(str, command)]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawnp(
        arguments[0],
        arguments,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigdef=[signal.SIGPIPE],
    )
    stat = read_stat(pid)
    assert stat is not None, "a child that nobody has waited for is there"
    return Process(pid, int(stat[19]))


def stop_all(processes: Iterable[Process], grace: float) -> None:
    """TERM, then KILL to those that are left after `grace` seconds; returns when all are gone."""
    left = list(processes)
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 30.0)):
        for process in left:
            process.send(number)
        deadline = time.monotonic() + seconds
        while (left := [process for process in left if process.is_up()]) and time.monotonic() < deadline:
            time.sleep(POLL)
    if left:
        raise EngineError(f"the kernel does not end {', '.join(str(process.pid) for process in left)}")
