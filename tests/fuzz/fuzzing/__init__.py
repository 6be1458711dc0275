"""A structure-aware fuzzer with an oracle: what clients may do to a server, and who may receive what."""
