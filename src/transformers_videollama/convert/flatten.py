"""
The package's modules as one flat folder, which is all that the library loads from: it finds the modules that a module
needs by `from .name import ...` alone, and copies them side by side.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path


__all__ = ["flatten"]

_HEADER = re.compile(rb"from[ \t]+\.[. \t\w]*[ \t]+import\b")


def flatten(package: Path, modules: list[str]) -> dict[str, bytes]:
    """
    Args:
        package (`Path`): The folder of a package.
        modules (`list[str]`): Names of modules in it, "media.sources" or "messages".

    Returns:
        `dict[str, bytes]`: the source of these modules and of all that they import from the package, function bodies
        included, by the flat name: `media_sources` for "media.sources", and `media` for the package "media". Imports
        name the flat modules; nothing else is changed.

    Raises:
        ValueError: where a module imports what cannot be flattened, or two modules have one flat name.
    """
    flat: dict[str, bytes] = {}
    waiting, seen = list(modules), set(modules)
    while waiting:
        module = waiting.pop()
        name = _flat_name(module)
        if name in flat:
            raise ValueError(f"{module} and another module both become {name}.py; rename one of them")
        source = _file_of(package, module).read_bytes()
        edits = list(_relative_imports(package, module, source))
        for start, end, needed in reversed(edits):
            source = source[:start] + f"from .{_flat_name(needed)} import".encode() + source[end:]
        flat[name] = source
        for _, _, needed in edits:
            if needed not in seen:
                seen.add(needed)
                waiting.append(needed)
    return flat


def _flat_name(module: str) -> str:
    return module.replace(".", "_")


def _file_of(package: Path, module: str) -> Path:
    path = package.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _relative_imports(package: Path, module: str, source: bytes) -> Iterator[tuple[int, int, str]]:
    """The span in bytes from "from" to "import" of each import from the package, in order, and what it imports."""
    path = _file_of(package, module)
    lines = [0]
    for line in source.split(b"\n"):
        lines.append(lines[-1] + len(line) + 1)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
        needed = _module_of(package, module, node)
        if needed is None:
            continue
        start = lines[node.lineno - 1] + node.col_offset
        header = _HEADER.match(source, start)
        if header is None:
            raise ValueError(
                f"{path}:{node.lineno}: the import cannot be read; write `from .module import` on one line"
            )
        yield start, header.end(), needed


def _module_of(package: Path, module: str, node: ast.Import | ast.ImportFrom) -> str | None:
    """The module of the package that a statement imports from; `None` where it imports from elsewhere."""
    path = _file_of(package, module)
    where = f"{path}:{node.lineno}"
    if isinstance(node, ast.Import) or not node.level:
        named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        if any(name.split(".")[0] == package.name for name in named):
            raise ValueError(f"{where}: imports {package.name} by its name, which is not there; import `from .module`")
        return None
    folder = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    kept = len(folder) - (node.level - 1)
    if kept < 0 or node.module is None:
        raise ValueError(f"{where}: imports from a package as a whole; import `from .module`")
    needed = ".".join([*folder[:kept], node.module])
    if not _file_of(package, needed).is_file():
        raise ValueError(f"{where}: imports {needed}, which is no module of {package.name}")
    for alias in node.names:
        if _file_of(package, f"{needed}.{alias.name}").is_file():
            raise ValueError(f"{where}: imports the module {needed}.{alias.name} as a whole; import names from it")
    return needed
