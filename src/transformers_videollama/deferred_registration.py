"""
Registering costs what importing torch and the Auto classes costs, so it waits until something imports the Auto
classes anyway. Importing this package alone then costs next to nothing.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


__all__ = ["register_with_auto_classes"]

AUTO_CLASSES = "transformers.models.auto.configuration_auto"  # what every other module of the Auto classes imports
WATCHED = ("transformers.", "transformers_videollama.")


def register_with_auto_classes() -> None:
    """Registers now where the Auto classes are imported already, and else as soon as they are."""
    if AUTO_CLASSES in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _AfterAutoClasses())


def _register() -> None:
    from .registration import register

    register()


class _AfterAutoClasses(MetaPathFinder):
    """
    Finds nothing by itself, but knows which modules of the library and of this package are being imported. The library
    imports its Auto classes while others of its modules are half done, which registering needs whole: it waits until
    the last of them is through.
    """

    def __init__(self) -> None:
        self._unfinished: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(WATCHED):
            return None
        found = (finder.find_spec(fullname, path, target) for finder in list(sys.meta_path) if finder is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = partial(self._execute, spec.loader.exec_module)  # type: ignore[method-assign]
        return spec

    def _execute(self, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        self._unfinished.add(module.__name__)
        try:
            execute(module)
            if self._unfinished == {module.__name__} and AUTO_CLASSES in sys.modules:
                _register()
                sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
        finally:
            self._unfinished.discard(module.__name__)
