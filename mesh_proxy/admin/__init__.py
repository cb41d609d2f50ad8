"""The admin interface: Envoy's paths and forms over a small HTTP/1.1 server in the supervisor."""
