"""`uepp relevance …`: a cross-encoder with sampled negatives (BHNS)."""

import itertools
import shlex
import textwrap
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from uepp.cli.app import (
    ConfigArgument,
    DataOption,
    JsonOption,
    ResumeOption,
    SetOption,
    app,
    given_by,
    print_json,
    progress_console,
    resolve_run,
    result_console,
    say,
    say_stopped,
    verbosity,
    working,
)
from uepp.config import SAMPLER_NAMES, Given, RelevanceConfig, load_config
from uepp.errors import InputError
from uepp.terminal import in_parts

relevance_app = typer.Typer(
    no_args_is_help=True,
    help="Judge query and product as a pair: a cross-encoder that learns from human grades and sampled negatives "
    "(BHNS).\n\n[bold]uepp relevance train --data DIR[/bold] trains one on a data set with judgments.parquet or on a "
    "generated marketplace; [bold]cases[/bold] shows what samplers choose; [bold]compare[/bold] and [bold]sts[/bold] "
    "train with several of them, on such data and on the STS Benchmark. Settings: relevance.* in a configuration or "
    "with --set.",
)
app.add_typer(relevance_app, name="relevance")

_BESIDE, _LEAST = 42, 20
"""Of the table of cases: columns beside a product's text, and how many that has at least; it is cut, --json has all."""
_SAMPLERS = (
    "none (w/o negatives), vns (random), hns (hardest), star, false, cet (baselines), regularized (Eq. 7 alone), "
    "pseudo_labels (Eq. 8 alone), bhns (both)"
)
_ALL = ",".join(SAMPLER_NAMES)
EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        metavar="SOURCE",
        help="Start of the cross-encoder: minilm, the folder of a published BERT, a BERT preset of KerasHub (name or "
        "folder), or scratch (relevance.encoder).",
    ),
]
LayersOption = Annotated[
    int | None, typer.Option("--layers", min=1, help="Its first layers, or layers from scratch (relevance.num_layers).")
]
BiEncoderOption = Annotated[
    str | None,
    typer.Option(
        "--bi-encoder",
        metavar="SOURCE",
        help="Frozen, guides the sampling: minilm, a text encoder's directory, or a run of uepp train "
        "(relevance.bi_encoder).",
    ),
]
NumbersOption = Annotated[str, typer.Option("--num-negatives", metavar="K,…", help="K of the samplers.")]
SamplersOption = Annotated[str, typer.Option("--samplers", metavar="A,B", help=f"Some of {_SAMPLERS}.")]
PoolsOption = Annotated[
    str | None,
    typer.Option(
        "--pool-size",
        metavar="N,…",
        help="Labelled pairs whose products (STS: second sentences) are candidates; as many as relevance.batch_size: "
        "the paper's in-batch sampling. \\[default: relevance.pool_size, else the batch]",
    ),
]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where cells and tables are kept.")]
SeedsOption = Annotated[int, typer.Option("--seeds", min=1, help="How many, from relevance.seed on.")]


@relevance_app.command()
def sts(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="STS Benchmark: sts-train.csv, sts-dev.csv, sts-test.csv.")
    ],
    split: Annotated[str, typer.Option("--split", help="What is reported: dev or test.")] = "dev",
    num_negatives: NumbersOption = "4",
    samplers: SamplersOption = _ALL,
    seeds: SeedsOption = 1,
    pool_size: PoolsOption = None,
    encoder: EncoderOption = None,
    layers: LayersOption = None,
    bi_encoder: BiEncoderOption = None,
    config: Annotated[
        str, typer.Option("--config", metavar="CONFIG", help="Of relevance.*: a shipped one, or a YAML file.")
    ] = "sts",
    settings: SetOption = None,
    out: OutOption = Path("studies/sts"),
    as_json: JsonOption = False,
) -> None:
    """Compare negative samplers on the STS Benchmark, the paper's Table 2.

    A cell is a sampler, K, pool and seed. Each is trained once and kept in --out: started again, the command goes on
    where it stopped. The table is also written there, as table.md and results.json.
    """
    from uepp.relevance.sts import SPLITS

    if split not in SPLITS:
        raise InputError(f"--split {split}: must be one of {', '.join(SPLITS)}")
    resolved = load_config(config, settings or (), given=_given(encoder, layers, bi_encoder))
    pools = _pools(pool_size, resolved.relevance)
    names, numbers = _names("--samplers", samplers), _numbers("--num-negatives", num_negatives)
    with working():
        from uepp.pipeline.sts import run_sts

        results = run_sts(
            directory, resolved.relevance, out, progress_console,
            split=split, samplers=names, numbers=numbers, pool_sizes=pools, num_seeds=seeds, verbose=verbosity(),
        )  # fmt: skip
    _show_grid(results, out, as_json)


