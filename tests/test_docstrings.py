"""Docstrings are written by hand, and name every argument of every public class, method and function."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator

import pytest

import transformers_videollama
from transformers_videollama import modeling_imagebind, modeling_video_llama


MODULES = (transformers_videollama, modeling_video_llama, modeling_imagebind)
OBJECTS = {name: getattr(module, name) for module in MODULES for name in module.__all__}
CLASSES = {name: value for name, value in OBJECTS.items() if inspect.isclass(value)}
PASSED_ON = {"self", "cls", "args", "kwargs"}


def public_functions() -> Iterator[tuple[str, str | None, set[str]]]:
    """Docstrings of functions, and of the methods that the classes themselves define, and what they must describe."""
    for name, value in OBJECTS.items():
        if inspect.isfunction(value):
            yield name, inspect.getdoc(value), arguments_of(value)
    for name, owner in CLASSES.items():
        for method, value in vars(owner).items():
            value = inspect.unwrap(getattr(value, "__func__", value))
            ours = inspect.isfunction(value) and value.__module__.startswith(transformers_videollama.__name__)
            if ours and not method.startswith("_"):
                docstring = inspect.getdoc(getattr(owner, method))  # that of the library, where it has all to say
                yield f"{name}.{method}", docstring, arguments_of(value) - arguments_of_hook(owner, method)


def arguments_of(function: Callable) -> set[str]:
    return set(inspect.signature(function).parameters) - PASSED_ON


def arguments_of_hook(owner: type, method: str) -> set[str]:
    """What the library itself describes, of a method that it calls and that `owner` overrides."""
    bases = [base for base in owner.__mro__ if base.__module__.startswith("transformers.") and method in vars(base)]
    return arguments_of(getattr(bases[0], method)) if bases else set()


FUNCTIONS = {name: (docstring, arguments) for name, docstring, arguments in public_functions()}


def described(docstring: str) -> set[str]:
    """The words of a docstring, and of those of the methods and classes that it refers to."""
    words = set(re.findall(r"\w+", docstring))
    for reference in re.findall(r"\[`~?([\w.]+)`\]", docstring):
        owner, _, method = reference.partition(".")
        value = getattr(OBJECTS.get(owner), method, None) if method else OBJECTS.get(owner)
        words |= set(re.findall(r"\w+", inspect.getdoc(value) or ""))
    return words


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_described(name):
    docstring, arguments = FUNCTIONS[name]
    assert docstring
    assert arguments <= described(docstring)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_is_described(name):
    """And what it is made from: the fields that a configuration or record shows, or what its constructor takes."""
    owner = CLASSES[name]
    if dataclasses.is_dataclass(owner):
        shown = {field.name for field in dataclasses.fields(owner) if field.repr}
        made_from = shown & set(vars(owner).get("__annotations__", {}))
    else:
        made_from = arguments_of(vars(owner)["__init__"]) - {"config"} if "__init__" in vars(owner) else set()
    assert owner.__doc__
    assert made_from <= described(owner.__doc__)
