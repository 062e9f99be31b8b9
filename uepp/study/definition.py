"""What a study asks: its file, and the cells that follow from it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, ValidationInfo, field_validator

import uepp
from uepp.artifacts import MANIFEST, file_digests, fingerprint, read_json, sha256
from uepp.config import Config, Given, load_config, locate, merge_settings, read_yaml
from uepp.data.schema import read_dataset_facts
from uepp.errors import InputError
from uepp.evaluation.locality import FIGURES as LOCALITY
from uepp.evaluation.measures import MEASURES
from uepp.evaluation.slices import NAMES as SLICES
from uepp.evaluation.systems import check_opponents, told_less
from uepp.runs.directory import data_directory, data_path

_OF_A_RUN = ("uepp_boost", "uepp_rerank", "uepp_query", "uepp_place", "fusion", "bm25_expanded")
"""Systems that no export has but that of the run itself."""


class EncoderSource(BaseModel):
    """A text encoder that a study makes before its cells.

    Attributes:
        source: `from` in the file: of `uepp pretrain --from`; none: it is pretrained on the study's data.
        settings: what its pretraining changes of the study's configuration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | None = Field(None, alias="from")
    settings: dict[str, Any] = Field(default_factory=dict)


class Study(BaseModel):
    """A study file.

    Attributes:
        description: what it asks, a line.
        config: configuration that all variants start from: a YAML file, or the name of a shipped one.
        settings: what all variants change of it.
        seeds: of training, each a cell of every variant.
        against: opponents, evaluated once.
        also: systems that are made of a cell's towers, and evaluated in every cell that can have them: `bm25_expanded`
            where its text encoder, one of the study's own, has written queries, `uepp_query` and `uepp_place` where the
            query tower reads more than that.
        columns: further columns of the table: its heading, and the slice (or `locality`) and the measure of the report
            window.
        encoders: text encoders by name, each made once a data set; a variant takes one by its name in `text.encoder`.
        variants: by name, what each changes; `config` in it replaces the study's.
        references: variants that others are compared with, seed by seed: each with the latest before it, else the
            first; none: all with the first variant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""
    config: str = "demo"
    settings: dict[str, Any] = Field(default_factory=dict)
    seeds: tuple[int, ...] = Field((1, 2, 3), min_length=1)
    against: tuple[str, ...] = ("bm25",)
    also: tuple[Literal["uepp_boost", "uepp_query", "uepp_place", "fusion", "bm25_expanded"], ...] = ()
    columns: dict[str, tuple[str, str]] = Field(default_factory=dict)
    encoders: dict[str, EncoderSource] = Field(default_factory=dict)
    variants: dict[str, dict[str, Any]] = Field(min_length=1)
    references: tuple[str, ...] = ()
    _file: str = PrivateAttr("study")

    @field_validator("seeds", "against", "also")
    @classmethod
    def _are_there_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        again = [value for place, value in enumerate(values) if value in values[:place]]
        if again:
            raise ValueError(f"{again[0]} is there a second time")
        return values

    @field_validator("columns")
    @classmethod
    def _are_measured(cls, columns: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
        for part, measure in columns.values():
            if part not in (*SLICES, "locality"):
                raise ValueError(f"{part} is no slice; slices are {', '.join(SLICES)} and locality")
            if part == "locality" and measure not in LOCALITY:
                raise ValueError(f"{measure} is not measured of locality, but {', '.join(LOCALITY)}")
            name, _, k = measure.partition("@")
            if part != "locality" and (name not in MEASURES or not k.isdecimal()):
                raise ValueError(f"{measure} is no measure; measures are {', '.join(f'{one}@K' for one in MEASURES)}")
        return columns

    @field_validator("references")
    @classmethod
    def _are_variants(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        unknown = [name for name in names if name not in info.data.get("variants", names)]
        if unknown:
            raise ValueError(f"{unknown[0]} is not one of the variants")
        return names

    def reference_of(self, variant: str) -> str | None:
        """The variant that another is compared with; none: it is itself one."""
        names = list(self.variants)
        references = self.references or names[:1]
        if variant in references:
            return None
        before = [name for name in names[: names.index(variant)] if name in references]
        return before[-1] if before else references[0]

    def says(self, part: str, settings: dict[str, Any]) -> Given:
        """Settings of a part of the file, which messages then name."""
        return Given(f"{self._file}: {part}", settings)


class Cell(NamedTuple):
    """One training.

    Attributes:
        variant: its name.
        seed: of training.
        config: resolved.
        data: digests of the data set's tables, and T.
        key: what it is known by.
        also: systems that it has beside its towers.
    """

    variant: str
    seed: int
    config: Config
    data: list[str]
    key: str
    also: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its directory."""
        return "-".join([self.key, *sorted(self.also)])


