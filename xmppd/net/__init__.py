"""Listeners and connections: the only place that touches sockets and TLS."""
