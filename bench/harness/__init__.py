"""Common ground of the benchmarks: starting the programs compared, loading them in turn, reading what they cost."""
