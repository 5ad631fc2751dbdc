"""The table of operation cases: the `CASES` lists of the modules in this folder, one per family.

A module that cannot be imported does not hide the others: its error is kept in `BROKEN`, and a test
shows it.
"""

from __future__ import annotations

import importlib
import pkgutil

from cases._case import Case

FAMILIES: dict[str, list[Case]] = {}
BROKEN: dict[str, Exception] = {}

for _module in sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")):
    try:
        FAMILIES[_module] = importlib.import_module(f"cases.{_module}").CASES
    except Exception as error:  # any error at all, so that it is reported for this family only
        BROKEN[_module] = error

CASES: list[Case] = [case for family in FAMILIES.values() for case in family]
