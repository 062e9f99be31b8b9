"""A grid of samplers × K × pools × seeds: each cell is trained once and kept, and one table has all that are there."""

import gc
import itertools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

import uepp
from uepp.artifacts import atomic_file, nearest_existing, read_json, write_json
from uepp.config import BLIND_SAMPLERS, RelevanceConfig
from uepp.errors import InputError
from uepp.pipeline.relevance import speed
from uepp.pipeline.sampler_table import Trained, differences, figure, markdown, rows
from uepp.pretraining.bert import locate
from uepp.relevance.bi_encoder import check_bi_encoder
from uepp.relevance.candidates import LabelledPairs
from uepp.relevance.cross_encoder import CrossEncoder, check_depth, make_cross_encoder
from uepp.relevance.samplers import configured_sampler
from uepp.relevance.steps import Steps
from uepp.relevance.training import fit
from uepp.runs.directory import announced, made_alone, read_costs
from uepp.runs.strategies import choose_strategy, refuse_several_workers

_METRICS = "metrics.json"
_OWN = ("sampler", "num_negatives", "pool_size", "seed")
"""Settings in which the cells of one table differ."""
_WITHOUT_EFFECT = {
    "checkpoint_every_steps", "keep_checkpoints", "encoder", "bi_encoder", "learning_rate",
}  # fmt: skip
"""Settings that change nothing of a cell, or are known by what they come to."""
_FROM_SCRATCH = ("dim", "num_heads", "intermediate_dim", "vocabulary_size")
"""Sizes that a published encoder has of its own."""


class Content(NamedTuple):
    """What all cells of a table have in common, by its content.

    Attributes:
        encoder: of what the cross-encoder begins with.
        bi_encoder: of what guides the sampling; none: there is none, or no sampler wants it and it is not there.
    """

    encoder: str
    bi_encoder: str | None


def content_of(config: RelevanceConfig, samplers: Sequence[str]) -> Content:
    """Look at both encoders before anything is trained.

    Raises:
        InputError: one is not there, is none, or has fewer layers than are wanted.
    """
    encoder, bi_encoder = "scratch", None
    if config.encoder is not None:
        published = locate(config.encoder, "relevance.encoder =")
        check_depth(published, config.num_layers)
        encoder = published.digest()
    if config.bi_encoder is not None:
        try:
            bi_encoder = check_bi_encoder(config.bi_encoder)
        except InputError:
            if not BLIND_SAMPLERS.issuperset(samplers):
                raise
    return Content(encoder, bi_encoder)


class Cell(NamedTuple):
    """One training.

    Attributes:
        key: what it is known by.
        config: of the cell.
    """

    key: str
    config: RelevanceConfig


class Task(NamedTuple):
    """What the cells learn, the same for all of them.

    Attributes:
        labelled: pairs to train on.
        queries: their texts, by row.
        products: likewise.
        vocabulary: folder of words, for an encoder from scratch.
        measure: of a trained cross-encoder, the grid's measures; none where one has no value.
        validate: see `uepp.relevance.training.fit`.
    """

    labelled: LabelledPairs
    queries: Sequence[str]
    products: Sequence[str]
    vocabulary: Path
    measure: Callable[[CrossEncoder], dict[str, float | None]]
    validate: Callable[[CrossEncoder], float] | None = None


