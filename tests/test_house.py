"""The structure of the package: imports run downwards and in no circle, files are small, and one name is installed."""

import ast
from pathlib import Path

import pytest
import tomllib

import transformers_videollama


PACKAGE = Path(transformers_videollama.__file__).parent
NAME = PACKAGE.name
MAX_LINES = 800

# From below to above. A module imports from its own floor or from one below. A folder is a wing: what others import
# from it is its face, `__init__`, but for the parts of `media`, which is the ground that the core stands on.
FLOORS = (
    ("chat_templates", "files", "tiny"),
    ("media",),
    (
        "block_keys",
        "configuration_checks",
        "configuration_video_llama",
        "messages",
        "feature_extraction_video_llama",
        "image_processing_video_llama",
        "video_processing_video_llama",
    ),
    ("conversations", "encoder_steps", "generation_video_llama", "input_checks", "modeling_imagebind"),
    ("modeling_video_llama", "processing_video_llama"),
    ("conversation", "quantization", "registration"),
    ("convert",),
    ("training",),
    ("adapters",),
    ("serving",),
    ("cli",),
    ("__main__",),
)
# Lowest first, too: what is in a wing
MEDIA = [
    "checks",
    "errors",
    "options",
    "access",
    "formats",
    "parallel",
    "progress",
    "objects",
    "worker",
    "sources",
    "wholeness",
    "workers",
    "containers",
    "sampling",
    "hdr",
    "orientation",
    "pixels",
    "heif_grid",
    "heif",
    "images",
    "readers",
    "animations",
    "resampling",
    "channels",
    "sound_lengths",
    "tracks",
    "sound",
    "spectrograms",
    "frame_index",
    "frames",
    "decoders",
    "video",
    "__init__",
]
# They re-export what has moved, for the paths that were documented
MOVED = {"media_access"}


def modules() -> dict[str, Path]:
    """Dotted name below the package -> file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        found[".".join(path.relative_to(PACKAGE).with_suffix("").parts)] = path
    return found


def imports_of(name: str, path: Path) -> set[str]:
    """The modules of the package that a module imports, wherever in it, as dotted names below the package."""
    known = modules()
    package = name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == NAME:
            base = node.module.split(".")[1:]
        elif isinstance(node, ast.Import) and any(alias.name.split(".")[0] == NAME for alias in node.names):
            base, node = [], ast.ImportFrom(names=[ast.alias(name="__init__")])
        else:
            continue
        for alias in node.names:
            target = ".".join([*base, alias.name])
            face = ".".join([*base, "__init__"])
            if f"{target}.__init__" in known:
                found.add(f"{target}.__init__")
            elif target in known and alias.name not in _exported(known.get(face)):
                found.add(target)
            else:
                found.add(face if face in known else ".".join(base))
    return found - {"__init__"}  # the top says only the version


def _exported(face: Path | None) -> set[str]:
    """What the `__init__` of a wing imports from its modules, one of which may have the name of its module."""
    tree = ast.parse(face.read_text(encoding="utf-8") if face else "")
    return {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}


GRAPH = {name: imports_of(name, path) for name, path in modules().items()}


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_room_is_on_a_floor():
    rooms = {room(module) for module in GRAPH} - {"__init__"} - MOVED
    assert rooms == {name for floor in FLOORS for name in floor}


def test_imports_run_downwards():
    floor_of = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    upwards = [
        f"{module} imports {target}"
        for module, targets in GRAPH.items()
        if room(module) in floor_of
        for target in targets
        if room(target) != room(module) and floor_of[room(target)] >= floor_of[room(module)]
        if not (floor_of[room(target)] == floor_of[room(module)] and "." not in module and "." not in target)
    ]
    assert not upwards


def test_imports_in_media_run_downwards():
    order = {f"media.{name}": number for number, name in enumerate(MEDIA)}
    assert {module for module in GRAPH if room(module) == "media"} == set(order)
    assert not [
        f"{module} imports {target}" for module in order for target in GRAPH[module] if order[target] >= order[module]
    ]


def test_there_is_no_circle():
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for target in GRAPH[module]:
                visit(target, (*path, module))
            done.add(module)

    for module in GRAPH:
        visit(module, ())


@pytest.mark.parametrize("wing", ("adapters", "convert", "serving", "training"))
def test_a_wing_is_entered_by_its_door(wing):
    """What stands in a folder is imported from outside it through `__init__` alone; a command may name its parser."""
    inside = [
        f"{module} imports {target}"
        for module, targets in GRAPH.items()
        for target in targets
        if room(target) == wing != room(module) and not target.endswith(".__init__")
    ]
    commands = {"cli.__init__ imports convert.command", "cli.merging imports convert.command"}
    assert set(inside) == (commands if wing == "convert" else set())


def test_files_are_small():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert not {name: length for name, length in lengths.items() if length > MAX_LINES}


def test_one_name_is_installed():
    project = PACKAGE.parents[1] / "pyproject.toml"
    wheel = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": [f"src/{NAME}"]}
