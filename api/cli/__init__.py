"""Provide the command line of feedrank."""

from feedrank.api.lightgbm_import import import_lightgbm

import_lightgbm()  # before anything else imports it

from feedrank.api.cli.main import main as main  # noqa: E402  # after LightGBM, see above

__all__ = ["main"]
