"""The command line: `xmppd` and `python -m xmppd`."""

import importlib
import sys

from xmppd.allocator import prefer_malloc


def main() -> None:
    """The entry point of the installed `xmppd` command."""
    if "serve" in sys.argv:
        prefer_malloc()
    # Only now, because this may have begun anew: what these two import takes a third of a second.
    serve, cli = (importlib.import_module(name) for name in ("xmppd.serve", "xmppd.admin.cli"))
    sys.exit(cli.main(sys.argv[1:], serve))


if __name__ == "__main__":
    main()
