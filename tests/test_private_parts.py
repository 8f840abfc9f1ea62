"""Private parts of other packages: they are as the table has them, and no other is used."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from private_parts import PRIVATE_PARTS, PrivatePart, fault_of

import transformers_videollama


ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("src", "conversion", "conformance", "benchmarks", "examples", "serving")
    for path in (ROOT / folder).rglob("*.py")
)
TABLE = {part.name for part in PRIVATE_PARTS} | {name for part in PRIVATE_PARTS for name in part.path.split(".")}


@pytest.mark.parametrize("part", PRIVATE_PARTS, ids=lambda part: part.path)
def test_private_parts_are_as_the_table_has_them(part):
    if find_spec(part.package) is None:
        pytest.skip(f"{part.package} is not installed; `make serve-test` checks its parts")
    assert fault_of(part) is None, fault_of(part)


@pytest.mark.parametrize("path", ("transformers.PreTrainedModel._nothing", "torch.utils._nothing.thing"))
def test_a_part_that_is_gone_is_named_with_its_reason(path):
    assert f"{path} is gone" in (fault := fault_of(PrivatePart("torch", path, "of a test")))
    assert fault.endswith("because: of a test")


def test_a_part_with_another_signature_is_named_with_both():
    part = PrivatePart("transformers", "transformers.PreTrainedModel._init_weights", "of a test", ("self", "layer"))
    assert "takes ('self', 'module'), not ('self', 'layer'); it is needed because: of a test" in fault_of(part)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_part_is_read_that_is_not_in_the_table(path):
    """Names of our own are told apart by being defined somewhere in our files."""
    unknown = [
        f"line {line}: {name}" for line, name in private_names(tree_of(path)) if name not in own_names() | TABLE
    ]
    assert not unknown, f"{path.name} uses private parts that tests/private_parts.py does not have: {unknown}"


def test_private_parts_are_found_in_a_source():
    lines = ["thing._read", "thing._written = 1", "from package._module import _name, name", "getattr(thing, '_word')"]
    found = sorted(private_names(ast.parse("\n".join([*lines, "__all__, thing.__class__, thing.public"]))))
    assert found == [(1, "_read"), (2, "_written"), (3, "_module"), (3, "_name"), (4, "_word")]


def test_every_private_part_of_the_table_is_used():
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    assert not [part.path for part in PRIVATE_PARTS if part.name not in text]


def test_no_private_part_is_overridden_that_is_not_in_the_table():
    """Which a new version of a library can bring about, too, by a method that has the name of one of ours."""
    overridden = {
        f"{own.__module__}.{own.__qualname__}.{name} of {base.__module__}.{base.__qualname__}"
        for own in own_classes()
        for base in own.__mro__[1:]
        if not is_own(base) and base is not object
        for name in vars(own).keys() & vars(base).keys()
        if is_private(name) and name not in TABLE and not is_machinery(name)
    }
    assert not overridden, f"private parts that tests/private_parts.py does not have: {sorted(overridden)}"


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def is_machinery(name: str) -> bool:
    """What Python gives a class or a protocol, and what the library caches there."""
    kept = name.endswith("_cached_value")  # by the library, for each class that it was asked about
    return kept or name.startswith("_abc_") or name in ("_is_protocol", "_is_runtime_protocol")


def private_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of private attributes that are read or written, and of private imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in ".".join([*modules, *(alias.name for alias in node.names)]).split("."):
                if is_private(name):
                    yield node.lineno, name
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and "attr" in node.func.id:
            for word in node.args[1:2]:  # getattr, hasattr, setattr, delattr
                if isinstance(word, ast.Constant) and isinstance(word.value, str) and is_private(word.value):
                    yield node.lineno, word.value


@cache
def own_names() -> set[str]:
    """Private functions, classes, fields and attributes of `self` that our files define."""
    names = set()
    for node in (node for path in SOURCES for node in ast.walk(tree_of(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            names.add(node.attr)
    return names


def is_own(kind: type) -> bool:
    return kind.__module__.split(".")[0] == transformers_videollama.__name__


def own_classes() -> list[type]:
    """Of all modules of the package that can be imported here; those of vLLM's plugin need vLLM."""
    prefix = f"{transformers_videollama.__name__}."
    names = [module.name for module in pkgutil.walk_packages(transformers_videollama.__path__, prefix)]
    modules = [
        importlib.import_module(name)
        for name in names
        if not name.endswith(".__main__") and (find_spec("vllm") is not None or ".vllm." not in name)
    ]
    values = [(module, value) for module in modules for value in vars(module).values()]
    return [value for module, value in values if inspect.isclass(value) and value.__module__ == module.__name__]
