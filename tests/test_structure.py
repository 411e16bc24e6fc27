"""Who imports whom: one direction, and nothing heavy before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "freemask"
ORDER = (  # a module imports only from modules named before it
    "types spool files parts kernels memory config video mask_files prompts sprites datasets "
    "motion cases metrics embeddings perceptual attention inversion fusion capture refinement "
    "masks windows mmc selection pictures editors footprint plan result pipeline profiling cache "
    "inspection calibration recognition jobs economy runs wall benchmark tables report evaluation "
    "demo modules arguments cli __init__"
).split()
ALONE = ("types", "kernels")  # import nothing of freemask outside themselves
ONLY_IN = {"triton": ["kernels"], "lightning": ["modules", "tools"]}
HEAVY = ("diffusers", "transformers", "lightning", "triton", "torch")


def place(path: Path) -> str:
    """`freemask/mmc.py` -> `mmc`, `freemask/kernels/plan.py` -> `kernels`, `tools/a` -> `tools`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "freemask" else parts[0]


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Dotted names that a file imports, wherever in it, but not for the type checker alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for branch in ast.walk(tree):
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING":
            branch.body = []
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(found)


def sources() -> list[Path]:
    return sorted([*PACKAGE.rglob("*.py"), *(ROOT / "tools").glob("*.py")])


def of_freemask() -> list[tuple[Path, str, str]]:
    """Every import within the project: the file, what it imports, the module that this lies in."""
    return [
        (path, name, name.split(".")[1])
        for path in sources()
        for name in imports(path)
        if name.startswith("freemask.")
    ]


def test_every_import_is_of_a_known_place() -> None:
    assert len(of_freemask()) > 50
    known = {*ORDER, "tools"}
    assert {place(path) for path in sources()} <= known
    assert {target for _, _, target in of_freemask()} <= known


def test_imports_point_one_way() -> None:
    rank = {name: number for number, name in enumerate([*ORDER, "tools"])}
    backward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, name, target in of_freemask()
        if target != place(path) and rank[target] > rank[place(path)]
    ]
    assert backward == []


@pytest.mark.parametrize("name", ALONE)
def test_the_lowest_modules_need_nothing_of_freemask(name: str) -> None:
    found = [target for path, _, target in of_freemask() if place(path) == name]
    assert set(found) <= {name}


def test_an_editor_never_imports_another() -> None:
    registry, abstract = PACKAGE / "editors/__init__.py", "freemask.editors.editor"
    editors = {path.stem for path in (PACKAGE / "editors").glob("*.py")}
    editors -= {"__init__", "editor", "checkpoints", "inflated"}
    assert "zeroscope" in editors
    for path, name, target in of_freemask():
        if target == "editors" and path != registry and not name.startswith(abstract):
            assert not editors & set(name.split(".")), f"{path} imports {name}"


def test_commands_are_imported_only_by_tools_and_tools_by_nobody() -> None:
    importers = {path.parent.name for path, _, target in of_freemask() if target == "cli"}
    assert importers <= {"tools"}
    assert not any(name.split(".")[0] == "tools" for path in sources() for name in imports(path))


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    found = {
        place(path)
        for path in sources()
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert found
    assert found <= set(ONLY_IN[library])


@pytest.mark.parametrize("module", ["freemask", "freemask.types", "freemask.config"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({set(HEAVY)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_public_name_can_be_had() -> None:
    import freemask

    for name in freemask.__all__:
        assert getattr(freemask, name) is not None
    with pytest.raises(AttributeError, match="paint"):
        freemask.paint  # noqa: B018
