"""Seeds that depend on what is drawn, never on rank, time or order."""

import hashlib


def stable_hash(*parts: object) -> int:
    """63-bit hash of the parts' text, equal on every machine and in every process (Python's own `hash` is salted)."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
