"""The command line: `xmppd` and `python -m xmppd`."""

import gc
import importlib
import sys
from typing import Any

from xmppd.admin import cli
from xmppd.allocator import prefer_malloc

PLACES = {
    "load": "xmppd.config",
    "check": "xmppd.checks",
    "offline": "xmppd.offline",
    "copy_store": "xmppd.copying",
    "restore_store": "xmppd.backups",
    "migrate": "xmppd.migrating.commands",
    "serve": "xmppd.serve",
    "supervise": "xmppd.workers",
}
"""What the command line needs of the server's own code -> the module that has it."""

COLLECT_AFTER = 100_000
"""How many new objects there may be before Python looks for cycles among them. Nearly all that loading makes
stays: with Python's own 700 a command without a server spends a tenth of its time on that.
"""


class Server:
    """The server's own code, of which each command loads what it uses: all of it takes half a second."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(PLACES[name]), name)


def main() -> None:
    """The entry point of the installed `xmppd` command."""
    if "serve" in sys.argv:
        prefer_malloc()
    gc.set_threshold(COLLECT_AFTER)
    sys.exit(cli.main(sys.argv[1:], Server()))


if __name__ == "__main__":
    main()
