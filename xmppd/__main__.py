"""The command line: `xmppd` and `python -m xmppd`."""

import importlib
import sys
from typing import Any

from xmppd.admin import cli
from xmppd.allocator import prefer_malloc


class Server:
    """The server's own code, loaded when something of it is used: that takes half a second."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("xmppd.serve"), name)


def main() -> None:
    """The entry point of the installed `xmppd` command."""
    if "serve" in sys.argv:
        prefer_malloc()
    sys.exit(cli.main(sys.argv[1:], Server()))


if __name__ == "__main__":
    main()
