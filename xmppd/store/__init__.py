"""Durable storage: table declarations and the port in `table`, one module per engine beside it."""
