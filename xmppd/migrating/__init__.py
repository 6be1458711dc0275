"""Moving accounts between servers, as an operator does it: runs, reports, comparisons.

Reads by `xmppd.migrate`, writes through the commands of a server (running, or its store alone), and keeps an
account of all that was done. May import everything but the command line.
"""
