"""The home folder holds the journal, the bundles, the reports and the caches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from feedrank.engine.journal.journal import Journal
from feedrank.models.bundles.bundle import CURRENT
from feedrank.models.text.score_cache import clear_file


@dataclass(frozen=True, slots=True)
class HomePaths:
    """Paths under one folder."""

    folder: Path
    config_override: Path | None = None
    """A config file elsewhere, which replaces the one in the folder."""

    @property
    def journal_path(self) -> Path:
        """The journal's SQLite file."""
        return self.folder / "journal.db"

    @property
    def erased_users(self) -> Path:
        """File of the erasures, with pseudonyms of the users; it outlives the journal."""
        return self.folder / "erased.jsonl"

    @property
    def bundles(self) -> Path:
        """Folder of the trained bundles and of the link to the current one."""
        return self.folder / "bundles"

    @property
    def current_bundle(self) -> Path:
        """Link to the bundle that serves."""
        return self.bundles / CURRENT

    @property
    def embedding_cache(self) -> Path:
        """Cache of embeddings, keyed by a hash of the text."""
        return self.folder / "cache" / "vectors"

    @property
    def cross_encoder_models(self) -> Path:
        """Cache of exported cross-encoder models."""
        return self.folder / "cache" / "cross-encoders"

    @property
    def cross_encoder_scores(self) -> Path:
        """Cache of cross-encoder scores."""
        return self.folder / "cache" / "cross-encoder-scores.db"

    @property
    def models(self) -> Path:
        """Folder of fine-tuned models."""
        return self.folder / "models"

    @property
    def downloads(self) -> Path:
        """Folder of downloaded data sets."""
        return self.folder / "downloads"

    @property
    def rejects(self) -> Path:
        """JSONL file of the input lines that an import rejected."""
        return self.folder / "rejects.jsonl"

    @property
    def import_progress(self) -> Path:
        """JSON file with the progress of interrupted imports."""
        return self.folder / "imports.json"

    @property
    def config(self) -> Path | None:
        """The config file; None where there is none."""
        if self.config_override is not None:
            return self.config_override
        path = self.folder / "feedrank.toml"
        return path if path.is_file() else None

    @property
    def reports(self) -> Path:
        """Folder of the retraining reports."""
        return self.folder / "reports"

    @property
    def tuning_trials(self) -> Path:
        """Database of the hyperparameter trials."""
        return self.folder / "tuning.db"

    @property
    def tuned_config(self) -> Path:
        """Config file with the best hyperparameters."""
        return self.folder / "tuned.toml"

    @property
    def keys(self) -> Path:
        """File of the hashed API keys."""
        return self.folder / "keys.json"

    @property
    def counters(self) -> Path:
        """Counters of rate limits and quotas, which the worker processes share."""
        return self.folder / "counters.db"

    @property
    def snapshot(self) -> Path:
        """Snapshot of the behavioural state at an offset of the journal."""
        return self.folder / "state.npz"

    @property
    def purges(self) -> Path:
        """Empty file whose time is that of the latest purge."""
        return self.folder / "purged"

    @property
    def purged_at(self) -> int | None:
        """Time of the latest purge, in nanoseconds: a state that was made before it counts deleted events."""
        try:
            return self.purges.stat().st_mtime_ns
        except OSError:
            return None

    @property
    def loading_lock(self) -> Path:
        """Lock file of the server process that loads a new bundle."""
        return self.folder / "loading.lock"

    @property
    def saving_lock(self) -> Path:
        """Lock file of the server process that has the state saved."""
        return self.folder / "saving.lock"

    @property
    def training_lock(self) -> Path:
        """Lock file of the process that trains."""
        return self.folder / "training.lock"

    @property
    def guardrail_lock(self) -> Path:
        """Lock file of the process that checks guardrails."""
        return self.folder / "experiments-guard"

    def check_exists(self) -> None:
        """Raise ValueError if the folder does not exist: a name with a typo must not become a new home."""
        if not self.folder.is_dir():
            raise ValueError(
                f"there is no home at {self.folder.absolute()}; check --home and FEEDRANK_HOME, or create it with"
                " `feedrank import`"
            )

    def existing_journal(self, url: str | None = None) -> Journal:
        """Open the journal like `journal`, but raise ValueError if the SQLite file does not exist."""
        if url is None and not self.journal_path.exists():
            raise ValueError(
                f"there is no journal at {self.journal_path}; load items and events with `feedrank import`"
            )
        return self.journal(url)

    def journal(self, url: str | None = None, is_checked: bool = False) -> Journal:
        """Open the journal in the home, or at a database URL; create it if it does not exist.

        A journal that lacks erasures of this home, such as a restored backup, makes them again. is_checked: the
        service has opened it before, so it is neither created nor read now. Raises JournalError.
        """
        journal = Journal.open_sqlite(self.journal_path, is_checked) if url is None else Journal(url, is_checked)
        if is_checked:
            journal.erasure_log.keep_in(self.erased_users)
            return journal
        try:
            if journal.remember_erasures(self.erased_users):
                self.delete_user_data()
        except BaseException:
            journal.close()
            raise
        return journal

    def forget_state(self) -> None:
        """Delete the state snapshot, as events that it counts were deleted; no server carries its state on either."""
        self.purges.touch(0o600)
        self.snapshot.unlink(missing_ok=True)

    def delete_user_data(self) -> None:
        """Delete what is derived from the journal and may hold data of erased users; it is made again when needed.

        This is the state snapshot, the rejected lines of the last import, and the cache of cross-encoder scores.
        """
        self.snapshot.unlink(missing_ok=True)
        self.rejects.unlink(missing_ok=True)
        clear_file(self.cross_encoder_scores)
