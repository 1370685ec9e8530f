"""What proof_detection.py found, as tables: rates with their exact 95 % bounds."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scipy.stats import binomtest

from fixtures.core.records import Figure, Limit, Verdict

Row = Mapping[str, Any]

LEAST_SITES = 40
SITES = Limit.row(
    "distinct_faults_caught", ">=", LEAST_SITES, "kinds at sites that issue C asks for"
)
MISSED = Limit.row("faults_missed", "==", 0, "each is above the smallest magnitude that is stated")
MISNAMED = Limit.row("faults_misnamed", "==", 0, "a failure says where and why")
ALARMS = Limit.row("false_alarms", "==", 0, "a healthy card passes")


@functools.cache
def bounds(count: int, total: int) -> tuple[float, float]:
    """Exact 95 % interval of a rate (Clopper and Pearson, Biometrika 26, 1934)."""
    interval = binomtest(count, total).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)


def rate(count: int, total: int) -> str:
    """A count with its rate's exact 95 % interval."""
    low, high = bounds(count, total)
    return f"{count} of {total} ({low:.0%} to {high:.0%})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " --- |" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def faults(rows: Sequence[Row]) -> tuple[str, Verdict]:
    """Detection by kind and magnitude, and what each check caught; the verdict on all of them."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["kind"], row["magnitude"]), []).append(row)

    def line(words: tuple[str, str], group: Sequence[Row]) -> list[str]:
        caught = [row for row in group if row["caught"]]
        return [
            *words,
            rate(len(caught), len(group)),
            rate(sum(row["named"] for row in group), len(group)),
            rate(sum(row["document"] for row in group), len(group)),
        ]

    head = ("kind", "magnitude", "caught", "rightly named", "stopped by the document's gate")
    lines = [line(words, group) for words, group in groups.items()]
    lines.append(line(("all", ""), rows))
    by: dict[str, int] = {}
    for row in rows:
        by[row["caught"] or "nothing"] = by.get(row["caught"] or "nothing", 0) + 1
    first = table(
        ("first caught by", "faults"), [(name, str(number)) for name, number in by.items()]
    )
    good = {(row["kind"], row["operator"], row["module"]) for row in rows if row["named"]}
    bad = [row for row in rows if not row["caught"] or not row["named"]]
    where = "; ".join(f"{row['kind']} {row['magnitude']} at {row['module']}" for row in bad[:5])
    verdict = MISSED.judge(Figure(MISSED.name, sum(not row["caught"] for row in rows)), where)
    verdict &= MISNAMED.judge(Figure(MISNAMED.name, sum(not row["named"] for row in rows)), where)
    verdict &= SITES.judge(Figure(SITES.name, len(good)))
    took = sum(row["seconds"] for row in rows) / len(rows)
    text = (
        f"{len(rows)} draws, {len(good)} distinct kinds at distinct sites, {took:.1f} s each.\n\n"
        f"{table(head, lines)}\n\n{first}"
    )
    return text, verdict


def alarms(rows: Sequence[Row]) -> tuple[str, Verdict]:
    """How often healthy cards were stopped, and how near they came to the strict gate's limit."""
    stopped = [row for row in rows if row["stopped"]]
    high = bounds(len(stopped), len(rows))[1]
    lines = [("runs", str(len(rows))), ("stopped", str(len(stopped)))]
    lines.append(("95 % upper bound of the rate", f"{high:.2%}"))
    shares: dict[str, list[float]] = {}
    for row in rows:
        for name, share in row["shares"].items():
            shares.setdefault(name, []).append(share)
    for name, values in shares.items():
        words = f"{sum(values) / len(values):.2f} on average, {max(values):.2f} at most"
        lines.append((f"strict_error in {name} ({len(values)} runs), must be <= 1", words))
    where = "; ".join(f"run {row['number']}: {', '.join(row['stopped'])}" for row in stopped[:5])
    return table(("", ""), lines), ALARMS.judge(Figure(ALARMS.name, len(stopped)), where)