class EncoderCell(NamedTuple):
    """A text encoder of a study.

    Attributes:
        name: in the study.
        source: of `uepp pretrain --from`; none: pretrained.
        config: resolved.
        key: of its directory.
    """

    name: str
    source: str | None
    config: Config
    key: str

    def path(self, out: Path) -> Path:
        """Where the encoder is once it was made."""
        return out / "cells" / self.key / "encoder"


def load_study(source: str) -> Study:
    """Read a study.

    Args:
        source: path of a YAML file, or the name of a shipped one.

    Raises:
        InputError: no such study, not YAML, an unknown key or a wrong value.
    """
    path = locate(source, "study")
    try:
        study = Study.model_validate(read_yaml(path))
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise InputError(f"{path}: {key}: {problem['msg']}; got {str(problem['input'])[:80]}") from None
    study._file = str(path)
    check_opponents(study.against, f"{path}: against:")
    for name in study.against:
        if name in _OF_A_RUN:
            raise InputError(f"{path}: against: {name} is made of a run, and a study has many; put it in also")
    return study


def encoders_of(
    study: Study, out: Path, data: Path | None, variants: Sequence[str], digests: "Digests | None" = None
) -> list[EncoderCell]:
    """The text encoders that some variants take.

    Args:
        study: as read.
        out: where studies are.
        data: data set; none: that of the configuration, or the generated marketplace.
        variants: some variants; none: all.
        digests: of data that were read before; none: nothing was.

    Raises:
        InputError: an unknown variant, or a setting that is wrong.
    """
    used = {_encoder_name(study, name) for name in _chosen(study, variants)}
    cells, digests = [], digests or Digests()
    for name, encoder in study.encoders.items():
        if name not in used:
            continue
        given = [study.says("settings", study.settings), study.says(f"encoders.{name}", encoder.settings)]
        config = _placed(study.config, given, out, data)
        made_of = config.model_dump(mode="json", include={"pretraining", "text", "data"})
        del made_of["data"]["path"]
        made_of["pretraining"]["preset"] = _content(config.pretraining.preset)
        key = fingerprint("encoder", _content(encoder.source), made_of, digests.of(config), uepp.__version__)
        cells.append(EncoderCell(name, encoder.source, config, key))
    return cells


def cells_of(
    study: Study,
    out: Path,
    data: Path | None,
    seeds: Sequence[int],
    variants: Sequence[str],
    digests: "Digests | None" = None,
) -> list[Cell]:
    """The cells of a study, seed by seed, so that every variant has a first figure early.

    Args:
        study: as read.
        out: where studies are; a generated marketplace and the study's text encoders lie there too.
        data: data set; none: that of the configuration, or the generated marketplace.
        seeds: some seeds; none: the study's.
        variants: some variants; none: all.
        digests: of data that were read before; none: nothing was.

    Raises:
        InputError: an unknown variant, or a setting that is wrong.
    """
    digests = digests or Digests()
    encoders = {encoder.name: encoder for encoder in encoders_of(study, out, data, variants, digests)}
    cells = []
    for seed in dict.fromkeys(seeds or study.seeds):
        for name in _chosen(study, variants):
            base, given = _settings_of(study, name)
            encoder = encoders.get(_encoder_name(study, name) or "")
            if encoder is not None:
                given.append(study.says(f"variant {name}", {"text": {"encoder": str(encoder.path(out))}}))
            seeded = {"training": {"seed": seed}}
            given.append(Given("--seeds", seeded) if seeds else study.says("seeds", seeded))
            config = _placed(base, given, out, data)
            key = cell_key(config, digests.of(config), None if encoder is None else encoder.key)
            also = tuple(system for system in study.also if _can_have(system, config, encoder))
            cells.append(Cell(name, seed, config, digests.of(config), key, also))
    return cells


