"""What the end of the page lists: cost, data, settings, versions, and the commands that make it again."""

import shlex
from typing import Any

import uepp
from uepp.report import wording
from uepp.report.answer import is_generated
from uepp.report.content import Cell, Grid
from uepp.report.gather import Facts, changed_settings

_NOT_RECORDED = "not recorded"
_STAGES = {
    "preparation of the data": {"mining", "features"},
    "training, with its set-up and checkpoints": {"training"},
    "tuning of BM25": {"tuning of BM25"},
    "export": {"export"},
}
"""Lines of the costs, and the stages that each adds up."""


def costs(facts: Facts) -> list[tuple[str, str]]:
    """What the run costs, a line each; what nobody wrote down is said to be so."""
    training, lines = facts.training, []
    if training is None:
        lines.append(("training", _NOT_RECORDED))
    else:
        lines.append(
            ("training steps", f"{wording.count(training.steps)} of {facts.config.training.batch_size} examples")
        )
        lines.append(("their time", f"{wording.duration(training.seconds)}, from the logged speed"))
        lines.append(("examples a second", wording.count(training.examples_per_second)))
    seconds = facts.costs.get("seconds", {})
    lines += [
        (line, wording.duration(sum(seconds[name] for name in names)) if names <= seconds.keys() else _NOT_RECORDED)
        for line, names in _STAGES.items()
    ]
    peak = facts.costs.get("peak_memory_bytes")
    lines.append(("memory of the process, at most", _NOT_RECORDED if peak is None else wording.size(peak)))
    query = facts.costs.get("query")
    if query is None or query.get("index") != facts.served:  # the time of an index that was there before is no answer
        alone = f"{_NOT_RECORDED} (uepp evaluate measures it)"
    else:
        alone = f"{query['p50_ms']:.3g} and {query['p99_ms']:.3g} ms, each alone"
    lines.append(("query through tower and index, p50 and p99", alone))
    point = served_point(facts.tuning)
    if point is None:
        lines.append(("index, bytes a product", f"{_NOT_RECORDED} (uepp tune measures it)"))
    else:
        lines.append(
            (
                "query in the index, p50 and p99",
                f"{point['p50_ms']:.3g} and {point['p99_ms']:.3g} ms, one thread, without the tower",
            )
        )
        lines.append(("index, bytes a product", wording.count(point["bytes_per_vector"])))
    lines += [(f"on disk: {name}", wording.size(num_bytes)) for name, num_bytes in facts.sizes.items()]
    return lines


def served_point(tuning: dict[str, Any] | None) -> dict[str, Any] | None:
    """The row of the tuned index."""
    rows = [] if tuning is None else tuning["report"] or tuning["held_out"]
    return next((row for row in rows if tuning is not None and row["index"] == tuning["chosen"]), None)


def data_lines(facts: Facts) -> list[tuple[str, str]]:
    """What was trained and evaluated on."""
    windows = facts.windows
    spans = {
        "query–product graph": ("graph_start", "train_end"),
        "training examples": ("examples_start", "train_end"),
        "selection (all that is tuned)": ("train_end", "selection_end"),
        "report (these figures)": ("selection_end", "report_end"),
    }
    lines = [("data set", facts.data.get("name", "no name") + (", generated" if is_generated(facts) else ""))]
    lines += [(key, str(facts.data[key])) for key in ("licence", "protocol") if key in facts.data]
    lines.append(("products", wording.count(facts.manifest["num_products"])))
    gone = "the data set is not where it was"
    lines.append(("events", gone if facts.num_events is None else wording.count(facts.num_events)))
    lines.append(
        ("training examples", _NOT_RECORDED if facts.num_examples is None else wording.count(facts.num_examples))
    )
    lines.append(("evaluated requests", wording.count(facts.metrics["num_requests"])))
    lines += [
        (name, f"{wording.moment(windows[begin])} until before {wording.moment(windows[end])} UTC")
        for name, (begin, end) in spans.items()
        if {begin, end} <= windows.keys()
    ]
    return lines


def settings_grid(facts: Facts) -> Grid:
    """Settings that differ from the defaults."""
    rows = [
        [Cell(key), Cell(wording.setting(value)), Cell(wording.setting(default))]
        for key, default, value in changed_settings(facts.config)
    ]
    return Grid(["setting", "here", "default"], rows)


def versions(facts: Facts) -> list[tuple[str, str]]:
    """Of what made the run, and of what made this page."""
    lines = [
        ("run", f"{facts.manifest['run_id']}, of {str(facts.run.get('created', ''))[:10] or 'an unknown day'}"),
        ("exported with uepp", str(facts.manifest["uepp_version"])),
        ("report made with uepp", f"{uepp.__version__}, {facts.made:%Y-%m-%d %H:%M} UTC"),
    ]
    if facts.tuning is not None:
        lines.append(("index tuned with", f"Faiss {facts.tuning['faiss_version']}, {facts.tuning['num_cores']} cores"))
    return lines


def commands(facts: Facts) -> list[str]:
    """What makes such a run again, from its settings and its data."""
    data, again = str(facts.run.get("data", "DIR")), "NEW_RUN"
    lines = []
    if is_generated(facts) and {"num_products", "num_events"} <= facts.data.keys():
        numbers = (("products", "num_products"), ("events", "num_events"), ("seed", "seed"))
        options = " ".join(f"--{option} {facts.data[key]}" for option, key in numbers)
        lines.append(f"uepp generate DIR {options}")
        data = "DIR"
    config = shlex.quote(str(facts.run_dir / "config.yaml"))
    lines.append(f"uepp train {config} --data {shlex.quote(data) if data != 'DIR' else data} --run {again}")
    if facts.boosting is not None and facts.boosting.get("is_boosted"):
        lines.append(f"uepp boost {again}")
    if "uepp_rerank" in facts.metrics["comparisons"]:
        lines.append(f"uepp relevance rank {again}")
    if facts.tuning is not None:
        budget, at, trials = (facts.tuning[key] for key in ("budget_ms", "at", "num_trials"))
        lines.append(f"uepp tune {again} --budget-ms {budget:g} --at {at} --trials {trials}")
    lines.append(f"uepp evaluate {again} --against {','.join(facts.metrics['comparisons'])}")
    lines.append(f"uepp report {again}")
    return lines
