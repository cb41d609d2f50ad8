"""fastjson2's binary JSON (JSONB), the default serialization of Dubbo 3.2: stepping over values, reading plain ones."""

from mesh_codecs.fastjson2.jsonb import NOT_PLAIN, plain_at, read, skip, string_bytes

__all__ = ["NOT_PLAIN", "plain_at", "read", "skip", "string_bytes"]
