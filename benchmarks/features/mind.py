"""MIND's sample with category, subcategory and hour declared in the config alone."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.bars import DATA, PROJECT, Bar

DECLARED = """
[[features.declared]]
name = "category_of_item"
kind = "category"
from = "item.category"

[[features.declared]]
name = "subcategory"
kind = "category"
from = "item.subcategory"

[[features.declared]]
name = "hour"
kind = "local_time"
part = "hour"

[[features.declared]]
name = "subcategory_rate"
kind = "rate"
key = ["item.subcategory"]
half_lives_h = [6.0, 24.0]

[[features.declared]]
name = "read_subcategory"
kind = "interacted_with"
from = "item.subcategory"
half_lives_h = [inf]
"""


def bars() -> list[Bar]:
    """AUC of the last 20 % of the lists."""
    with tempfile.TemporaryDirectory() as folder:
        home, report = Path(folder) / "home", Path(folder) / "report.json"
        home.mkdir()
        config = home / "feedrank.toml"
        config.write_text((PROJECT / "benchmarks" / "mind.toml").read_text() + DECLARED)
        for command in (
            ["import", str(DATA / "mind_sample")],
            ["evaluate", "--dataset", "mind", "--json", str(report)],
        ):
            arguments = [sys.executable, "-m", "feedrank.api.cli", "--home", str(home), *command]
            subprocess.run(arguments, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
        rows = json.loads(report.read_text())["rows"]
        found = {row["metric"]: row["value"] for row in rows if row["method"] == "lambdarank"}
        what = "MIND sample, category, subcategory and hour declared"
        return [Bar(f"{what}: AUC", found["auc"], "", 0.689, "higher")]
