"""Bytes written by Apache Dubbo's own serializers on JDK 17."""

from pathlib import Path

CALL = bytes.fromhex(
    "dabbc20000000000000000010000006205322e302e321164656d6f2e48656c6c6f5365727669636505312e302e300873617948656c6c6f"
    "124c6a6176612f6c616e672f537472696e673b05776f726c644804706174681164656d6f2e48656c6c6f536572766963650567726f75700267315a"
)
"""sayHello("world") in hessian2, two-way, id 1, attachments path and group"""

GENERIC_BODY = bytes.fromhex(
    "05322e302e321164656d6f2e48656c6c6f5365727669636505312e302e300724696e766f6b6530384c6a6176612f6c616e672f537472696e673b"
    "5b4c6a6176612f6c616e672f537472696e673b5b4c6a6176612f6c616e672f4f626a6563743b0873617948656c6c6f71075b737472696e67"
    "106a6176612e6c616e672e537472696e6771075b6f626a65637405776f726c64480767656e65726963047472756 55a".replace(" ", "")
)
"""the same as a generic call"""


def recorded_bodies() -> dict[tuple[str, str], bytes]:
    """The bodies of tests/data/dubbo/bodies.txt by serialization and name."""
    lines = (Path(__file__).parent / "data" / "dubbo" / "bodies.txt").read_text().splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    return {(serialization, name): bytes.fromhex(body) for serialization, name, body in rows}


IDS = {"hessian2": 2, "java": 3, "compactedjava": 4, "nativejava": 7, "fastjson2": 23}