def with_other_cells(study: Study, out: Path, data: Path | None, cells: Sequence[Cell]) -> list[Cell]:
    """All cells of a study and some that were chosen, in the order of `cells_of`: what its table may show.

    A variant that was not chosen and cannot be had, for lack of its data or its text encoder say, has none.
    """
    digests = Digests()
    chosen = {(cell.variant, cell.seed): cell for cell in cells}
    variants = {variant for variant, _ in chosen}
    found = dict(chosen)
    for name in study.variants:
        try:
            if name not in variants and not _has_data(study, name, out, data):
                continue
            others = cells_of(study, out, data, [], [name], digests)
        except InputError:
            if name in variants:
                raise
            continue
        found |= {(cell.variant, cell.seed): cell for cell in others if (cell.variant, cell.seed) not in chosen}
    place = {name: position for position, name in enumerate(study.variants)}
    return sorted(found.values(), key=lambda cell: (cell.seed, place[cell.variant]))


def _chosen(study: Study, variants: Sequence[str]) -> list[str]:
    for name in variants:
        if name not in study.variants:
            raise InputError(f"--only {name}: no such variant; the study has {', '.join(study.variants)}")
    return list(dict.fromkeys(variants or study.variants))


def _settings_of(study: Study, variant: str) -> tuple[str, list[Given]]:
    """The configuration that a variant starts from, and what changes of it."""
    changes = dict(study.variants[variant])
    base = changes.pop("config", study.config)
    return base, [study.says("settings", study.settings), study.says(f"variant {variant}", changes)]


def _encoder_name(study: Study, variant: str) -> str | None:
    """Which of the study's own encoders a variant takes; none: no encoder, or the path of one."""
    text = merge_settings(study.settings, study.variants[variant]).get("text")
    name = text.get("encoder") if isinstance(text, dict) else None
    return name if name in study.encoders else None


def _content(source: str | None) -> Any:
    """What an encoder starts from: a folder by its files, wherever it lies; a published one by its name."""
    return file_digests(Path(source)) if source is not None and Path(source).is_dir() else source


def _can_have(system: str, config: Config, encoder: EncoderCell | None) -> bool:
    """Whether a cell can have one of `also`, which would else be known only after its training."""
    if system == "bm25_expanded":
        return encoder is not None and encoder.source is None and encoder.config.pretraining.generated_queries > 0
    return system not in ("uepp_query", "uepp_place") or system in told_less(config.model.query_encoders)


def _has_data(study: Study, variant: str, out: Path, data: Path | None) -> bool:
    """Whether a variant's data are there, generated or not."""
    if data is not None:
        return True
    base, given = _settings_of(study, variant)
    return data_path(load_config(base, given=given), out / "cell").is_dir()


def _placed(config: str, given: Sequence[Given], out: Path, data: Path | None) -> Config:
    """A configuration whose `data.path` is where the data are; cells are evaluated exactly, so no index is built."""
    if data is not None:
        given = [*given, Given("--data", {"data": {"path": str(data)}})]
    resolved = load_config(config, given=given)
    directory = data_directory(resolved, out / "cell")
    changes = {
        "data": resolved.data.model_copy(update={"path": str(directory)}),
        "export": resolved.export.model_copy(update={"index": "flat"}),
    }
    return resolved.model_copy(update=changes)


class Digests:
    """Digests of data sets, each read once."""

    def __init__(self) -> None:
        self._known: dict[str, list[str]] = {}

    def of(self, config: Config) -> list[str]:
        """Of what `data.path` holds that a cell depends on: its tables, and T."""
        path = str(config.data.path)
        if path not in self._known:
            files = [Path(path) / name for name in ("products.parquet", "events.parquet")]
            if missing := [file for file in files if not file.is_file()]:
                raise InputError(f"{missing[0]}: no such file")
            judgments = Path(path) / "judgments.parquet"
            files += [judgments] if judgments.is_file() else []
            train_end = read_dataset_facts(Path(path)).get("train_end")
            self._known[path] = [*map(sha256, files), str(train_end)]
        return self._known[path]


def cell_key(config: Config, data: list[str], encoder: str | None = None) -> str:
    """What a cell is known by: its settings, its text encoder, the data, and the version.

    Args:
        config: of the cell.
        data: digests of its data set.
        encoder: key of the study's own text encoder; none: the one at `text.encoder`, known by its content.
    """
    settings = config.model_dump(mode="json", exclude={"serving", "relevance", "ranker"})
    del settings["data"]["path"]
    if encoder is not None:
        settings["text"]["encoder"] = encoder
    elif config.text.encoder is not None:
        manifest = Path(config.text.encoder) / MANIFEST
        settings["text"]["encoder"] = json.dumps(read_json(manifest)) if manifest.is_file() else None
    return fingerprint(settings, data, uepp.__version__)
