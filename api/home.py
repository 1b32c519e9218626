"""The home folder: where the journal, the bundles and the caches are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.journal import Journal
from models.bundle import CURRENT


@dataclass(frozen=True, slots=True)
class Home:
    """Paths under one folder."""

    folder: Path
    chosen_config: Path | None = None
    """A config file elsewhere, in place of the one in the folder."""

    @property
    def journal_path(self) -> Path:
        """The journal's SQLite file."""
        return self.folder / "journal.db"

    @property
    def bundles(self) -> Path:
        """Trained bundles, and the link to the current one."""
        return self.folder / "bundles"

    @property
    def current(self) -> Path:
        """The bundle that serves."""
        return self.bundles / CURRENT

    @property
    def vectors(self) -> Path:
        """Embeddings by content."""
        return self.folder / "cache" / "vectors"

    @property
    def pair_models(self) -> Path:
        """Cross-encoders as they are run."""
        return self.folder / "cache" / "pair-models"

    @property
    def pair_scores(self) -> Path:
        """What cross-encoders gave."""
        return self.folder / "cache" / "pair-scores.db"

    @property
    def models(self) -> Path:
        """Models that were trained here."""
        return self.folder / "models"

    @property
    def downloads(self) -> Path:
        """Data sets that were fetched."""
        return self.folder / "downloads"

    @property
    def rejects(self) -> Path:
        """Lines that could not be read."""
        return self.folder / "rejects.jsonl"

    @property
    def imports(self) -> Path:
        """How far imports came that were broken off."""
        return self.folder / "imports.json"

    @property
    def config(self) -> Path | None:
        """The config file, where there is one."""
        if self.chosen_config is not None:
            return self.chosen_config
        path = self.folder / "feedrank.toml"
        return path if path.is_file() else None

    @property
    def reports(self) -> Path:
        """What came of each retraining."""
        return self.folder / "reports"

    @property
    def tuning(self) -> Path:
        """Trials of hyper-parameters."""
        return self.folder / "tuning.db"

    @property
    def tuned(self) -> Path:
        """The best of them, as a config file."""
        return self.folder / "tuned.toml"

    @property
    def keys(self) -> Path:
        """Who may call the service, hashed."""
        return self.folder / "keys.json"

    @property
    def metrics(self) -> Path:
        """Where the workers of a server share what they count."""
        return self.folder / "metrics"

    @property
    def snapshot(self) -> Path:
        """The behavioural state as of an offset of the journal."""
        return self.folder / "state.npz"

    @property
    def guard(self) -> Path:
        """Locked by the process that looks at guardrails."""
        return self.folder / "experiments-guard"

    def known_journal(self, url: str | None = None) -> Journal:
        """As `journal`, where there is one. Raises ValueError where the file is not there."""
        if url is None and not self.journal_path.exists():
            raise ValueError(
                f"there is no journal at {self.journal_path}; load items and events with `feedrank import`"
            )
        return self.journal(url)

    def journal(self, url: str | None = None) -> Journal:
        """The journal in the home, or at a database URL; made where it is not there."""
        return Journal.at(self.journal_path) if url is None else Journal(url)
