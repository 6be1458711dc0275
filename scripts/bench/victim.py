"""A server that is killed and started again, by `scripts/bench/start`."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stream import Stream, connect

from xmppd.admin.client import request

HERE = Path(__file__).parent
PASSWORD = "secret"
ROSTER = "jabber:iq:roster"


class Server:
    """One that is killed and started again, with the plugins of a `profile` (see `start`). `environ`
    overrides its configuration at the next start.
    """

    def __init__(
        self, folder: Path, port: int, environ: Mapping[str, str] | None = None, profile: str = "unarchived"
    ) -> None:
        self.profile = profile
        self.folder = folder
        self.port = port
        self.pid = 0
        self.log: list[str] = []
        self.environ = environ or {}

    def collect_log(self) -> None:
        """Each start begins a new log."""
        with contextlib.suppress(FileNotFoundError):
            self.log += (self.folder / "xmppd.log").read_text().splitlines()

    async def start(self) -> float:
        """How many seconds it took."""
        self.collect_log()
        began = time.monotonic()
        environ = {**os.environ, **self.environ}
        starting = await asyncio.create_subprocess_exec(
            HERE / "start", self.folder, str(self.port), self.profile, stdout=subprocess.PIPE, env=environ
        )
        said, _ = await starting.communicate()
        assert starting.returncode == 0, "the server does not start"
        self.pid = int(said.split()[1])
        return time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)

    def is_up(self) -> bool:
        """Whether the process runs; one that nobody has waited for does not."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def stop(self, seconds: float = 10) -> None:
        """SIGTERM, and SIGKILL when that does not end it in time."""
        if not self.pid:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
            end = time.monotonic() + seconds
            while self.is_up():
                if time.monotonic() > end:
                    os.kill(self.pid, signal.SIGKILL)
                time.sleep(0.02)
        self.pid = 0

    async def log_in(self, user: str, password: str = PASSWORD) -> Stream:
        """A stream with a resource."""
        stream = await connect(self.port)
        try:
            await stream.log_in(user, password)
        except BaseException:
            stream.cut()
            raise
        return stream

    async def command(self, name: str, **arguments: str) -> Any:
        """Run a command in it."""
        return await asyncio.to_thread(request, self.folder / "xmppd.sock", name, arguments, seconds=20)
