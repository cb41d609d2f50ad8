"""Programs of other projects to talk to through the proxy: built when a test wants them, skipped where they cannot be."""
