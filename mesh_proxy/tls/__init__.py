"""TLS: certificates and who they name, contexts, and the transport that lies between a connection and its socket."""