@dataclass(frozen=True)
class Grid:
    """Where cells are kept, and what their table says.

    Attributes:
        out: gets `cells/KEY/`, `results.json` and `table.md`, which are written anew after each cell.
        config: of all cells, but for sampler, K, pool and seed.
        key: what a cell with these settings is known by: `grid_key`, and whatever it is of.
        measures: by name, what the table calls them.
        paper: figures of the paper by K and sampler.
        paper_heading: what these are.
        caption: what the table is of, without its encoders.
        facts: what else `results.json` holds.
    """

    out: Path
    config: RelevanceConfig
    key: Callable[[RelevanceConfig], str]
    measures: Mapping[str, str]
    paper: Mapping[int, Mapping[str, Sequence[float]]]
    paper_heading: str
    caption: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def cells(
        self, samplers: Sequence[str], numbers: Sequence[int], pool_sizes: Sequence[int], num_seeds: int
    ) -> list[Cell]:
        """The cells that are asked for, seed by seed; without negatives K and pool make no difference.

        Args:
            samplers: by name.
            numbers: K.
            pool_sizes: of the pools, in labelled pairs.
            num_seeds: seeds from the configuration's on.

        Raises:
            InputError: a cell cannot be.
        """
        config = self.config
        if not (there := nearest_existing(self.out)).is_dir():
            raise InputError(f"--out {self.out}: {there} is a file; give a directory")
        if config.bi_encoder is None and (seeing := [name for name in samplers if name not in BLIND_SAMPLERS]):
            raise InputError(f"--samplers {seeing[0]}: looks at similarities; relevance.bi_encoder is none")
        if config.seed + num_seeds > 2**32:
            raise InputError(
                f"--seeds {num_seeds}: from relevance.seed = {config.seed} on, so at most {2**32 - config.seed}; seeds "
                "end at 2³² − 1"
            )
        cells: dict[str, Cell] = {}
        for seed, number, pool_size, name in itertools.product(
            range(config.seed, config.seed + num_seeds), numbers, pool_sizes, samplers
        ):
            own = {"sampler": name, "num_negatives": number, "pool_size": pool_size, "seed": seed}
            settings = RelevanceConfig.model_validate(config.model_dump() | own)
            cell = Cell(self.key(settings), settings)
            cells.setdefault(cell.key, cell)
        return list(cells.values())

    def complete(
        self, cells: Sequence[Cell], make_task: Callable[[bool], Task], console: Console, *, verbose: int = 1
    ) -> dict[str, Any] | None:
        """Train the cells that are not there yet, and put all together.

        Args:
            cells: that are asked for.
            make_task: what they learn, made only where a cell is missing; is told whether a sampler among those looks
                at similarities.
            console: for progress.
            verbose: progress of a training, see `uepp.relevance.training.fit`.

        Returns:
            See `write`. None where a signal stopped a training: the next call goes on with it.

        Raises:
            InputError: several workers, which would wait for one another at the lock of a cell.
        """
        refuse_several_workers("uepp relevance")
        missing = [cell for cell in cells if not self._metrics(cell).is_file()]
        if missing:
            task = make_task(any(cell.config.sampler not in BLIND_SAMPLERS for cell in missing))
            if not self._train_all(missing, task, console, verbose):
                return None
        return self.write()

    def _train_all(self, cells: Sequence[Cell], task: Task, console: Console, verbose: int) -> bool:
        """Train cells one after another; one that was interrupted goes on from its checkpoint. False: a signal came."""
        for number, cell in enumerate(cells, 1):
            settings = cell.config
            place = f"K = {settings.num_negatives}, pool {settings.pairs_in_pool}, seed {settings.seed}"
            console.print(f"[bold]{number} of {len(cells)}[/bold] {settings.sampler}, {place} …", highlight=False)
            with made_alone(self._metrics(cell).parent, console):
                found = read_json(self._metrics(cell)) if self._metrics(cell).is_file() else None
                found = found or self._train(cell, task, verbose)
            if found is None:
                return False
            figures = "  ".join(f"{measure} {figure(found[measure], None)}" for measure in self.measures)
            console.print(f"  {figures}  ({found['seconds']:.0f} s)", highlight=False)
            self.write()
        return True

    def _train(self, cell: Cell, task: Task, verbose: int) -> dict[str, Any] | None:
        """Train and measure one cell; its run is thrown away then, its figures stay. None: stopped by a signal."""
        settings = cell.config
        run_dir = self._metrics(cell).parent / "run"
        steps = Steps(
            task.labelled, task.queries, task.products, configured_sampler(settings),
            batch_size=settings.batch_size, pool_size=settings.pairs_in_pool, seed=settings.seed,
        )  # fmt: skip
        run_dir.mkdir(parents=True, exist_ok=True)
        with announced(Console(quiet=True), "training", run_dir=run_dir, adds=True):
            fitted = fit(
                lambda seed: make_cross_encoder(settings, task.vocabulary, seed),
                steps, settings, run_dir,
                strategy=choose_strategy(), validate=task.validate, resume=True, verbose=verbose,
            )  # fmt: skip
        if not fitted.is_complete:
            return None
        found: dict[str, Any] = {
            **task.measure(fitted.encoder),
            "steps": fitted.step,
            "best_step": fitted.best_step,
            "seconds": read_costs(run_dir)["seconds"]["training"],
            **speed(run_dir / "logs"),
            "settings": settings.model_dump(mode="json"),
        }
        write_json(self._metrics(cell), found)
        shutil.rmtree(run_dir)
        del fitted
        gc.collect()  # graphs refer to themselves, and a grid makes many
        return found

    def write(self) -> dict[str, Any]:
        """Write `results.json` and `table.md` of all cells that are there, and return what the first one holds.

        These are the cells that differ in sampler, K, pool and seed alone, so a grid can be trained in parts.
        """
        config, cells = self.config, self._kept()
        encoder = f"the first {config.num_layers} layers of {config.encoder}"
        if config.encoder is None:
            encoder = f"from scratch, {config.num_layers} layers of {config.dim}"
        weight = "1 / K" if config.sampled_weight is None else f"{config.sampled_weight:g}"
        results = {
            "rows": rows(cells, list(self.measures)),
            "differences": differences(cells, list(self.measures)),
            "measures": dict(self.measures),
            "paper": {
                str(number): {name: list(row) for name, row in rows.items()} for number, rows in self.paper.items()
            },
            "paper_heading": self.paper_heading,
            "caption": f"{self.caption} 0 to 100, mean ± standard deviation over seeds; `none` is the same for all K "
            f"and pools. Cross-encoder: {encoder}, {config.max_steps:,} steps at rate {config.peak_learning_rate:g}; "
            f"negatives by {config.bi_encoder or 'no bi-encoder'}, each with weight {weight} in the loss. Last column: "
            "the sampler's share of a step.",
            "encoder": encoder,
            "bi_encoder": config.bi_encoder,
            "max_steps": config.max_steps,
            "sampled_weight": config.sampled_weight,
            "learning_rate": config.peak_learning_rate,
            **self.facts,
            "uepp_version": uepp.__version__,
        }
        write_json(self.out / "results.json", results)
        with atomic_file(self.out / "table.md") as path:
            path.write_text(markdown(results), encoding="utf-8")
        return results

    def _metrics(self, cell: Cell) -> Path:
        return self.out / "cells" / cell.key / _METRICS

    def _kept(self) -> list[Trained]:
        """Cells of this table that are there, by seed."""
        found = []
        for path in sorted(self.out.glob(f"cells/*/{_METRICS}")):
            metrics = read_json(path)
            try:
                own = {name: metrics["settings"][name] for name in _OWN}
                settings = RelevanceConfig.model_validate(self.config.model_dump() | own)
            except (KeyError, TypeError, ValueError):  # of another version or table
                continue
            if path.parent.name == self.key(settings):
                found.append(Trained(settings, metrics))
        return sorted(found, key=lambda cell: cell.settings.seed)


def grid_key(settings: RelevanceConfig, without: set[str], content: Content) -> list[Any]:
    """What a cell of any grid is known by, for a fingerprint: nothing that its sampler does not read.

    Args:
        settings: of the cell.
        without: settings that change nothing on this kind of data.
        content: of the encoders.
    """
    counts = settings.model_dump(mode="json", exclude=_WITHOUT_EFFECT | without)
    counts |= {"sampled_weight": settings.weight_of_sampled, "pool_size": settings.pairs_in_pool}
    if settings.patience == 0:  # nothing is validated
        del counts["evaluate_every_steps"]
    if settings.encoder is not None:
        for name in _FROM_SCRATCH:
            del counts[name]
    if settings.sampler == "none":
        del counts["num_negatives"], counts["pool_size"], counts["sampled_weight"]
    if settings.sampler != "false":
        del counts["max_similarity"]
    if settings.sampler not in ("regularized", "bhns"):
        del counts["temperature"]
    if settings.sampler not in ("false", "regularized", "pseudo_labels", "bhns"):
        del counts["positive_above"]
    seen = None if settings.sampler in BLIND_SAMPLERS else content.bi_encoder
    return [counts, settings.peak_learning_rate, content.encoder, seen, uepp.__version__]
