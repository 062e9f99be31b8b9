"""`uepp relevance rank`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from uepp.cli.app import JsonOption, RunArgument, print_json, progress_console, result_console, say, working
from uepp.cli.relevance import relevance_app
from uepp.errors import InputError

_LABELS = {
    "retrieval": "no re-ranking",
    "ranker": "ranker, bi-encoder",
    "ranker_cross_encoder": "ranker, cross-encoder",
    "ranker_both": "ranker, both",
}
_NAMES = {"auc": "AUC", "mrr": "MRR", "ndcg": "NDCG", "precision": "Precision", "recall": "Recall"}


@relevance_app.command()
def rank(
    run: RunArgument,
    cross_encoder: Annotated[
        Path | None,
        typer.Option(
            "--cross-encoder",
            metavar="DIR",
            help="Run of uepp relevance train, or its SavedModel: also train a ranker with its score, and one with "
            "both, and leave out requests of queries that it was trained on.",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option("--top", metavar="K", help="Products of a list that are ranked. \\[default: ranker.top, 50]"),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Take the run's ranker away again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train the final ranker of what a run finds, and say what it brings (the paper's Table 5).

    LambdaMART reads a score of relevance, the quality, popularity and price of a product, and what it is to the person
    who asks. It learns from the purchases of the selection window; the report window says what that brings. The best
    one is kept in the export, one with a cross-encoder only where it is surely ahead: uepp search --rerank, and the
    server's rerank, use it.
    """
    if off and (cross_encoder is not None or top is not None):
        raise InputError("--off: takes the ranker away; leave out --cross-encoder and --top")
    with working():
        from uepp.pipeline.ranking import rank as train
        from uepp.pipeline.ranking import unrank

        if off:
            was_there = unrank(run, progress_console)
        else:
            result = train(run, progress_console, cross_encoder=cross_encoder, top=top)
    if off:
        if as_json:
            print_json({"had_ranker": was_there})
        else:
            say("The ranker is gone." if was_there else "There was no ranker.")
        return
    if as_json:
        print_json(result)
        return
    _show(result)
    say("\nReport: ", (str(run / "ranking" / "report.json"), "bold"))


def _show(result: dict[str, Any]) -> None:
    from uepp.pipeline.ranking import left_out_line

    systems: dict[str, Any] | None = result["systems"]
    if systems is None:
        say("The report window has no requests.")
    else:
        table = Table(
            box=box.SIMPLE_HEAD,
            title=f"The first {result['top']} products of {result['num_requests']:,} requests of "
            f"{result['num_days']} days",
            caption="95% intervals of a bootstrap over queries. AUC: within a list, of purchases that are in it",
            caption_justify="left",
        )
        table.add_column("measure", no_wrap=True)
        for name in systems:
            table.add_column(_LABELS[name].replace(", ", ",\n"), justify="right")
        shown = [key for key in next(iter(systems.values()))["all"] if _is_shown(key, result["top"])]
        for key in shown:
            name, k = key.split("@")
            heading = _NAMES[name] if name in ("auc", "mrr") else f"{_NAMES[name]}@{k}"
            table.add_row(heading, *(_cell(one["all"], key) for one in systems.values()))
        result_console.print(table)
    if result["cross_encoder"] is not None:
        say(left_out_line(result["cross_encoder"]))
    held_out = result["held_out"]
    (measure,) = held_out["retrieval"]
    say(
        f"{measure.upper()} on held-out selection requests: "
        + "; ".join(f"{_LABELS[name]} {one[measure]:.4f}" for name, one in held_out.items())
    )
    if result["chosen"] is None:
        say("No ranker is surely ahead of retrieval there: the export stays without one.")
    else:
        say("Kept in the export: ", (_LABELS[result["chosen"]], "bold"))
        if result["cross_encoder"] is not None and result["chosen"] == "ranker":
            say("None with a cross-encoder is surely ahead of it, and a search would pay for one.")


def _is_shown(key: str, top: int) -> bool:
    name, _, k = key.partition("@")
    return name in ("auc", "mrr", "ndcg", "precision") or (name == "recall" and int(k) == top)


def _cell(figures: dict[str, Any], key: str) -> str:
    value = figures.get(key)
    if value is None:
        return "–"
    low, high = figures["intervals"][key]
    return _short(value) if low is None else f"{_short(value)} ({_short(low)}–{_short(high)})"


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")
