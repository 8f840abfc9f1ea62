"""Stands in for a module that the library's source distribution leaves out: its tests of exporters."""


class ExportTesterMixin:
    pass
