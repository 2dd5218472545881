"""Imports go one way, and looking at tables loads no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY = {"vlm_rl": set(), "data": {"vlm_rl"}, "rewards": {"vlm_rl", "data"}, "eval": {"vlm_rl", "data", "rewards"}}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", [p for name in MAY for p in sorted((ROOT / name).rglob("*.py"))], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    if path.parent == ROOT / "vlm_rl" and path.name.startswith("cli"):
        return
    assert imported(path) & MAY.keys() <= MAY[package] | {package}


def test_tables_are_cheap_to_import():
    code = "import rewards, data, eval, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
