"""Provide the command line of feedrank."""

from api.lean import import_lightgbm

import_lightgbm()  # before anything else imports it

from api.cli.main import main as main  # noqa: E402  # after LightGBM, see above

__all__ = ["main"]