@relevance_app.command()
def compare(
    config: ConfigArgument = "demo",
    settings: SetOption = None,
    data: DataOption = None,
    num_negatives: NumbersOption = "4",
    samplers: SamplersOption = "none,vns,hns,bhns",
    seeds: SeedsOption = 3,
    pool_size: PoolsOption = None,
    encoder: EncoderOption = None,
    layers: LayersOption = None,
    bi_encoder: BiEncoderOption = None,
    out: OutOption = Path("studies/samplers"),
    as_json: JsonOption = False,
) -> None:
    """Compare negative samplers on judged queries and products, the paper's Table 3: NDCG@5, 10 and 20, and AUROC.

    The data is that of uepp relevance train. A cell is a sampler, K, pool and seed; all of them have the same pairs in
    the same parts. Each is trained once and kept in --out: started again, the command goes on where it stopped.
    """
    given = [*_given(encoder, layers, bi_encoder), *given_by({"--data": ("data.path", data)})]
    resolved = load_config(config, settings or (), given=given)
    pools = _pools(pool_size, resolved.relevance)
    names, numbers = _names("--samplers", samplers), _numbers("--num-negatives", num_negatives)
    with working():
        from uepp.pipeline.sampler_comparison import compare_samplers

        results = compare_samplers(
            resolved, out, progress_console,
            samplers=names, numbers=numbers, pool_sizes=pools, num_seeds=seeds, verbose=verbosity(),
        )  # fmt: skip
    _show_grid(results, out, as_json)


