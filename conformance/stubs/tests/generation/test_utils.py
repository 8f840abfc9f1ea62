"""Stands in for a module that the library's source distribution leaves out; see tests/test_generation.py instead."""


class GenerationTesterMixin:
    pass
