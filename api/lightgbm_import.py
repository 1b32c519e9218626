"""Import LightGBM without its optional dependencies: scikit-learn, pandas, SciPy's statistics.

The commands use none of them, and they cost two seconds and 100 MB in every process. Programs that use feedrank as a
library are not affected: there LightGBM's scikit-learn classes work as usual.
"""

from __future__ import annotations

import sys

OPTIONAL_DEPENDENCIES = ("pandas", "sklearn", "dask", "matplotlib", "graphviz")


def import_lightgbm() -> None:
    """Import LightGBM while its optional dependencies are hidden; later imports of them work again."""
    if "lightgbm" in sys.modules:
        return
    hidden = [name for name in OPTIONAL_DEPENDENCIES if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # how Python marks a module that can't be imported
    try:
        import lightgbm  # noqa: F401  # imported for its side effects
    finally:
        for name in hidden:
            del sys.modules[name]
