"""Accepting: listening sockets, connection limits, and the choice of a filter chain."""
