"""A real Cassandra and a real Redis on loopback, for tests and for trying things out; see `scripts/engines`."""

from engines.errors import EngineError
from engines.group import Engines

__all__ = ["EngineError", "Engines"]
