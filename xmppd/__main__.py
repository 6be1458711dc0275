"""The command line: `xmppd` and `python -m xmppd`."""

import sys

from xmppd import serve
from xmppd.admin import cli


def main() -> None:
    """The entry point of the installed `xmppd` command."""
    sys.exit(cli.main(sys.argv[1:], serve))


if __name__ == "__main__":
    main()
