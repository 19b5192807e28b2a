"""Compare easyclf with loops by hand and with other libraries: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: under 3 minutes")
    parser.add_argument("--works", nargs="+", metavar="NAME", help="what to measure; default: all")
    parser.add_argument("--rivals", nargs="+", metavar="NAME", help="whom; default: all")
    parser.add_argument("--repetitions", type=int, help="default: 5, or 2 with --quick")
    parser.add_argument("--threads", type=int, default=1, help="of torch and NumPy; default: 1")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default: cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements there")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the trainings there")
    parser.add_argument("--list", action="store_true", help="name the works and the rivals")
    return parser.parse_args()


def main() -> None:
    """Measure, and print the table."""
    arguments = _arguments()
    for library in ("OMP", "MKL", "OPENBLAS"):
        # Read when NumPy and torch are imported, by the processes that this one starts too.
        os.environ[f"{library}_NUM_THREADS"] = str(arguments.threads)
    import torch
    from tqdm import tqdm

    from benchmarks import report
    from benchmarks.measure import Settings, plan, works
    from benchmarks.rivals import RIVALS

    torch.set_num_threads(arguments.threads)
    if arguments.list:
        print("works:", *works(), sep="\n  ")
        print("rivals:", *RIVALS, sep="\n  ")
        return
    chosen = arguments.works or list(works())
    rivals = arguments.rivals or list(RIVALS)
    for name, known in [(n, works()) for n in chosen] + [(n, RIVALS) for n in rivals]:
        if name not in known:
            sys.exit(f"{name!r} is unknown; expected one of {', '.join(known)}.")
    repetitions = arguments.repetitions or (2 if arguments.quick else 5)
    settings = Settings(rivals, repetitions, arguments.device, arguments.quick)
    results = []
    with tqdm(plan(chosen, settings), file=sys.stderr, disable=None) as bar:
        for name, step in bar:
            bar.set_description(name)
            results += step()
    works_of = list(dict.fromkeys(result.work for result in results))
    results.sort(key=lambda result: works_of.index(result.work))
    where = report.machine(arguments.device, arguments.threads)
    print(f"{where}\n\n{report.table(results)}")
    if arguments.json:
        arguments.json.write_text(report.as_json(results, where))
    if arguments.picture:
        report.draw(results, arguments.picture)


if __name__ == "__main__":
    main()
