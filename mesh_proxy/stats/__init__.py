"""Counting: plain ints on slotted objects on the data path, shared pages and Envoy's names outside it."""
