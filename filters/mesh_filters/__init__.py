"""The filter interface and every filter: they act on one view of a request, whatever the protocol."""
