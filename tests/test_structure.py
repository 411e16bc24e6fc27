"""Who imports whom: rooms in one order, and nothing heavy before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "freemask"
ROOMS = (  # a room imports only from itself and from rooms named before it
    "types kernels config plugins telemetry progress io settings prompts data result attention "
    "editors segmentation masks resolve prepare sampling pipeline batch calibration profiling "
    "evaluation modules modular ui cli __main__ __init__"
).split()
ALONE = ("types", "kernels")  # import nothing of freemask outside themselves
STRANGERS = (("batch", "evaluation"), ("evaluation", "batch"))  # neither imports the other
SHARED_BY_EDITORS = {
    "__init__",
    "checkpoints",
    "clip_tokenizer",
    "editor",
    "hub",
    "inflated",
    "known_messages",
    "lora",
    "native_size",
    "single_file",
    "state_dicts",
    "temporal_layers",
    "weight_files",
}
SHARED_BY_EDITORS |= {"scheduler", "registry", "request", "latents", "tuned", "unet_editor"}
SHARED_BY_EDITORS |= {
    "unet_sites",
    "unet_attention",
    "checkpoint_format",
    "wan_attention",
    "wan_checkpoints",
    "wan_options",
    "wan_rows",
    "wan_vae",
}
SHARED_BY_EDITORS |= {"backbone_calls"}
SHARED_BY_EDITORS |= (BELOW_SAMPLING := {"latent_time", "flow_schedule"})
DEVELOPMENT = "freemask.kernels.dev"  # imported by these rooms, and by itself
MAY_DEVELOP = {"profiling", "cli"}
HEAVY = ("diffusers", "transformers", "lightning", "triton", "torch")
LONGEST_FILE = 350  # lines
LONGEST_FUNCTION = 60  # lines


def room(path: Path) -> str:
    """`freemask/masks/heat.py` -> `masks`, `freemask/types.py` -> `types`, `tools/a` -> `tools`."""
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
    return sorted([*PACKAGE.rglob("*.py"), *(ROOT / "tools").rglob("*.py")])


def every_python_file() -> list[Path]:
    others = (ROOT / "integrations", ROOT / "tests")
    return [*sources(), *(path for folder in others for path in sorted(folder.rglob("*.py")))]


def of_freemask() -> list[tuple[Path, str, str]]:
    """Every import within the project: the file, what it imports, the room that this lies in."""
    return [
        (path, name, name.split(".")[1])
        for path in sources()
        for name in imports(path)
        if name.startswith("freemask.")
    ]


def test_every_file_and_every_import_lies_in_a_known_room() -> None:
    assert len(of_freemask()) > 50
    assert {room(path) for path in sources()} <= {*ROOMS, "tools"}
    assert {target for _, _, target in of_freemask()} <= {*ROOMS}


def test_rooms_import_only_from_rooms_before_them() -> None:
    rank = {name: number for number, name in enumerate([*ROOMS, "tools"])}
    backward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, name, target in of_freemask()
        if target != room(path) and rank[target] > rank[room(path)]
    ]
    assert backward == []


@pytest.mark.parametrize("name", ALONE)
def test_the_lowest_rooms_need_nothing_of_freemask(name: str) -> None:
    assert {target for path, _, target in of_freemask() if room(path) == name} <= {name}


@pytest.mark.parametrize(("importer", "imported"), STRANGERS)
def test_batch_and_evaluation_do_not_know_each_other(importer: str, imported: str) -> None:
    found = [
        name for path, name, target in of_freemask() if (room(path), target) == (importer, imported)
    ]
    assert found == []


def test_an_editor_never_imports_another() -> None:
    editors = {path.stem for path in (PACKAGE / "editors").glob("*.py")} - SHARED_BY_EDITORS
    assert "zeroscope" in editors
    modules = {f"freemask.editors.{name}" for name in editors}
    importers = [path for path, name, _ in of_freemask() if name.rpartition(".")[0] in modules]
    assert {path.relative_to(PACKAGE).as_posix() for path in importers} == {"editors/registry.py"}


def test_sampling_knows_no_concrete_editor() -> None:
    found = {
        name
        for path, name, target in of_freemask()
        if (room(path), target) == ("sampling", "editors")
    }
    assert found
    assert all(name.split(".")[2] in {"editor", "scheduler", *BELOW_SAMPLING} for name in found)


def test_development_tools_of_kernels_stay_out_of_the_library() -> None:
    importers = {
        room(path)
        for path, name, _ in of_freemask()
        if name.startswith(DEVELOPMENT) and PACKAGE / "kernels/dev" not in path.parents
    }
    assert importers == MAY_DEVELOP


def test_triton_is_imported_by_its_room_alone() -> None:
    users = [p for p in sources() if any(name.split(".")[0] == "triton" for name in imports(p))]
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in users}
    assert folders == {"kernels/triton", "kernels/dev"}


def test_lightning_is_imported_by_modules_and_tools_alone() -> None:
    users = [p for p in sources() if any(name.split(".")[0] == "lightning" for name in imports(p))]
    assert {room(path) for path in users} == {"modules", "tools"}


def test_commands_are_imported_only_by_tools_and_tools_by_nobody() -> None:
    importers = {room(path) for path, _, target in of_freemask() if target == "cli"}
    assert importers == {"cli", "tools", "__main__"}
    outside = [path for path in sources() if room(path) != "tools"]
    assert not any(name.split(".")[0] == "tools" for path in outside for name in imports(path))


def test_integrations_are_imported_by_nobody() -> None:
    assert list((ROOT / "integrations").rglob("*.py"))
    for path in sources():
        assert not any(name.split(".")[0] == "integrations" for name in imports(path)), path


def test_every_room_has_a_door_that_says_what_it_is_for() -> None:
    doors = [path for path in sources() if path.name == "__init__.py" and path.parent != PACKAGE]
    assert {path.parent.name for path in doors} >= {r for r in ROOMS if (PACKAGE / r).is_dir()}
    for path in doors:
        said = ast.get_docstring(ast.parse(path.read_text())) or ""
        assert len(said.split()) >= 20, f"{path.relative_to(ROOT)} says too little"
        files = [f.stem for f in path.parent.glob("*.py") if not f.stem.startswith("__")]
        unnamed = [name for name in files if f"`{name}`" not in said]
        assert unnamed == [], f"{path.relative_to(ROOT)} does not name {unnamed}"


def test_doors_export_nothing_but_the_three_public_ones() -> None:
    public = {"freemask", "freemask/editors", "freemask/kernels"}
    for path in sources():
        folder = path.parent.relative_to(ROOT).as_posix()
        if path.name == "__init__.py" and folder not in public:
            assert imports(path) == (), f"{folder} exports something"


@pytest.mark.parametrize("path", every_python_file(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_file_and_no_function_is_too_long(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LONGEST_FILE
    long = [
        f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    ]
    assert long == []


@pytest.mark.parametrize("module", ["freemask", "freemask.types", "freemask.settings.sections"])
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
