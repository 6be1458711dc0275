"""Programs that draw on a terminal, at the hands of a user."""

import asyncio
import contextlib
import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time

SECONDS = 20.0
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[()][0-9A-Z]|\x1b[=>78]|[\x0e\x0f]")
ENTER = "\r"


class Terminal:
    """A program on a terminal of its own. What it has drawn since the last look is searched as plain text."""

    def __init__(self, command, environment):
        self._ours, its = os.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.process = subprocess.Popen(
            command, stdin=its, stdout=its, stderr=its, start_new_session=True, env=environment
        )
        os.close(its)
        self._drawn = b""

    def type(self, text):
        """Press these keys."""
        os.write(self._ours, text.encode())

    async def see(self, text):
        """Wait until the words of the text stand behind each other."""
        await asyncio.to_thread(self._see, text)

    def _see(self, text):
        words = re.compile(rb"\s*".join(re.escape(word.encode()) for word in text.split()))
        deadline = time.monotonic() + SECONDS
        while not (found := words.search(ESCAPES.sub(b"", self._drawn))):
            assert self._read(deadline), f"no {text!r} in {self._drawn!r}"
        self._drawn = ESCAPES.sub(b"", self._drawn)[found.end() :]

    def _read(self, deadline):
        ready, _, _ = select.select([self._ours], [], [], max(0, deadline - time.monotonic()))
        with contextlib.suppress(OSError):  # nobody is at the other end any more
            if ready and (data := os.read(self._ours, 65536)):
                self._drawn += data
                return True
        return False

    def wait(self):
        """Its exit code, once it has ended."""
        deadline = time.monotonic() + SECONDS
        while self._read(deadline):
            pass
        return self.process.wait(SECONDS)

    def close(self):
        """End it, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(SECONDS)
        os.close(self._ours)
