"""Which refusals of the layer of games were provoked, by their place."""

from refusing import record

record()
