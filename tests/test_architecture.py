"""Architecture rules: imports go to lower layers only and form no cycles, and recsys/ has no side effects."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {"recsys": 1, "features": 2, "training": 3, "serving": 3}
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
BANNED_MODULE_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}
FILE_LINES_MAX, FUNCTION_LINES_MAX, MODULES_MAX = 400, 60, 15
CROWDED: set[str] = set()
"""Folders with more than MODULES_MAX modules, until their modules are moved to subfolders."""
LONG_FILES: set[str] = set()
"""Files with more than FILE_LINES_MAX lines, until they are split."""
LONG_FUNCTIONS: set[str] = set()
"""Functions with more than FUNCTION_LINES_MAX lines, until they are split."""


def imported(source: str) -> set[str]:
    """Return the dotted names of all modules that a source imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "use absolute imports: relative imports hide the layer of the imported module"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def upward_imports(package: str, source: str) -> set[str]:
    """Return the packages on the same or a higher layer that a source of `package` imports."""
    roots = {name.partition(".")[0] for name in imported(source)} & LAYERS.keys()
    return {root for root in roots if root != package and LAYERS[root] >= LAYERS[package]}


def impure(source: str) -> set[str]:
    """Return the uses of I/O, clock, randomness or environment in a source."""
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


SOURCES = [path for package in LAYERS for path in sources(package)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_to_lower_layers_only(path: Path) -> None:
    name = path.relative_to(ROOT)
    if uses := upward_imports(name.parts[0], path.read_text()):
        pytest.fail(
            f"{name} imports {', '.join(sorted(uses))}, which is not on a layer below {name.parts[0]}", pytrace=False
        )


@pytest.mark.parametrize("path", list(sources("recsys")), ids=lambda path: str(path.relative_to(ROOT)))
def test_recsys_has_no_side_effects(path: Path) -> None:
    if uses := impure(path.read_text()):
        pytest.fail(
            f"{path.relative_to(ROOT)} uses {', '.join(sorted(uses))}; pass it to recsys as an argument", pytrace=False
        )


def import_cycle(modules: Mapping[str, str]) -> set[str]:
    """Return the modules (name -> source) that are in an import cycle or import a module of a cycle.

    Imports inside functions and under TYPE_CHECKING count: a reader of the module has to follow them as well.
    """
    edges = {name: _edges(imported(source), modules.keys() - {name}) for name, source in modules.items()}
    while free := {name for name, targets in edges.items() if not targets & edges.keys()}:
        for name in free:
            del edges[name]
    return set(edges)


def long_functions(source: str) -> set[str]:
    """Return the functions and methods with more than FUNCTION_LINES_MAX lines, without decorators."""
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {n.name for n in functions if (n.end_lineno or n.lineno) - n.lineno + 1 > FUNCTION_LINES_MAX}


def is_long(source: str) -> bool:
    """Return whether a file has more than FILE_LINES_MAX lines."""
    return len(source.splitlines()) > FILE_LINES_MAX


def crowded(paths: Iterable[Path]) -> set[str]:
    """Return the folders with more than MODULES_MAX modules, not counting `__init__.py`."""
    count = Counter(str(path.parent) for path in paths if path.name != "__init__.py")
    return {folder for folder, modules in count.items() if modules > MODULES_MAX}


def _check_exceptions(violations: set[str], exceptions: set[str], rule: str) -> None:
    """Fail if a violation is not in the exceptions, or if an exception is no longer needed."""
    if new := violations - exceptions:
        pytest.fail(f"{', '.join(sorted(new))}: {rule}", pytrace=False)
    if obsolete := exceptions - violations:
        pytest.fail(f"remove {', '.join(sorted(obsolete))} from the exceptions: {rule}", pytrace=False)


def test_there_are_no_import_cycles() -> None:
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in SOURCES}
    if cycle := import_cycle({name: path.read_text() for name, path in names.items()}):
        pytest.fail(f"import cycle among {', '.join(sorted(cycle))}", pytrace=False)


def test_folders_have_few_modules() -> None:
    _check_exceptions(
        crowded(path.relative_to(ROOT) for path in SOURCES), CROWDED, f"at most {MODULES_MAX} modules in a folder"
    )


def test_functions_are_short() -> None:
    """Kernels are exempt, because numba compiles a search as one function."""
    paths = [path for path in SOURCES if "kernels" not in path.parts]
    violations = {f"{path.relative_to(ROOT)}: {name}" for path in paths for name in long_functions(path.read_text())}
    _check_exceptions(violations, LONG_FUNCTIONS, f"at most {FUNCTION_LINES_MAX} lines in a function")


def _edges(imports: set[str], modules: Set[str]) -> set[str]:
    """Return the imported modules; `from package import module` counts as the module, not as the package."""
    internal = imports & modules
    return {name for name in internal if not any(child.rpartition(".")[0] == name for child in internal)}


def test_files_are_short_and_have_specific_names() -> None:
    files = [*SOURCES, *(ROOT / "tests").rglob("*.py")]
    violations = {str(file.relative_to(ROOT)) for file in files if is_long(file.read_text())}
    _check_exceptions(violations, LONG_FILES, f"at most {FILE_LINES_MAX} lines in a file")
    assert [f for f in files if f.stem in BANNED_MODULE_NAMES or f.parent.name in BANNED_MODULE_NAMES] == []


def test_the_checks_detect_violations() -> None:
    """Each check above fails on a violation and passes without one."""
    assert impure("import time")
    assert impure("def f():\n    from os import path")
    assert impure("x = np.random.rand()")
    assert upward_imports("features", "from serving import app") == {"serving"}
    assert upward_imports("training", "import serving.app") == {"serving"}
    assert upward_imports("recsys", "import features.state.fold") == {"features"}
    assert not upward_imports("serving", "import features.state.fold, recsys.domain.types")
    type_import = "if TYPE_CHECKING:\n    from recsys.b import B"
    assert import_cycle({"recsys.a": type_import, "recsys.b": "def f():\n    from recsys import a"}) == {
        "recsys.a",
        "recsys.b",
    }
    assert import_cycle({"recsys.a": type_import, "recsys.b": "import numpy", "recsys": ""}) == set()
    assert crowded([Path(f"recsys/m{n}.py") for n in range(16)]) == {"recsys"}
    assert crowded([*(Path(f"recsys/m{n}.py") for n in range(15)), Path("recsys/__init__.py")]) == set()
    assert is_long("pass\n" * 401)
    assert not is_long("pass\n" * 400)
    function_body = "\n".join(["    async def f(self):", *["        pass"] * 59])
    assert long_functions(f"class A:\n{function_body}\n        pass") == {"f"}
    assert long_functions(f"class A:\n{function_body}") == set()


@pytest.mark.parametrize(
    ("violations", "exceptions", "message"), [({"a"}, set(), "a: the rule"), (set(), {"a"}, "remove a from")]
)
def test_unlisted_violations_and_obsolete_exceptions_fail(
    violations: set[str], exceptions: set[str], message: str
) -> None:
    with pytest.raises(pytest.fail.Exception, match=message):
        _check_exceptions(violations, exceptions, "the rule")
