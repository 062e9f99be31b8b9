"""Adapters: public data sets, read from the files that their publishers give out, written as the contract has it."""

from types import ModuleType

from uepp.data.adapters import home_depot, open_ecommerce

ADAPTERS: dict[str, ModuleType] = {module.NAME: module for module in (home_depot, open_ecommerce)}
"""Adapter modules by name. Each has NAME, LICENCE, PROTOCOL and `import_data(source, directory, …) -> Report`."""
