"""The Python API of a home folder: load data frames, evaluate, train, recommend."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from feedrank.api.config import Config, load_config
from feedrank.api.home_paths import HomePaths
from feedrank.api.progress import ShowProgress, embedding_progress, progress_bars
from feedrank.api.python.columns import ColumnNames
from feedrank.api.python.frames import ArrowStream
from feedrank.api.python.load_report import LoadReport

if TYPE_CHECKING:
    from feedrank.api.python.evaluation_table import Evaluation
    from feedrank.api.python.recommender import Recommender
    from feedrank.api.python.train_report import TrainReport
    from feedrank.models.evaluation.bootstrap import Difference
    from feedrank.models.evaluation.report import Row


class Home:
    """A home folder: its journal, bundles and caches. The command line works on the same folder.

    Long work shows progress bars on stderr if that is a terminal, unless `progress` is false.
    """

    def __init__(
        self, folder: str | os.PathLike[str] = "var", *, config: str | os.PathLike[str] | None = None,
        progress: bool = True,
    ) -> None:  # fmt: skip
        """Use a folder, which `load` creates. config: a TOML file; None: feedrank.toml in the folder, if it exists.

        Raises ConfigError for a config file that can't be used.
        """
        self._paths = HomePaths(Path(folder), None if config is None else Path(config))
        self._config = load_config(self._paths.config)
        self._progress = progress

    @property
    def folder(self) -> Path:
        """The folder."""
        return self._paths.folder

    @property
    def config(self) -> Config:
        """The settings, as read from the config file when the home was opened."""
        return self._config

    def load(
        self,
        items: ArrowStream | None = None,
        interactions: ArrowStream | None = None,
        rankings: ArrowStream | None = None,
        users: ArrowStream | None = None,
        *,
        columns: ColumnNames | None = None,
        create_items: bool | None = None,
    ) -> LoadReport:
        """Write the rows of data frames to the journal, and report what was found and what could not be used.

        A frame is anything with the Arrow stream interface: a pandas, polars or DuckDB frame, a pyarrow Table. The
        usual names of columns are known, such as `user_id`, `movieId` or `ts`; `columns` names others, as part ->
        column (`{"user": "customer"}`), or as frame -> part -> column where frames differ. Further columns become
        fields.

        items: item, title, text, category, tags, published. users: user. interactions: user, item, timestamp, type
        (click, or rating if there is a column of ratings), value, ranking, session, dwell_ms, position, id. rankings:
        what was shown, with the lists `items`, `labels`, `positions`, `scores` and `propensities`, or with one row per
        item and the columns `ranking` and `item`.

        Rows with the same id count once, in every load; a frame that is loaded twice counts once. Interactions without
        an id that are equal in all columns of one frame are events of their own. create_items: create an item from each
        id that only interactions or rankings name; None: as the config key journal.create_items says, which is true by
        default. Raises TypeError or ValueError, with nothing written, for a frame that can't be used as a whole.
        """
        from feedrank.api.python.frame_loading import load_frames

        frames = {"items": items, "users": users, "rankings": rankings, "interactions": interactions}
        given = {name: frame for name, frame in frames.items() if frame is not None}
        if not given:
            raise ValueError("found no data frame, expected at least one of items, interactions, rankings and users")
        create = self._config.journal.create_items if create_items is None else create_items
        with closing(self._paths.journal(self._config.journal.url)) as journal, self._bars() as show:
            return load_frames(self._paths, journal, given, columns, create, show)

    def evaluate(self, protocols: Sequence[str] = (), *, dataset: str = "journal") -> Evaluation:
        """Compare the ranker with recall order, text similarity, popularity and random order on held-out data.

        It trains new rankers, and changes no bundle. protocols: last-item, temporal or rankings; by default all that
        fit the journal. dataset: its name in the table. Raises ValueError if the journal has too little.
        """
        from feedrank.api import compose
        from feedrank.api.python.evaluation_table import Evaluation
        from feedrank.models.training.folds import TooLittleDataError

        chosen = (protocols,) if isinstance(protocols, str) else tuple(protocols)
        rows: list[Row] = []
        gains: dict[str, Difference] = {}
        seconds: dict[str, float] = {}
        notes: dict[str, tuple[str, ...]] = {}
        warnings: dict[str, None] = {}
        with self._bars() as show:
            inputs = compose.load_training_inputs(self._paths, self._config, embedding_progress(show))
            fitting = compose.protocols_of(inputs, self._config, chosen)
            compose.check_shuffled_labels(inputs, self._config)
            log_notes = inputs.notes
            for number, protocol in enumerate(fitting):
                try:
                    timed = compose.compare(inputs, self._config, protocol, dataset, show, is_first=not number)
                except TooLittleDataError as problem:
                    if chosen or not rows:
                        raise
                    log_notes += (f"the protocol {protocol} does not fit: {problem}",)
                    continue
                rows += timed.comparison.rows
                gains[timed.dataset], seconds[timed.dataset] = timed.comparison.gain, timed.seconds
                notes[timed.dataset] = (*timed.comparison.trained.notes, *timed.comparison.notes)
                warnings |= dict.fromkeys(timed.comparison.trained.warnings)
                del timed  # free the memory before the next training
        return Evaluation(tuple(rows), gains, seconds, notes, tuple(warnings), log_notes)

    def train(self, name: str | None = None, *, tuned: bool = False, promote: bool | None = None) -> TrainReport:
        """Train a ranker on the whole journal, and make its bundle the current one.

        A ranker that learnt nothing, or that is no better than recall order, is not made current: a warning is printed,
        and `promoted` of the report is False. If nothing serves yet, a bundle in recall order is made current.

        name: of the bundle; None: a timestamp. tuned: use the parameters that `feedrank tune` found. promote: make the
        bundle current in any case, or in no case; None: as above. Raises BundleError for a name that is taken, and
        ValueError if the journal has too little.
        """
        from feedrank.api import compose
        from feedrank.api.compose.serving import warn
        from feedrank.api.python.train_report import TrainReport

        with self._bars() as show:
            run = compose.train_bundle(self._paths, self._config, name, tuned, show, promote)
        if not run.promoted and promote is None:
            serving = "a bundle in recall order serves" if run.recall_bundle else "the current bundle stays"
            warn(f"the bundle {run.bundle} is not promoted, {serving}: {'; '.join(run.weaknesses)}")
        ranker = run.trained.ranker
        importance = dict(sorted(ranker.importance().items(), key=lambda entry: -entry[1]))
        return TrainReport(
            run.bundle,
            ranker.trees,
            dict(run.trained.counts),
            importance,
            run.seconds,
            run.notes,
            run.trained.warnings,
            run.promoted,
        )

    def recommender(self, *, log: bool = False) -> Recommender:
        """Open a recommender on the current bundle and the state of the whole journal; close it after use.

        log: write each feed to the journal before it is returned, as the service does. Set it where users see the
        feeds: training, counters of impressions and experiments need this. Raises BundleError without a bundle.
        """
        from feedrank.api import compose
        from feedrank.api.python.recommender import Recommender

        journal = self._paths.existing_journal(self._config.journal.url)
        try:
            return Recommender(compose.build_recommender(self._paths, self._config, journal), journal, log)
        except BaseException:
            journal.close()
            raise

    def __repr__(self) -> str:
        """Describe the home in one line."""
        return f"Home({str(self.folder)!r})"

    @contextmanager
    def _bars(self) -> Iterator[ShowProgress]:
        with progress_bars(self._progress and sys.stderr.isatty()) as show:
            yield show
