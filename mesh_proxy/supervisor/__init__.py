"""The supervisor: owns configuration, listening sockets, workers, statistics and the admin interface, and no traffic."""
