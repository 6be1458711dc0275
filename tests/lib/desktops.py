"""Programs with windows: on a screen that nobody sees, with a session bus, not as root if that can be."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SECONDS = 60.0
NOBODY = 65534


class Desktop:
    """A screen and a bus; `folder` is the user's home."""

    def __init__(self) -> None:
        self._outer = Path(tempfile.mkdtemp(prefix="desktop-"))
        self.folder = self._outer / "home"
        self.folder.mkdir(0o700)
        self._as: list[str] = []
        if may_change():
            self._outer.chmod(0o755)
            os.chown(self.folder, NOBODY, NOBODY)
            self._as = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        self._started: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **os.environ,
            "HOME": str(self.folder),
            "XDG_RUNTIME_DIR": str(self.folder),
            "XDG_DATA_HOME": str(self.folder / "share"),
            "LC_ALL": "C.UTF-8",
            "NO_AT_BRIDGE": "1",
            "GDK_BACKEND": "x11",
            "GSK_RENDERER": "cairo",
        }
        try:
            screen = ["Xvfb", "-displayfd", "1", "-screen", "0", "1000x700x24", "-nolisten", "tcp"]
            self._environment["DISPLAY"] = f":{self._first_line(screen)}"
            bus = ["dbus-daemon", "--session", "--nofork", "--print-address=1"]
            self._environment["DBUS_SESSION_BUS_ADDRESS"] = self._first_line([*self._as, *bus])
        except BaseException:
            self.close()
            raise

    def run(self, *command: str, log: str = "log") -> subprocess.Popen[bytes]:
        """Start a program; what it says goes to the end of a file, see `said`."""
        with (self._outer / log).open("ab") as said:
            return self._start([*self._as, *command], said, subprocess.STDOUT)

    def done(self, *command: str) -> str:
        """What a program said that ended well."""
        code, said = self._whole(command)
        assert code == 0, said
        return said

    def is_done(self, *command: str) -> bool:
        """Whether a program ended well."""
        return self._whole(command)[0] == 0

    def _whole(self, command: Sequence[str]) -> tuple[int, str]:
        program = self._start([*self._as, *command], subprocess.PIPE, subprocess.STDOUT)
        said = program.communicate(timeout=SECONDS)[0].decode(errors="replace")
        return program.returncode, said

    def said(self, log: str = "log") -> str:
        """What is in such a file by now."""
        file = self._outer / log
        return file.read_text(errors="replace") if file.exists() else ""

    def give(self, file: Path, *, to: Path) -> None:
        """Copy a file to the user."""
        shutil.copy(file, to)
        to.chmod(0o644)

    def end(self, program: subprocess.Popen[bytes]) -> None:
        """End a program that `run` started."""
        program.send_signal(signal.SIGTERM)
        try:
            program.wait(SECONDS)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait(SECONDS)

    def close(self) -> None:
        """End everything, and delete the folder."""
        for program in reversed(self._started):
            if program.poll() is None:
                self.end(program)
            if program.stdout is not None:
                program.stdout.close()
        shutil.rmtree(self._outer)

    def _start(self, command: Sequence[str], output: Any, errors: int) -> subprocess.Popen[bytes]:
        program = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=self._environment,
            cwd=self.folder,
        )
        self._started.append(program)
        return program

    def _first_line(self, command: Sequence[str]) -> str:
        program = self._start(command, subprocess.PIPE, subprocess.DEVNULL)
        assert program.stdout is not None
        return program.stdout.readline().decode().strip()


def may_change() -> bool:
    """Whether we are root, and not only called so in a namespace that has nobody else."""
    return os.geteuid() == 0 and int(Path("/proc/self/uid_map").read_text().split()[2]) > 1


def until(found: Callable[[], object], what: str) -> None:
    """Look again and again, for a minute at most, until something is found."""
    deadline = time.monotonic() + SECONDS
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
