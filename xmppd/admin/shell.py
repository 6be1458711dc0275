"""`xmppd shell`: one command after another, with a history and completion of words."""

from __future__ import annotations

import contextlib
import os
import readline
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from xmppd.admin.commands import USAGE, Description

PROMPT: Final = "xmppd> "
LINES: Final = 1000
"""Of the history."""
LEAVING: Final = ("exit", "quit")


class Shell:
    """Reads lines until the end of input. `run` does a command line and gives its exit code, `complete` says
    what its last word may become.
    """

    def __init__(
        self,
        run: Callable[[Sequence[str]], int],
        complete: Callable[[Sequence[str]], Sequence[str]],
        secrets: Callable[[], Sequence[Description]],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._run = run
        self._complete = complete
        self._secrets = secrets
        state = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME") or "/") / ".local" / "state"
        self._file = Path(state) / "xmppd" / "history"

    def loop(self) -> int:
        """Read and run lines; the exit code of the last one."""
        self._begin()
        exit_code = 0
        try:
            while True:
                try:
                    line = input(PROMPT if sys.stdin.isatty() else "")
                except EOFError:
                    return exit_code
                except KeyboardInterrupt:
                    sys.stderr.write("\n")
                    continue
                try:
                    words = shlex.split(line, comments=True)
                except ValueError as error:
                    sys.stderr.write(f"xmppd: {error}\n")
                    exit_code = USAGE
                    continue
                if words and words[0] in LEAVING:
                    return exit_code
                if words:
                    self._forget_secrets(words)
                    exit_code = self._do(words)
        finally:
            self._end()

    def _do(self, words: Sequence[str]) -> int:
        if words[0] == "shell":
            return 0
        try:
            return self._run(words)
        except SystemExit as end:  # of --help
            return int(end.code or 0)

    def _begin(self) -> None:
        with contextlib.suppress(OSError):
            readline.read_history_file(self._file)
        readline.set_history_length(LINES)
        readline.set_completer_delims(" \t")
        readline.set_completer(self._completed)
        readline.parse_and_bind("tab: complete")

    def _end(self) -> None:
        readline.set_completer(None)
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            readline.write_history_file(self._file)
            self._file.chmod(0o600)

    def _completed(self, text: str, number: int) -> str | None:
        try:
            before = shlex.split(readline.get_line_buffer()[: readline.get_begidx()])
        except ValueError:
            return None
        found = self._complete([*before, text])
        return f"{found[number]} " if number < len(found) else None

    def _forget_secrets(self, words: Sequence[str]) -> None:
        """What was typed openly is not kept."""
        options = {
            f"--{it.name.replace('_', '-')}"
            for about in self._secrets()
            for it in about.parameters
            if it.secret
        }
        last = readline.get_current_history_length()
        if last and any(word.partition("=")[0] in options for word in words):
            readline.remove_history_item(last - 1)
