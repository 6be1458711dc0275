"""A real Cassandra and a real Redis on loopback, for tests and for trying things out."""

from engines.errors import EngineError
from engines.group import SYNCED, Engines

__all__ = ["SYNCED", "EngineError", "Engines"]
