"""Bringing an application's traffic to the proxy: iptables rules, switching them under traffic, localhost ports, probes."""
