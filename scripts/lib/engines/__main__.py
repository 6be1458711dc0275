"""engines start|stop|status|kill|nodetool|install: a real Cassandra and a real Redis on loopback."""

import argparse
import logging
import signal
import sys
from pathlib import Path

from engines.errors import EngineError
from engines.group import HEAP, Engines
from engines.install import cache_folder, cassandra_jars, java, redis_server


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/engines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument(
        "--folder",
        type=Path,
        default=cache_folder() / "default",
        help="where their data and logs are (default: %(default)s)",
    )
    start = commands.add_parser(
        "start", parents=[folder], help="start those that are down; print where they are"
    )
    start.add_argument("--nodes", type=int, choices=(1, 3), default=1, help="nodes of Cassandra (default: 1)")
    start.add_argument("--jmx", action="store_true", help="with a port for nodetool, see `nodetool`")
    start.add_argument("--heap", type=int, metavar="MiB", help=f"for each node (default: {HEAP})")
    stop = commands.add_parser("stop", parents=[folder], help="stop them; wait until they are gone")
    stop.add_argument("--remove", action="store_true", help="remove the folder with all data, too")
    commands.add_parser("status", parents=[folder], help="what is up; exits with 1 when something is not")
    kill = commands.add_parser("kill", parents=[folder], help="kill -9 one of them; `start` brings it back")
    kill.add_argument("node", help="cassandra1, cassandra2, cassandra3 or redis")
    nodetool = commands.add_parser(
        "nodetool", parents=[folder], help="have a node of Cassandra do something; it was started with --jmx"
    )
    nodetool.add_argument("node", help="cassandra1, cassandra2 or cassandra3")
    nodetool.add_argument("words", nargs=argparse.REMAINDER, help="a command of nodetool")
    commands.add_parser("install", help="install and fetch what is missing, start nothing")
    return parser.parse_args()


def show_addresses(engines: Engines) -> None:
    """Print where they are, as the variables that tests look at."""
    points = ",".join(f"{host}:{port}" for host, port in engines.contact_points)
    print(f"XMPPD_TEST_CASSANDRA={points}")
    print(f"XMPPD_TEST_REDIS={engines.redis_url}")


def show_status(engines: Engines) -> int:
    """Print a line for each engine; 0 when all are up."""
    nodes = engines.nodes()
    for node in nodes:
        process = engines.process(node.name)
        state = f"up, pid {process.pid}, {process.memory()} MiB" if process else "down"
        print(f"{node.name:<10} {node.address}:{node.port:<5} {state}")
    if not nodes:
        print(f"there are no engines in {engines.folder}")
    return 0 if nodes and all(engines.process(node.name) for node in nodes) else 1


def main() -> int:
    """Do what the command line says."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # The driver would tell of each node that is not there yet.
    logging.disable()
    if options.command == "install":
        for install in (java, redis_server, cassandra_jars):
            install()
        return 0
    if options.command == "start":
        engines = Engines(options.folder, options.nodes, heap=options.heap, jmx=options.jmx)
        engines.start()
        show_addresses(engines)
        return 0
    engines = Engines(options.folder)
    if options.command == "status":
        return show_status(engines)
    if options.command == "nodetool":
        print(engines.nodetool(options.node, *options.words), end="")
    elif options.command == "kill":
        engines.kill(options.node)
    elif options.remove:
        engines.remove()
    else:
        engines.stop()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EngineError as error:
        sys.exit(f"engines: {error}")
