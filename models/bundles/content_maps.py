"""The file of a bundle's content maps, by which new items get content vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from feedrank.features.item_model import ItemModel
from feedrank.models.bundles.content_check import check_content_maps
from feedrank.models.bundles.manifest import reading
from feedrank.models.items.cold_start import ColdStartExtender, ContentMaps

CONTENT_MAPS = "content-maps.npz"


def write_content_maps(folder: Path, item_model: ItemModel) -> None:
    """Fit the content maps of an item model, and write them into a bundle folder."""
    np.savez(folder / CONTENT_MAPS, allow_pickle=False, **ColdStartExtender(item_model).content_maps)


def read_content_maps(folder: Path, manifest: Mapping[str, Any], item_model: ItemModel) -> ContentMaps | None:
    """Read the content maps of a bundle; None for one of an earlier version. Raises BundleError."""
    with reading(folder / CONTENT_MAPS):
        if CONTENT_MAPS not in manifest["files"]:
            return None
        with np.load(folder / CONTENT_MAPS, allow_pickle=False) as file:
            maps = dict(file)
        check_content_maps(maps, item_model)
        return maps
