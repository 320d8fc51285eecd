"""The floors of the house hold: no arrow up, no circle, nothing impure in recsys/."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Set
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {"recsys": 1, "features": 2, "training": 3, "serving": 3}
IMPURE = {
    "asyncio", "glob", "http", "httpx", "io", "kafka", "logging", "mlflow", "multiprocessing", "os",
    "pathlib", "queue", "random", "redis", "requests", "secrets", "select", "shutil", "signal", "socket", "sqlalchemy",
    "sqlite3", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid", "fastapi", "duckdb",
}  # fmt: skip
IMPURE_CALLS = {"open", "input", "print", "exec", "eval", "__import__"}
IMPURE_ATTRIBUTES = {
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("date", "today"),
    ("np", "random"),
    ("numpy", "random"),
}
NO_ROOM = {"utils", "util", "common", "helpers", "helper", "misc"}


def imported(source: str) -> set[str]:
    """Every module a source imports, dotted, imports inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the floor they come from"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def uphill(package: str, source: str) -> set[str]:
    """Imports that leave their floor upwards or sideways."""
    roots = {name.partition(".")[0] for name in imported(source)} & FLOORS.keys()
    return {root for root in roots if root != package and FLOORS[root] >= FLOORS[package]}


def impure(source: str) -> set[str]:
    """I/O, clock, chance or environment in a source of recsys/."""
    found = {name for name in imported(source) if name.partition(".")[0] in IMPURE}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            found.add(node.func.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            pair = (node.value.id, node.attr)
            if pair in IMPURE_ATTRIBUTES:
                found.add(".".join(pair))
    return found


def sources(package: str) -> Iterator[Path]:
    return (ROOT / package).rglob("*.py")


EVERY = [path for package in FLOORS for path in sources(package)]


@pytest.mark.parametrize("path", EVERY, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_arrow_goes_up(path: Path) -> None:
    name = path.relative_to(ROOT)
    if found := uphill(name.parts[0], path.read_text()):
        pytest.fail(f"{name} imports {', '.join(sorted(found))}, which is not below {name.parts[0]}", pytrace=False)


@pytest.mark.parametrize("path", list(sources("recsys")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_is_pure(path: Path) -> None:
    if found := impure(path.read_text()):
        pytest.fail(f"{path.relative_to(ROOT)} uses {', '.join(sorted(found))}: the core is handed that", pytrace=False)


def test_no_import_circles() -> None:
    """Modules, with imports under TYPE_CHECKING left out, can be put in an order."""
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in EVERY}
    arrows = {name: _arrows(_at_run_time(path.read_text()), names.keys() - {name}) for name, path in names.items()}
    while free := {name for name, to in arrows.items() if not to & arrows.keys()}:
        for name in free:
            del arrows[name]
    if arrows:
        pytest.fail(f"circle among {', '.join(sorted(arrows))}", pytrace=False)


def _arrows(said: set[str], modules: Set[str]) -> set[str]:
    """Modules of ours among the names; `from package import module` points at the module, not at the package."""
    return {name for name in said & modules if not any(other.rpartition(".")[0] == name for other in said & modules)}


def _at_run_time(source: str) -> set[str]:
    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return imported(ast.unparse(tree))


def test_every_file_tells_one_story() -> None:
    files = [*EVERY, *(ROOT / "tests").rglob("*.py")]
    assert {str(f.relative_to(ROOT)): n for f in files if (n := len(f.read_text().splitlines())) > 400} == {}
    assert [f for f in files if f.stem in NO_ROOM or f.parent.name in NO_ROOM] == []


def test_the_guard_itself_sees() -> None:
    """The checks above fail on what they are there to catch."""
    assert impure("import time")
    assert impure("def f():\n    from os import path")
    assert impure("x = np.random.rand()")
    assert uphill("features", "from serving import app") == {"serving"}
    assert uphill("training", "import serving.app") == {"serving"}
    assert uphill("recsys", "import features.fold") == {"features"}
    assert not uphill("serving", "import features.fold, recsys.types")
