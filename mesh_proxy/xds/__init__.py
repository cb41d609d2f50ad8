"""Configuration that arrives while the proxy runs: resources by type and name, with versions, warming and refusal."""
