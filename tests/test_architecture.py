"""The floors of the house hold: no arrow up, no circle, nothing impure in recsys/."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
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
FILE_LINES_MAX, FUNCTION_LINES_MAX, MODULES_MAX = 400, 60, 15
CROWDED: set[str] = set()
"""Folders with more than MODULES_MAX modules, until their modules are moved to subfolders."""
LONG_FILES: set[str] = set()
"""Files with more than FILE_LINES_MAX lines, until they are split."""
LONG_FUNCTIONS: set[str] = set()
"""Functions with more than FUNCTION_LINES_MAX lines, until they are split."""


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
    uses = {name for name in imported(source) if name.partition(".")[0] in IMPURE}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            uses.add(node.func.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            pair = (node.value.id, node.attr)
            if pair in IMPURE_ATTRIBUTES:
                uses.add(".".join(pair))
    return uses


def sources(package: str) -> Iterator[Path]:
    return (ROOT / package).rglob("*.py")


EVERY = [path for package in FLOORS for path in sources(package)]


@pytest.mark.parametrize("path", EVERY, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_arrow_goes_up(path: Path) -> None:
    name = path.relative_to(ROOT)
    if uses := uphill(name.parts[0], path.read_text()):
        pytest.fail(f"{name} imports {', '.join(sorted(uses))}, which is not below {name.parts[0]}", pytrace=False)


@pytest.mark.parametrize("path", list(sources("recsys")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_is_pure(path: Path) -> None:
    if uses := impure(path.read_text()):
        pytest.fail(f"{path.relative_to(ROOT)} uses {', '.join(sorted(uses))}: the core is handed that", pytrace=False)


def circle(modules: Mapping[str, str]) -> set[str]:
    """Modules (name -> source) that cannot be put in an order, since imports lead from them back to them.

    Imports inside functions and under TYPE_CHECKING count: who reads a module must know what they name.
    """
    arrows = {name: _arrows(imported(source), modules.keys() - {name}) for name, source in modules.items()}
    while free := {name for name, to in arrows.items() if not to & arrows.keys()}:
        for name in free:
            del arrows[name]
    return set(arrows)


def long_functions(source: str) -> set[str]:
    """Functions and methods with more than FUNCTION_LINES_MAX lines, decorators left out."""
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {n.name for n in functions if (n.end_lineno or n.lineno) - n.lineno + 1 > FUNCTION_LINES_MAX}


def is_long(source: str) -> bool:
    """Whether a file has more than FILE_LINES_MAX lines."""
    return len(source.splitlines()) > FILE_LINES_MAX


def crowded(paths: Iterable[Path]) -> set[str]:
    """Folders with more than MODULES_MAX modules, packages' own `__init__.py` left out."""
    count = Counter(str(path.parent) for path in paths if path.name != "__init__.py")
    return {folder for folder, modules in count.items() if modules > MODULES_MAX}


def _compared(over: set[str], exceptions: set[str], rule: str) -> None:
    """Fail for what breaks a rule without an exception, and for an exception that nothing needs any more."""
    if new := over - exceptions:
        pytest.fail(f"{', '.join(sorted(new))}: {rule}", pytrace=False)
    if spare := exceptions - over:
        pytest.fail(f"take {', '.join(sorted(spare))} out of the exceptions: {rule}", pytrace=False)


def test_no_import_circles() -> None:
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in EVERY}
    if uses := circle({name: path.read_text() for name, path in names.items()}):
        pytest.fail(f"circle among {', '.join(sorted(uses))}", pytrace=False)


def test_no_folder_is_crowded() -> None:
    _compared(crowded(path.relative_to(ROOT) for path in EVERY), CROWDED, f"at most {MODULES_MAX} modules in a folder")


def test_no_function_is_long() -> None:
    """Kernels are exempt: numba compiles a search as one function."""
    paths = [path for path in EVERY if "kernels" not in path.parts]
    over = {f"{path.relative_to(ROOT)}: {name}" for path in paths for name in long_functions(path.read_text())}
    _compared(over, LONG_FUNCTIONS, f"at most {FUNCTION_LINES_MAX} lines in a function")


def _arrows(imports: set[str], modules: Set[str]) -> set[str]:
    """Return the imported modules; `from package import module` counts as the module, not as the package."""
    own = imports & modules
    return {name for name in own if not any(child.rpartition(".")[0] == name for child in own)}


def test_every_file_tells_one_story() -> None:
    files = [*EVERY, *(ROOT / "tests").rglob("*.py")]
    over = {str(file.relative_to(ROOT)) for file in files if is_long(file.read_text())}
    _compared(over, LONG_FILES, f"at most {FILE_LINES_MAX} lines in a file")
    assert [f for f in files if f.stem in NO_ROOM or f.parent.name in NO_ROOM] == []


def test_the_guard_itself_sees() -> None:
    """The checks above fail on what they are there to catch."""
    assert impure("import time")
    assert impure("def f():\n    from os import path")
    assert impure("x = np.random.rand()")
    assert uphill("features", "from serving import app") == {"serving"}
    assert uphill("training", "import serving.app") == {"serving"}
    assert uphill("recsys", "import features.state.fold") == {"features"}
    assert not uphill("serving", "import features.state.fold, recsys.domain.types")
    below = "if TYPE_CHECKING:\n    from recsys.b import B"
    assert circle({"recsys.a": below, "recsys.b": "def f():\n    from recsys import a"}) == {"recsys.a", "recsys.b"}
    assert circle({"recsys.a": below, "recsys.b": "import numpy", "recsys": ""}) == set()
    assert crowded([Path(f"recsys/m{n}.py") for n in range(16)]) == {"recsys"}
    assert crowded([*(Path(f"recsys/m{n}.py") for n in range(15)), Path("recsys/__init__.py")]) == set()
    assert is_long("pass\n" * 401)
    assert not is_long("pass\n" * 400)
    sixty = "\n".join(["    async def f(self):", *["        pass"] * 59])
    assert long_functions(f"class A:\n{sixty}\n        pass") == {"f"}
    assert long_functions(f"class A:\n{sixty}") == set()


@pytest.mark.parametrize(
    ("over", "exceptions", "message"), [({"a"}, set(), "a: the rule"), (set(), {"a"}, "take a out")]
)
def test_exceptions_are_exact(over: set[str], exceptions: set[str], message: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=message):
        _compared(over, exceptions, "the rule")
