"""What operators see of a server from outside: whether it is well, and its numbers, by HTTP."""
