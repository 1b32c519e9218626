"""Import LightGBM without what it brings along where it is installed: scikit-learn, pandas, SciPy's statistics.

None of it is used by the commands; it costs two seconds and a hundred megabytes in every process. Programs that use
feedrank as a library are left alone: there LightGBM's scikit-learn classes work as ever.
"""

from __future__ import annotations

import sys

BROUGHT_ALONG = ("pandas", "sklearn", "dask", "matplotlib", "graphviz")


def import_lightgbm() -> None:
    """Import it now, with those hidden from it alone."""
    if "lightgbm" in sys.modules:
        return
    hidden = [name for name in BROUGHT_ALONG if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # how Python marks a module that can't be imported
    try:
        import lightgbm  # noqa: F401  # for what importing it does
    finally:
        for name in hidden:
            del sys.modules[name]
