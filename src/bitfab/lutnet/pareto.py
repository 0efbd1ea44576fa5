"""Orders individuals by several objectives, all minimised: non-dominated fronts, crowding, elitist survival."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitfab.dtypes import FloatArray, IntArray


def ranks(values: FloatArray) -> IntArray:
    """The front of each individual, 0 for those that none dominates, (count,), for values (count, objectives).

    One dominates another if it is nowhere worse and somewhere better (Deb et al. 2002, section III-A). Of individuals
    that are equal in all objectives only the first competes; the others are ranked alike behind all.
    """
    _, first, which = np.unique(values, axis=0, return_index=True, return_inverse=True)
    alone = values[first]
    no_worse: NDArray[np.bool_] = np.all(alone[:, None] <= alone[None], axis=2)
    np.fill_diagonal(no_worse, False)
    better = no_worse.sum(axis=0)  # how many of those left dominate each
    rank = np.full(len(alone), -1)
    number = 0
    while (rank < 0).any():
        front = (rank < 0) & (better == 0)
        rank[front] = number
        better -= no_worse[front].sum(axis=0)
        number += 1
    which = which.reshape(-1)
    copies = np.ones(len(values), dtype=bool)
    copies[first] = False
    return rank[which] + number * copies


def crowding(values: FloatArray, rank: IntArray) -> FloatArray:
    """How far the neighbours in the same front lie, summed over the objectives, (count,); infinite at its ends.

    Each objective counts in units of its span in that front (Deb et al. 2002, section III-B).
    """
    result = np.zeros(len(values))
    for front in np.unique(rank):
        members = np.flatnonzero(rank == front)
        for column in values[members].T:
            order = np.argsort(column, kind="stable")
            span = column[order[-1]] - column[order[0]]
            gaps = np.full(len(members), np.inf)
            if span > 0:
                gaps[1:-1] = (column[order[2:]] - column[order[:-2]]) / span
                result[members[order]] += gaps
    return result


def order(values: FloatArray) -> IntArray:
    """Indices, the most worth keeping first: by front, then by crowding, widest first, then by first value."""
    if values.shape[1] == 1:  # the same, sooner
        _, first = np.unique(values[:, 0], return_index=True)
        copies = np.setdiff1d(np.arange(len(values)), first)
        return np.concatenate([first, copies[np.argsort(values[copies, 0], kind="stable")]])
    rank = ranks(values)
    return np.lexsort((values[:, 0], -crowding(values, rank), rank))
