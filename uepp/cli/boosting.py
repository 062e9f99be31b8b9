"""`uepp boost`."""

from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from uepp.cli.app import JsonOption, RunArgument, app, print_json, progress_console, result_console, say, working
from uepp.errors import InputError


@app.command()
def boost(
    run: RunArgument,
    at: Annotated[
        int | None, typer.Option("--at", metavar="K", help="Maximise Recall@K. \\[default: boosting.at, 100]")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", metavar="N", help="Weightings to try, a fold. \\[default: boosting.num_trials, 40]"),
    ] = None,
    max_boost: Annotated[
        float | None,
        typer.Option(
            "--max-boost",
            metavar="SHARE",
            help="The most that quality may set two products apart, as a share of the similarity between the first "
            "and the K-th product of a request. \\[default: boosting.max_boost, 0.5]",
        ),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Take the boosting away again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let the quality of products count beside similarity.

    Weights of quality features are found on the selection window within a bound, the index is built again over the
    hydrated vectors, and the report window says what that brings.
    """
    if off and any(option is not None for option in (at, trials, max_boost)):
        raise InputError("--off: takes the boosting away; leave out --at, --trials and --max-boost")

    from uepp import pipeline

    with working():
        if off:
            was_boosted = pipeline.unboost(run, progress_console)
        else:
            result = pipeline.boost(run, progress_console, at=at, num_trials=trials, max_boost=max_boost)
    if off:
        if as_json:
            print_json({"was_boosted": was_boosted})
        else:
            say("Boosting is off." if was_boosted else "There was no boosting.")
        return
    if as_json:
        print_json(result)
        return
    _show(result)
    say("\nBoosting: ", (str(run / "boosting"), "bold"), "   (report.json, trials.json, tradeoff.svg, tradeoff.png)")


def _show(result: dict[str, Any]) -> None:
    from uepp.evaluation.boosting import print_comparison

    table = Table("quality feature", "taken as", "weight", box=box.SIMPLE_HEAD)
    for feature in result["features"]:
        table.add_row(feature["name"], feature["transform"], f"{feature['weight']:.4f}")
    result_console.print(table)
    bound, tuned_on = result["bound"], result["tuned_on"]
    say(
        f"Quality sets two products apart by at most {bound['boost_range']:.3f} of similarity "
        f"(allowed: {bound['allowed_boost_range']:.3f})"
    )
    say(
        f"{tuned_on['measure']} on held-out selection requests: "
        + ", ".join(f"{row['recall']:.4f} at {row['scale']:g}" for row in tuned_on["held_out"])
        + f" times the tuned weights; taken: {tuned_on['scale']:g}"
    )
    if not result["is_boosted"]:
        say("No weights beat similarity alone there: the export stays without boosting.")
    elif result["report"] is None:
        say("The report window has no requests.")
    else:
        print_comparison(result["report"], "Report window, without and with boosting", result_console)
