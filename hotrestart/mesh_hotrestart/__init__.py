"""Handing sockets and connections to a new process over a unix socket."""
