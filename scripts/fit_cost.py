"""Fit the coefficients of `bitfab.hw.cost` to what Yosys made of random networks: `scripts/measure_cost.py` first.

    python scripts/fit_cost.py FOLDER [--styles | --only BLOCK]

Non-negative least squares of each block's LUTs and flip-flops, errors relative to the block's size; then the error of
whole networks by cross-validation (each fifth left out in turn), and src/bitfab/hw/cost_ecp5.json from all. With
--styles the coefficients of a DSP a product and of all that is no multiplier stay as they are in that file, with --only
those of all other blocks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bitfab.hw.features import features
from bitfab.hw.memory_cost import dsps, memories, packed_registers

OUTPUT = Path(__file__).resolve().parent.parent / "src/bitfab/hw/cost_ecp5.json"
FOLDS = 5
LEAST = 20.0  # below so many LUTs or registers an error of a block counts absolutely
# Features that networks with a DSP a product do not have.
_ROWS = ("first row bits", "row bits", "rows", "row registers", "triple bits", "delayed bits")
STYLES = {
    *((block, name) for block in ("conv2d", "requantize") for name in _ROWS),
    *(("requantize", name) for name in ("operand bits", "carried bits", *(f"constant {name}" for name in _ROWS))),
    *(("conv2d", name) for name in ("matches", "match counts", "signed weight bits", "signed data bits")),
    *(("conv2d", name) for name in ("factor bits", "packed bits", "weight tables")),
}
WHOLE = 30.0  # weight of a network's relative error beside a block's: cells between two blocks go to either

Name = tuple[str, str]  # block, feature
Row = dict[str, Any]
Coefficients = dict[str, dict[str, dict[str, float]]]


def fit(
    networks: Sequence[Sequence[Row]], kept: Coefficients | None = None, fitted: Set[Name] = frozenset(STYLES)
) -> Coefficients:
    """Coefficients by block, kind (lut, ff) and feature; those that are `kept` are given, save those to be `fitted`."""
    described = [[_described(row) for row in rows] for rows in networks]
    every = {name for rows in described for row in rows for name in row}
    names = sorted(every if kept is None else every & fitted)
    columns = {name: column for column, name in enumerate(names)}
    found = {block: {"lut": {}, "ff": {}} for block, _ in names} if kept is None else _without(kept, fitted)
    for kind in ("lut", "ff"):
        counts, wanted, weights = [], [], []
        for rows, features_of in zip(networks, described, strict=True):
            blocks = np.zeros((len(rows), len(names)))
            for line, row in zip(blocks, features_of, strict=True):
                for name in row.keys() & columns.keys():
                    line[columns[name]] = row[name]
            sizes = np.array([_outside(row, kind) for row in rows], dtype=float)
            known = np.array([predicted(row, found, kind) if kept else 0.0 for row in rows])
            counts += [*blocks, blocks.sum(axis=0)]
            wanted += [*(sizes - known), (sizes - known).sum()]
            weights += [*(1 / np.maximum(sizes, LEAST) ** 0.7), WHOLE / sizes.sum()]
        scale = np.asarray(weights)
        solved, _ = nnls(np.asarray(counts) * scale[:, None], np.asarray(wanted) * scale, maxiter=10000)
        for (block, name), value in zip(names, solved, strict=True):
            if value > 5e-5:
                found[block][kind][name] = round(float(value), 4)
    return found


def _without(kept: Coefficients, fitted: Set[Name]) -> Coefficients:
    none: dict[str, dict[str, float]] = {"lut": {}, "ff": {}}
    return {
        block: {
            kind: {name: value for name, value in own.items() if (block, name) not in fitted}
            for kind, own in kept.get(block, none).items()
        }
        for block in kept.keys() | {block for block, _ in fitted}
    }


def _described(row: Row) -> dict[Name, float]:
    """The features of an instance by (block, feature)."""
    return {(row["block"], name): count for name, count in features(row["block"], row["parameters"]).items()}


def _outside(row: Row, kind: str) -> int:
    """The cells that the features describe: flip-flops as if none lay inside multipliers."""
    return int(row[kind]) + (packed_registers(row["block"], row["parameters"]) if kind == "ff" else 0)


def predicted(row: Row, coefficients: Coefficients, kind: str) -> float:
    own = coefficients.get(row["block"], {}).get(kind, {})
    return sum(own.get(name, 0.0) * count for name, count in features(row["block"], row["parameters"]).items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--styles", action="store_true", help="fit what multipliers other than DSPs add, keep the rest")
    parser.add_argument("--only", metavar="BLOCK", help="fit one block, keep the others")
    options = parser.parse_args()
    kept = json.loads(OUTPUT.read_text()) if options.styles or options.only else None
    networks = [json.loads(path.read_text()) for path in sorted(options.folder.glob("[0-9]*.json"))]
    named = {name for rows in networks for row in rows for name in _described(row) if name[0] == options.only}
    fitted = named if options.only else STYLES
    errors: dict[str, list[float]] = defaultdict(list)
    for fold in range(FOLDS):
        coefficients = fit([rows for i, rows in enumerate(networks) if i % FOLDS != fold], kept, fitted)
        for rows in networks[fold::FOLDS]:
            for kind in ("lut", "ff"):
                errors[kind].append(sum(predicted(row, coefficients, kind) for row in rows) / _sum(rows, kind) - 1)
            errors["dsp"].append(sum(dsps(row["block"], row["parameters"]) for row in rows) - _sum(rows, "dsp"))
            held = [memory.brams for row in rows for memory in memories(row["block"], row["parameters"])]
            errors["bram"].append(sum(held) - _sum(rows, "bram"))
    for kind in ("lut", "ff"):
        values = 100 * np.abs(errors[kind])
        tail, worst = np.quantile(values, 0.9), values.max()
        print(f"networks, {kind}: mean {values.mean():.1f} %, 90 % below {tail:.1f} %, worst {worst:.1f} %")
    for kind in ("dsp", "bram"):
        wrong = [error for error in errors[kind] if error]
        print(f"networks, {kind}: exact for {len(networks) - len(wrong)} of {len(networks)}; else off by {wrong}")
    OUTPUT.write_text(json.dumps(fit(networks, kept, fitted), indent=1, sort_keys=True) + "\n")


def _sum(rows: Sequence[Row], kind: str) -> float:
    return sum(_outside(row, kind) for row in rows)


if __name__ == "__main__":
    main()