@relevance_app.command()
def train(
    config: ConfigArgument = "demo",
    settings: SetOption = None,
    data: DataOption = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="DIR", help="Run directory. \\[default: runs/relevance-CONFIG-DATE-TIME]"),
    ] = None,
    encoder: EncoderOption = None,
    layers: LayersOption = None,
    bi_encoder: BiEncoderOption = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", metavar="NAME", help=f"One of {_SAMPLERS} (relevance.sampler).")
    ] = None,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a cross-encoder on judged pairs and sampled negatives, and measure it on queries it has never seen.

    The data set has judgments.parquet (as uepp import home-depot writes it), or is a generated marketplace, whose
    truth then judges the products that were displayed most. The run holds pairs.parquet, checkpoints/, metrics.json
    and cross_encoder/, a SavedModel that scores strings.
    """
    given = [*_given(encoder, layers, bi_encoder), *given_by({"--sampler": ("relevance.sampler", sampler)})]
    resolved, run_dir = resolve_run(config, settings, data, run, resume, prefix="relevance-", given=given)
    with working():
        from uepp.pipeline.relevance import train_relevance

        ended = train_relevance(resolved, run_dir, progress_console, resume=resume, verbose=verbosity())
    if ended.metrics is None:
        say_stopped("relevance train", run_dir, ended.step, resolved.relevance.max_steps)
        return
    _show(ended.metrics, as_json)
    if not as_json:
        say("\nRun: ", (str(run_dir), "bold"), "   (metrics.json, pairs.parquet, checkpoints/, logs/, cross_encoder/)")
        seen = [] if resolved.relevance.bi_encoder else ["--samplers", "vns"]  # the others look at similarities
        say("Next: ", (shlex.join(["uepp", "relevance", "cases", str(run_dir), *seen]), "bold"))


@relevance_app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory, made by uepp relevance train.")],
    as_json: JsonOption = False,
) -> None:
    """Measure a run on its held-out queries: NDCG@5, 10 and 20, and AUROC (the paper's Table 3).

    AUROC has random pairs among the others, as in the paper, and these are told easily; beside it stands that of judged
    pairs alone.

    Beside the cross-encoder stands the bi-encoder that guided its sampling, alone. Where it was trained on some of the
    queries, both are measured on the others.
    """
    with working():
        from uepp.pipeline.relevance import evaluate_relevance

        metrics = evaluate_relevance(run, progress_console)
    _show(metrics, as_json)


@relevance_app.command()
def cases(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Run of uepp relevance train; else give --data.")
    ] = None,
    data: DataOption = None,
    queries: Annotated[int, typer.Option("--queries", min=1, help="How many training queries are drawn.")] = 3,
    query: Annotated[
        list[str] | None, typer.Option("--query", metavar="TEXT", help="This training query. Repeatable.")
    ] = None,
    samplers: SamplersOption = "vns,hns,regularized,bhns",
    num_negatives: Annotated[
        str, typer.Option("--num-negatives", metavar="K,…", help="K of the shares of false negatives.")
    ] = "2,4,8",
    pool_size: Annotated[
        str | None,
        typer.Option(
            "--pool-size", metavar="N,…", help="Pools of the shares. \\[default: relevance.pool_size, else the batch]"
        ),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps whose negatives are counted.")] = 50,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many draws of them, from relevance.seed on.")] = 1,
    bi_encoder: BiEncoderOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what samplers choose for a few queries, with labels (the paper's Table 4).

    On a generated marketplace, whose truth is known, also how many of all sampled negatives are false ones: relevant
    or strongly relevant products that nobody has judged.
    """
    if (run is None) == (data is None):
        raise InputError("cases: give either a run or --data DIR")
    if run is not None and (settings or bi_encoder):
        raise InputError("cases: a run has its settings; leave out --set and --bi-encoder, or give --data instead")
    names, numbers = _names("--samplers", samplers), _numbers("--num-negatives", num_negatives)
    pools = [] if pool_size is None else _numbers("--pool-size", pool_size)
    config = None
    if data is not None:
        given = [*_given(None, None, bi_encoder), *given_by({"--data": ("data.path", data)})]
        config = load_config(None, settings or (), given=given)
    with working():
        from uepp.pipeline.relevance_cases import cases as find

        found = find(
            progress_console, run_dir=run, config=config, queries=query or (), number=queries,
            samplers=names, numbers=numbers, pool_sizes=pools, num_steps=steps, num_seeds=seeds,
        )  # fmt: skip
    if as_json:
        print_json(found)
        return
    _show_cases(found)


def _show_grid(results: dict[str, Any] | None, out: Path, as_json: bool) -> None:
    """The table of a grid of samplers; none: it was stopped."""
    if results is None:
        progress_console.print("Stopped and saved. The same command goes on where it was.")
        return
    if as_json:
        print_json(results)
        return
    from uepp.pipeline.sampler_table import DIFFERENCES, difference_table, headings, lines

    def show(head: list[str], rows: list[list[str]], caption: str) -> None:
        for table in in_parts(head, rows, {head[0], "K", "pool"}, result_console.width, None, caption):
            result_console.print(table)

    show(headings(results), lines(results), results["caption"])
    if apart := difference_table(results):
        show(*apart, DIFFERENCES)
    say("Kept in: ", (str(out), "bold"), "   (table.md, results.json, cells/)")


def _show(metrics: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(metrics)
        return
    columns = list(next(iter(metrics["systems"].values())))
    head = ["system", *("AUROC, judged" if name == "auroc_judged" else name.upper() for name in columns)]
    labels = {"cross_encoder": f"cross-encoder ({metrics['sampler']})", "bi_encoder": "bi-encoder alone"}
    about = metrics["bi_encoder"]
    rows = [(labels[name], values) for name, values in metrics["systems"].items()]
    new = about and about["new_queries"]
    if new:
        labels["cross_encoder"] = "cross-encoder"
        rows += [(f"{labels[name]}, new queries", values) for name, values in new["systems"].items()]
    lines = [
        [label, *("–" if values[column] is None else f"{values[column]:.4f}" for column in columns)]
        for label, values in rows
    ]
    for table in in_parts(head, lines, {head[0]}, result_console.width):
        result_console.print(table)
    say(
        f"{metrics['num_pairs']:,} pairs of {metrics['num_queries']:,} held-out queries, "
        f"{metrics['num_random_pairs']:,} of them random; {metrics['share_relevant']:.0%} relevant"
    )
    if about and about["num_trained_queries"] is None:
        say("It is not known which queries the bi-encoder was trained on: if on these, its figures are too good.")
    elif about and about["num_trained_queries"]:
        rest = f"the {new['num_queries']:,} others are new" if new else "so it is not measured"
        say(f"The bi-encoder was trained on {about['num_trained_queries']:,} of these queries; {rest}.")
    training = metrics["training"]
    if "sampler_share" in training:
        say(f"{training['pairs_per_second']:,.0f} pairs/s; the sampler is {training['sampler_share']:.2%} of a step")


def _show_cases(found: dict[str, Any]) -> None:
    has_truth = "false_negatives" in found
    for query, cases in itertools.groupby(found["cases"], key=itemgetter("query")):
        table = Table("sampler", "negative", box=box.SIMPLE_HEAD, title=Text(query), title_justify="left")
        for name in ("label", "truth")[: 1 + has_truth]:
            table.add_column(name, justify="right")
        width = max(result_console.width - _BESIDE, _LEAST)
        for case in cases:
            for number, negative in enumerate(case["negatives"]):
                product = textwrap.shorten(negative["product"], width, placeholder=" …")
                figures = [f"{negative['label']:.3f}", *([f"{negative['relevance']:.2f}"] if has_truth else [])]
                table.add_row("" if number else case["sampler"], Text(product), *figures)
        result_console.print(table)
    if not has_truth:
        return
    rows = found["false_negatives"]
    names = ["sampler", "K", "pool", "negatives", "false, share", "their mean label", "label of true ones"]
    compares = any(row["bhns_less"] is not None for row in rows)
    caption = None
    if rows[0]["num_seeds"] > 1:
        apart = "; *: 0 is outside of the 95% interval over seeds" * compares
        caption = f"Mean ± standard deviation over {rows[0]['num_seeds']} seeds{apart}"
    lines = []
    for row in rows:
        figures = [_figure(row[name], row[f"{name}_std"]) for name in ("share", "label_of_false", "label_of_true")]
        place = [row["sampler"], str(row["num_negatives"]), str(row["pool_size"]), f"{row['num_sampled']:,}"]
        less = f"{row['bhns_less']:+.4f}{'*' * row['bhns_less_is_apart']}" if row["bhns_less"] is not None else "–"
        lines.append([*place, *figures, *[less.replace("-", "−")] * compares])
    title = "Sampled negatives that are relevant in truth"
    head = names + ["bhns less it"] * compares
    for table in in_parts(head, lines, {"sampler", "K", "pool"}, result_console.width, title, caption):
        result_console.print(table)


def _figure(mean: float | None, spread: float | None) -> str:
    if mean is None:
        return "–"
    return f"{mean:.3f}" if spread is None else f"{mean:.3f} ± {spread:.3f}"


def _given(encoder: str | None, layers: int | None, bi_encoder: str | None) -> list[Given]:
    """Settings that options stand for."""
    return given_by(
        {
            "--encoder": ("relevance.encoder", "none" if encoder == "scratch" else encoder),
            "--layers": ("relevance.num_layers", layers),
            "--bi-encoder": ("relevance.bi_encoder", bi_encoder),
        }
    )


def _pools(text: str | None, config: RelevanceConfig) -> list[int]:
    from uepp.relevance.steps import check_pools

    pools = [config.pairs_in_pool] if text is None else _numbers("--pool-size", text)
    check_pools(pools, config.batch_size)
    return pools


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names or [text]:
        if name not in SAMPLER_NAMES:
            raise InputError(f"{option} {name}: must be some of {', '.join(SAMPLER_NAMES)}")
    return names


def _numbers(option: str, text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise InputError(f"{option} {text}: must be whole numbers of at least 1, with commas between them")
    return numbers
