"""One request and its response, from the first byte to the log line."""
