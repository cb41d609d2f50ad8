"""Network filters: what is done with the bytes of an accepted connection."""
