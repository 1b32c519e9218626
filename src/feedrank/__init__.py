"""feedrank: a recommendation-ranking engine.

This module is the public Python API; its names are imported on first use, so that `import feedrank` alone is quick and
`feedrank.Client` needs httpx only. Everything else in the package may change between versions.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feedrank.api.client import ApiError as ApiError
    from feedrank.api.client import BadAnswer as BadAnswer
    from feedrank.api.client import BadRequest as BadRequest
    from feedrank.api.client import Client as Client
    from feedrank.api.client import ClientError as ClientError
    from feedrank.api.client import Conflict as Conflict
    from feedrank.api.client import Diversity as Diversity
    from feedrank.api.client import Filters as Filters
    from feedrank.api.client import Forbidden as Forbidden
    from feedrank.api.client import NotFound as NotFound
    from feedrank.api.client import Retries as Retries
    from feedrank.api.client import Timeouts as Timeouts
    from feedrank.api.client import TooManyRequests as TooManyRequests
    from feedrank.api.client import Unauthorized as Unauthorized
    from feedrank.api.client import Unavailable as Unavailable
    from feedrank.api.client import Unreachable as Unreachable
    from feedrank.api.python.evaluation_table import Evaluation as Evaluation
    from feedrank.api.python.explanation import Explanation as Explanation
    from feedrank.api.python.feed import Feed as Feed
    from feedrank.api.python.feed_table import FeedTable as FeedTable
    from feedrank.api.python.home import Home as Home
    from feedrank.api.python.load_report import LoadReport as LoadReport
    from feedrank.api.python.recommender import Recommender as Recommender
    from feedrank.api.python.train_report import TrainReport as TrainReport

__version__ = "0.2.0"

_MODULES = {
    "feedrank.api.client": (
        "ApiError", "BadAnswer", "BadRequest", "Client", "ClientError", "Conflict", "Diversity", "Filters", "Forbidden",
        "NotFound", "Retries", "Timeouts", "TooManyRequests", "Unauthorized", "Unavailable", "Unreachable",
    ),
    "feedrank.api.python.evaluation_table": ("Evaluation",),
    "feedrank.api.python.explanation": ("Explanation",),
    "feedrank.api.python.feed": ("Feed",),
    "feedrank.api.python.feed_table": ("FeedTable",),
    "feedrank.api.python.home": ("Home",),
    "feedrank.api.python.load_report": ("LoadReport",),
    "feedrank.api.python.recommender": ("Recommender",),
    "feedrank.api.python.train_report": ("TrainReport",),
}  # fmt: skip
"""Module -> the public names that it defines."""

__all__ = [
    "ApiError",
    "BadAnswer",
    "BadRequest",
    "Client",
    "ClientError",
    "Conflict",
    "Diversity",
    "Evaluation",
    "Explanation",
    "Feed",
    "FeedTable",
    "Filters",
    "Forbidden",
    "Home",
    "LoadReport",
    "NotFound",
    "Recommender",
    "Retries",
    "Timeouts",
    "TooManyRequests",
    "TrainReport",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(import_module(module), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'feedrank' has no attribute {name!r}; its public names are {', '.join(__all__)}")


def __dir__() -> list[str]:
    """List the public names, also those that are not imported yet."""
    return sorted({*globals(), *__all__})
