"""Prints what the tests reached of the package, and fails under the goals.

`python .ci/coverage_figures.py report.json`, where the report is that of `coverage json`.
"""

import json
import sys
from pathlib import Path

# Percentages of lines and branches. The goal is 97 and 93.
LINES, BRANCHES = 97.0, 93.0


def figures(summary: dict) -> tuple[float, float]:
    """The percentages of lines and of branches; what has none is whole."""
    lines, branches = summary["num_statements"], summary["num_branches"]
    return (
        100 * summary["covered_lines"] / lines if lines else 100.0,
        100 * summary["covered_branches"] / branches if branches else 100.0,
    )


def main() -> None:
    """Print the files that lack most, and the figures of the package."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))

    def missing(name: str) -> int:
        summary = report["files"][name]["summary"]
        return summary["missing_lines"] + summary["missing_branches"]

    for name in sorted(report["files"], key=missing, reverse=True)[:12]:
        lines, branches = figures(report["files"][name]["summary"])
        where = ",".join(map(str, report["files"][name]["missing_lines"]))
        print(f"{name:35} {lines:6.1f} % of lines {branches:6.1f} % of branches  {where}")
    lines, branches = figures(report["totals"])
    print(
        f"the package: {lines:.2f} % of lines (at least {LINES}), "
        f"{branches:.2f} % of branches (at least {BRANCHES})"
    )
    if lines < LINES or branches < BRANCHES:
        sys.exit("The tests reach too little of the package.")


if __name__ == "__main__":
    main()
