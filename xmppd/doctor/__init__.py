"""What an operator should know before his users do: names in the DNS, ports, certificates, clocks, the
machine, and settings that are dangerous together.
"""
