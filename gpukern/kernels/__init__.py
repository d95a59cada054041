"""The maths: one file per family, scalar functions and docstrings, nothing else.

Every module in this folder is imported when the registry is first read, so a new kernel is one
class in one file.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
