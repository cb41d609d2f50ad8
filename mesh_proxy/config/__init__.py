"""Configuration: Envoy's protobufs on one side, frozen dataclasses that workers understand on the other."""
