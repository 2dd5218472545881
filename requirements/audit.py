"""`python requirements/audit.py`: what is installed against the lock, file by file, and the licences of all of it.

The lock pins versions without hashes, because one line serves several platforms' wheels. This says what hashes would: that every locked
package is there in its version, that each of its files has the hash which its own RECORD states, and under which licence it stands.
`--licences` writes licences.md beside this file; `--quick` leaves the files out. Exits with 1 where something differs.
"""

import argparse
import base64
import hashlib
import importlib.metadata
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
PIN = re.compile(r"([A-Za-z0-9._-]+)={2,3}([^\s;#]+)(?:\s*;.*)?")
LICENCE = "License :: "


def locked() -> dict[str, str]:
    """Versions by name. Raises ValueError for a line that pins nothing."""
    pins = {}
    for line in (HERE / "lock-cpu.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            pin = PIN.fullmatch(line.strip())
            if pin is None:
                raise ValueError(f"not a pinned requirement: {line}")
            pins[pin[1]] = pin[2]
    return pins


def licence(package: importlib.metadata.Distribution) -> str:
    """By the package's own metadata: the expression, else the classifiers, else the first line of the licence field."""
    facts = package.metadata
    named = [text.rpartition(" :: ")[2] for text in facts.get_all("Classifier") or () if text.startswith(LICENCE)]
    free = (facts.get("License") or "").strip().splitlines()
    return facts.get("License-Expression") or ", ".join(named) or (free[0][:60] if free else "not stated")


def problems(name: str, version: str, files: bool) -> list[str]:
    try:
        package = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return [f"{name}: not installed"]
    found = [] if package.version.partition("+")[0] == version else [f"{name}: {package.version} is installed, {version} locked"]
    for file in package.files or () if files else ():
        path = Path(str(file.locate()))
        if file.hash is None or path.suffix == ".pyc":
            continue
        if not path.is_file():
            found.append(f"{name}: {file} is missing")
        elif _digest(path, file.hash.mode) != file.hash.value.rstrip("="):
            found.append(f"{name}: {file} is not what was installed")
    return found


def _digest(path: Path, mode: str) -> str:
    with path.open("rb") as file:
        return base64.urlsafe_b64encode(hashlib.file_digest(file, mode).digest()).decode().rstrip("=")


def table(pins: dict[str, str]) -> str:
    rows = [
        "# Licences of the locked packages",
        "",
        "Written by `python requirements/audit.py --licences` from the packages' own metadata.",
    ]
    rows += ["", "| package | version | licence |", "| --- | --- | --- |"]
    for name, version in sorted(pins.items(), key=lambda pin: pin[0].lower()):
        try:
            words = licence(importlib.metadata.distribution(name)).replace("|", "/")
        except importlib.metadata.PackageNotFoundError:
            words = "not installed where this was written"
        rows.append(f"| {name} | {version} | {words} |")
    return "\n".join(rows) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--licences", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    pins = locked()
    if options.licences:
        (HERE / "licences.md").write_text(table(pins), encoding="utf-8")
    found = [problem for name, version in pins.items() for problem in problems(name, version, not options.quick)]
    sys.stdout.write("\n".join([*found, f"{len(pins)} packages, {len(found)} problems"]) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
