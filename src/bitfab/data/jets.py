"""Jets of high-energy proton collisions, five kinds told apart by sixteen observables: generated or read from a file.

The task is that of the hls4ml jet set (J. Duarte et al., arXiv 1804.06913, section 2): which particle started a jet of
about 1 TeV: a gluon, a light quark, a W, a Z or a top quark. Pythia 8 makes the collisions and FastJet the jets; both
are an optional extra, `pip install "bitfab[jets]"`, and are imported only when jets are generated.

Observables, over the constituents of the groomed jet, with `z_i` their share of the groomed constituents' summed pT
and `t_ij` their distance in rapidity and azimuth (A. Larkoski, G. Salam, J. Thaler, arXiv 1305.0007; I. Moult,
L. Necib, J. Thaler, arXiv 1609.07483):

    zlogz = sum_i z_i ln z_i        multiplicity = number of constituents        mass in GeV (mMDT)
    e2(b) = sum_{i<j} z_i z_j t_ij^b          e3(b) = sum_{i<j<k} z_i z_j z_k (t_ij t_ik t_jk)^b
    e3'(b), e3''(b): as e3(b), with the smallest, the product of the two smallest distances instead of all three
    C1(b) = e2(b)    C2(b) = e3(b) / e2(b)^2    D2(b) = e3(b) / e2(b)^3    D2(a, b) = e3(a) / e2(b)^(3 a / b)
    M2(b) = e3'(b) / e2(b)        N2(b) = e3''(b) / e2(b)^2

Each is 0 where its divisor is. D2(1, 1) is D2(1): the set repeats that column, and so do we.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bitfab.data import npz
from bitfab.errors import BitfabError

__all__ = ["CLASSES", "OBSERVABLES", "SPLIT_SEEDS", "generate", "load", "observables"]

SPLIT_SEEDS: Final = {"train": 1, "validation": 2, "test": 3}
"""The dataset seed of each split. Different seeds give independent collisions, so the splits are disjoint."""

CLASSES: Final = ("g", "q", "w", "z", "t")
"""What started the jet, by label: gluon, light quark, W boson, Z boson, top quark."""

OBSERVABLES: Final = (
    "zlogz",
    *("c1_b0", "c1_b1", "c1_b2", "c2_b1", "c2_b2"),
    *("d2_b1", "d2_b2", "d2_a1_b1", "d2_a1_b2"),
    *("m2_b1", "m2_b2", "n2_b1", "n2_b2"),
    *("mass", "multiplicity"),
)
"""The names of the sixteen columns, in order."""

_MOST_SEED: Final = 100_000_000
_PARTONS: Final = ("PhaseSpace:pTHatMin = 950.", "PhaseSpace:pTHatMax = 1100.")
_HADRONIC: Final = tuple(f"{boson}:{rule}" for boson in (23, 24) for rule in ("onMode = off", "onIfAny = 1 2 3 4 5"))
_SCALAR: Final = (
    *("Higgs:useBSM = on", "HiggsBSM:gg2H2 = on", "35:m0 = 2100.", "35:doForceWidth = on", "35:mWidth = 20."),
    *("35:onMode = off", *_HADRONIC),
)
_PROCESSES: Final = {
    "g": ("HardQCD:gg2gg = on", *_PARTONS),
    "q": ("HardQCD:qq2qq = on", *_PARTONS),
    "w": (*_SCALAR, "35:onIfMatch = 24 -24"),
    "z": (*_SCALAR, "35:onIfMatch = 23 23"),
    "t": ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on", *_PARTONS, *_HADRONIC),
}
_ENERGY: Final = "Beams:eCM = 13000."
_RADIUS: Final = 0.8
_CUT: Final = 0.1
_PT: Final = (800.0, 1200.0)
_ETA: Final = 2.5
_PARTICLES_ETA: Final = 5.0


def generate(
    count: int, seed: int, progress: Callable[[int], None] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Simulate collisions until they have given `count` jets, the five classes equally often (15 to 65 ms a jet).

    Each class is one hard process at 13 TeV. Partons of 950 to 1,100 GeV of transverse momentum make gg -> gg,
    qq -> qq (light quarks and antiquarks), and top pairs; a scalar of 2,100 GeV decays to WW or to ZZ, so that the
    bosons are polarized lengthwise (those of qq -> WW are not, and lose a prong in the grooming more often).
    Every W and Z decays to quarks. Showers, underlying event and hadrons follow. Anti-kT jets of radius 0.8 are made
    from every stable particle but neutrinos within |eta| < 5; of the two with the largest pT, those of 800 to 1,200 GeV
    and |eta| < 2.5 are kept, and groomed by modified mass drop (M. Dasgupta et al., arXiv 1307.0007, z_cut = 0.1).
    There is no detector. FastJet writes its citation to standard output once.

    Args:
        count: number of jets N, at least 1.
        seed: dataset seed in 0..100,000,000, see `SPLIT_SEEDS`.
        progress: called with the number of jets made so far, after each.

    Returns:
        observables, float32 (N, 16), columns as in `OBSERVABLES`, and labels, int64 (N,), indices of `CLASSES`, in
        random order. The same arguments give the same jets.

    Raises:
        BitfabError: Pythia or FastJet is missing, or an argument is out of range.
    """
    if count < 1 or not 0 <= seed <= _MOST_SEED:
        raise BitfabError(
            f"jets.generate: count={count}, seed={seed} is out of range: choose count >= 1, 0 <= seed <= {_MOST_SEED}"
        )
    pythia, fastjet = _import_tools()
    labels = np.random.default_rng(seed).permutation(np.arange(count) % len(CLASSES))
    values = np.empty((count, len(OBSERVABLES)), np.float32)
    done = 0
    for label, name in enumerate(CLASSES[:count]):
        rows = np.flatnonzero(labels == label)
        jets = _jets(_collider(pythia, name, 1 + seed * len(CLASSES) + label), fastjet)
        for row, jet in zip(rows, jets, strict=False):  # jets has no end
            values[row] = jet
            done += 1
            if progress:
                progress(done)
    return values, labels


