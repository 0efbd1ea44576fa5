"""Fit the coefficients of `bitfab.hw.cost` to what Yosys made of random networks: `scripts/measure_cost.py` first.

    python scripts/fit_cost.py FOLDER

Non-negative least squares of each block's LUTs and flip-flops, errors relative to the block's size; then the error of
whole networks by cross-validation (each fifth left out in turn), and src/bitfab/hw/cost_ecp5.json from all.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bitfab.hw.features import features
from bitfab.hw.memory_cost import dsps, memories

OUTPUT = Path(__file__).resolve().parent.parent / "src/bitfab/hw/cost_ecp5.json"
FOLDS = 5
LEAST = 20.0  # below so many LUTs or registers an error of a block counts absolutely
WHOLE = 30.0  # weight of a network's relative error beside a block's: cells between two blocks go to either

Row = dict[str, Any]
Coefficients = dict[str, dict[str, dict[str, float]]]


def fit(networks: Sequence[Sequence[Row]]) -> Coefficients:
    """Coefficients by block, kind (lut, ff) and feature."""
    described = [[_described(row) for row in rows] for rows in networks]
    names = sorted({name for rows in described for row in rows for name in row})
    columns = {name: column for column, name in enumerate(names)}
    found: Coefficients = {block: {"lut": {}, "ff": {}} for block, _ in names}
    for kind in ("lut", "ff"):
        counts, wanted, weights = [], [], []
        for rows, features_of in zip(networks, described, strict=True):
            blocks = np.zeros((len(rows), len(names)))
            for line, row in zip(blocks, features_of, strict=True):
                for name, count in row.items():
                    line[columns[name]] = count
            sizes = np.array([row[kind] for row in rows], dtype=float)
            counts += [*blocks, blocks.sum(axis=0)]
            wanted += [*sizes, sizes.sum()]
            weights += [*(1 / np.maximum(sizes, LEAST) ** 0.7), WHOLE / sizes.sum()]
        scale = np.asarray(weights)
        solved, _ = nnls(np.asarray(counts) * scale[:, None], np.asarray(wanted) * scale, maxiter=10000)
        for (block, name), value in zip(names, solved, strict=True):
            if value > 5e-5:
                found[block][kind][name] = round(float(value), 4)
    return found


def _described(row: Row) -> dict[tuple[str, str], float]:
    """The features of an instance by (block, feature)."""
    return {(row["block"], name): count for name, count in features(row["block"], row["parameters"]).items()}


def predicted(row: Row, coefficients: Coefficients, kind: str) -> float:
    own = coefficients.get(row["block"], {}).get(kind, {})
    return sum(own.get(name, 0.0) * count for name, count in features(row["block"], row["parameters"]).items())


def main() -> None:
    networks = [json.loads(path.read_text()) for path in sorted(Path(sys.argv[1]).glob("[0-9]*.json"))]
    errors: dict[str, list[float]] = defaultdict(list)
    for fold in range(FOLDS):
        coefficients = fit([rows for i, rows in enumerate(networks) if i % FOLDS != fold])
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
    OUTPUT.write_text(json.dumps(fit(networks), indent=1, sort_keys=True) + "\n")


def _sum(rows: Sequence[Row], kind: str) -> float:
    return sum(row[kind] for row in rows)


if __name__ == "__main__":
    main()
