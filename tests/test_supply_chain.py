"""Nothing that is read from outside can run as code, dependencies are pinned with their licences listed, and the soak tells growth."""

import ast
import importlib.util
from pathlib import Path

import pytest

from benchmarks.soak import verdict

ROOT = Path(__file__).parent.parent
FOLDERS = ("vlm_rl", "rewards", "data", "eval", "benchmarks", "requirements")
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load"), ("os", "system"), ("os", "popen")}


def unsafe(tree: ast.AST) -> list[str]:
    """What in a module could run what it reads."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"{node.lineno}: import {name}" for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
        if not isinstance(node, ast.Call):
            continue
        keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
        place, called = f"{node.lineno}: {ast.unparse(node.func)}", node.func
        if isinstance(called, ast.Name) and called.id in FORBIDDEN_CALLS:
            found.append(place)
        if isinstance(called, ast.Attribute):
            owner = ast.unparse(called.value)
            unpickles = (called.attr == "load" and owner == "torch" and keywords.get("weights_only") != "True") or (
                called.attr in ("load", "memmap") and owner == "np" and "allow_pickle" in keywords
            )
            if (owner, called.attr) in FORBIDDEN_ATTRIBUTES or unpickles:
                found.append(place)
        if keywords.get("shell", "False") != "False" or keywords.get("trust_remote_code", "False") != "False":
            found.append(f"{place} with shell or trust_remote_code")
    return found


@pytest.mark.parametrize("path", [p for f in FOLDERS for p in sorted((ROOT / f).rglob("*.py"))], ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_read_can_run(path: Path) -> None:
    assert unsafe(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from dill import loads", "eval(x)", "exec(x)", "torch.load(p)", "torch.load(p, weights_only=False)",
        "yaml.load(x)",
        "subprocess.run(x, shell=True)", "AutoModel.from_pretrained(p, trust_remote_code=flag)", "np.load(p, allow_pickle=True)",
        "os.system(x)",
    ],
)  # fmt: skip
def test_what_is_unsafe_is_seen(text: str) -> None:
    assert len(unsafe(ast.parse(text))) == 1
    assert unsafe(ast.parse("model.eval(); torch.load(p, weights_only=True); yaml.safe_load(x); re.compile(x); json.load(f)")) == []


def test_every_dependency_is_pinned_and_its_licence_listed() -> None:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "requirements" / "audit.py")
    assert spec is not None and spec.loader is not None
    audit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(audit)
    pins = audit.locked()
    listed = (ROOT / "requirements" / "licences.md").read_text(encoding="utf-8")
    assert len(pins) > 200 and all(f"| {name} | {version} |" in listed for name, version in pins.items())
    assert audit.problems("pytest", pins["pytest"], files=True) == []
    assert audit.problems("pytest", "0.1", files=False) and audit.problems("no-such-package", "1", files=False)


def test_a_soak_tells_growth_from_warming_up() -> None:
    flat = [{"rss_mb": 500.0 + 50 * min(i, 10), "handles": 20.0, "threads": 8.0} for i in range(60)]
    assert set(verdict(flat).values()) == {"flat"}
    leaking = [{**row, "rss_mb": 500.0 + 10 * i, "handles": 20.0 + i // 10} for i, row in enumerate(flat)]
    assert [name for name, words in verdict(leaking).items() if words != "flat"] == ["rss_mb", "handles"]
    with pytest.raises(ValueError, match="too few"):
        verdict(flat[:9])