def load(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read jets from an .npz file with the arrays `x` (N, 16), `y` (N,), `names` (16,) and `classes` (5,).

    Returns:
        observables and labels as `generate` returns them, in the file's order.

    Raises:
        BitfabError: the file is absent or unreadable, an array has another shape, type or range, or the columns or
            classes are others or in another order.
    """
    values, labels, names, classes = npz.read(path, "x", "y", "names", "classes")
    for what, found, wanted in (("names", names, OBSERVABLES), ("classes", classes, CLASSES)):
        if found.tolist() != list(wanted):
            got = ", ".join(" ".join(str(name).split()) for name in found.ravel())
            raise BitfabError(f"{path}: {what} are {got}: reorder the file to {', '.join(wanted)}")
    if values.dtype != np.float32 or values.ndim != 2 or values.shape[1] != len(OBSERVABLES) or len(values) == 0:
        raise BitfabError(
            f"{path}: x is {values.dtype} of shape {values.shape}: observables are float32 of shape "
            f"(N, {len(OBSERVABLES)}), N >= 1"
        )
    if not np.isfinite(values).all():
        column = OBSERVABLES[int(np.flatnonzero(~np.isfinite(values).all(axis=0))[0])]
        raise BitfabError(f"{path}: x holds a value of {column} that is not finite: leave such jets out")
    return values, npz.labels(path, labels, len(values), len(CLASSES))


def observables(
    momentum: NDArray[np.float64], rapidity: NDArray[np.float64], azimuth: NDArray[np.float64], mass: float
) -> NDArray[np.float64]:
    """The sixteen observables (16,) of one groomed jet.

    Args:
        momentum: transverse momenta (n,) of its constituents, positive, in any unit; n >= 1.
        rapidity: their rapidities (n,).
        azimuth: their azimuths (n,), in radians.
        mass: the jet's mass in GeV, copied into its column.
    """
    z = momentum / momentum.sum()
    turn = np.abs(azimuth[:, None] - azimuth) % (2 * np.pi)
    distance = np.hypot(rapidity[:, None] - rapidity, np.minimum(turn, 2 * np.pi - turn))
    np.fill_diagonal(distance, 0)
    e2 = {b: float(z @ (distance**b) @ z - (z @ z if b == 0 else 0)) / 2 for b in (0, 1, 2)}
    roots = np.sqrt(np.outer(z, z))
    e3 = {b: float(np.trace(np.linalg.matrix_power(roots * distance**b, 3))) / 6 for b in (1, 2)}
    smallest, two_smallest = _angular(z, distance)
    return np.array(
        [
            float(z @ np.log(z)),
            *(e2[b] for b in (0, 1, 2)),
            *(_ratio(e3[b], e2[b] ** 2) for b in (1, 2)),
            *(_ratio(e3[b], e2[b] ** 3) for b in (1, 2)),
            *(_ratio(e3[1], e2[b] ** (3 / b)) for b in (1, 2)),
            *(_ratio(smallest[b], e2[b]) for b in (1, 2)),
            *(_ratio(two_smallest[b], e2[b] ** 2) for b in (1, 2)),
            mass,
            len(z),
        ]
    )


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else 0.0


def _angular(z: NDArray[np.float64], distance: NDArray[np.float64]) -> tuple[dict[int, float], dict[int, float]]:
    """e3'(b) and e3''(b) for b = 1, 2, summed over triples i < j, k; j and k are in both orders, hence the half."""
    smallest, two_smallest = {1: 0.0, 2: 0.0}, {1: 0.0, 2: 0.0}
    for i in range(len(z) - 2):
        near, rest = distance[i, i + 1 :], z[i + 1 :]
        weight = z[i] * np.outer(rest, rest) / 2
        np.fill_diagonal(weight, 0)
        low, high = np.minimum(near[:, None], near), np.maximum(near[:, None], near)
        other = distance[i + 1 :, i + 1 :]
        least = np.minimum(low, other)
        product = least * np.minimum(np.maximum(low, other), high)
        for b in (1, 2):
            smallest[b] += float((weight * least**b).sum())
            two_smallest[b] += float((weight * product**b).sum())
    return smallest, two_smallest


def _import_tools() -> tuple[Any, Any]:
    try:
        import fastjet
        import pythia8mc
    except ImportError as error:
        raise BitfabError(
            "jets: Pythia 8 and FastJet, which simulate the collisions and find the jets, are not both installed: "
            'pip install "bitfab[jets]"'
        ) from error
    return pythia8mc, fastjet


def _collider(pythia: Any, name: str, seed: int) -> Any:
    """A ready Pythia for the class `name`; `seed` is Pythia's, 1..900,000,000."""
    collider = pythia.Pythia("", False)
    for setting in ("Print:quiet = on", "Random:setSeed = on", f"Random:seed = {seed}", _ENERGY, *_PROCESSES[name]):
        collider.readString(setting)
    collider.init()
    return collider


def _jets(collider: Any, fastjet: Any) -> Iterator[NDArray[np.float64]]:
    """The observables of one jet after another, without end."""
    anti_kt = fastjet.JetDefinition(fastjet.antikt_algorithm, _RADIUS)
    while True:
        if not collider.next():
            continue
        particles = [
            fastjet.PseudoJet(p.px(), p.py(), p.pz(), p.e())
            for p in collider.event
            if p.isFinal() and p.isVisible() and abs(p.eta()) < _PARTICLES_ETA
        ]
        sequence = fastjet.ClusterSequence(particles, anti_kt)
        for jet in fastjet.sorted_by_pt(sequence.inclusive_jets(_PT[0]))[:2]:
            if jet.pt() < _PT[1] and abs(jet.eta()) < _ETA:
                yield _groomed_observables(jet, fastjet)


def _groomed_observables(jet: Any, fastjet: Any) -> NDArray[np.float64]:
    """Undo the Cambridge/Aachen clustering of the jet until both parts carry more than a tenth of the pT."""
    aachen = fastjet.JetDefinition(fastjet.cambridge_algorithm, fastjet.JetDefinition.max_allowable_R)
    sequence = fastjet.ClusterSequence(list(jet.constituents()), aachen)
    groomed = sequence.inclusive_jets()[0]
    first, second = fastjet.PseudoJet(), fastjet.PseudoJet()
    while groomed.has_parents(first, second):
        if min(first.pt(), second.pt()) > _CUT * (first.pt() + second.pt()):
            break
        groomed = fastjet.PseudoJet(first if first.pt() > second.pt() else second)
    parts = groomed.constituents()
    momentum, rapidity, azimuth = (np.array([getattr(p, name)() for p in parts]) for name in ("pt", "rap", "phi"))
    return observables(momentum, rapidity, azimuth, groomed.m())
