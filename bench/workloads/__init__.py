"""The kinds of traffic that the benchmarks send, each with the same configuration for every program."""
