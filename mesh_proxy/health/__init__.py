"""The health of the sidecar and of its application, for whoever started them: readiness port and probes."""
