"""The reference networks: their sizes, their shipped weights' scores, and their training."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from rich.progress import Progress

from bitfab import zoo
from bitfab.data import digits, pulses, qubit
from bitfab.data.metrics import mask_scores, top1_accuracy
from bitfab.errors import BitfabError
from bitfab.lutnet.fit import answers
from bitfab.zoo.train import Diagrams, Schedule, predict, train_qubit
from bitfab.zoo.unet import UNet


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("qubit-447", 447), ("qubit", 20165), ("digits", 2770), ("pulses", 4194), ("jets", 4389), ("mnist", 25450)],
)
def test_parameter_counts(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in zoo.load(name).parameters()) == parameters


def test_the_447_parameters_are_415_weights_and_biases_and_32_of_batch_norm() -> None:
    norms = [m for m in UNet((2, 4)).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert sum(p.numel() for m in norms for p in m.parameters()) == 32


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_load_gives_eval_mode_finite_weights_and_the_stated_shapes(name: str) -> None:
    net = zoo.load(name)
    assert not any(module.training for module in net.modules())
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())
    shape = zoo.NETWORKS[name].input_shape
    with torch.inference_mode():
        outputs = net(torch.zeros(2, *shape))
    classes = {"digits": 10, "pulses": 2, "jets": 5, "mnist": 10}
    assert outputs.shape == ((2, classes[name]) if name in classes else (2, *shape))


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_weights_files_are_small_and_say_where_they_come_from(name: str) -> None:
    assert zoo.weights_path(name).stat().st_size < 150_000
    record = zoo.provenance(name)
    assert record["network"] == name and {"seed", "epochs", "test"} <= record.keys()


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(BitfabError, match=r"'qubits'; choose one of qubit-447, qubit, digits, pulses, jets, mnist"):
        zoo.load("qubits")


@pytest.fixture(scope="module")
def diagrams() -> tuple[np.ndarray, np.ndarray]:
    pytest.importorskip("simcats", reason='needs pip install "bitfab[qubit]"')
    return qubit.generate(40, qubit.SPLIT_SEEDS["test"])


@pytest.mark.parametrize("name", ["qubit-447", "qubit"])
def test_shipped_segmenters_reach_their_stated_scores(name: str, diagrams: tuple[np.ndarray, np.ndarray]) -> None:
    images, masks = diagrams
    scores = mask_scores(predict(zoo.load(name), images)[:, 0] > 0, masks)
    stated = zoo.provenance(name)["test"]
    assert scores.iou == pytest.approx(stated["iou"], abs=0.06)  # 40 diagrams instead of 400
    assert scores.f1 == pytest.approx(stated["f1"], abs=0.06)
    assert scores.pixel_accuracy == pytest.approx(stated["pixel_accuracy"], abs=0.01)


def test_shipped_classifier_reaches_its_stated_accuracy() -> None:
    pytest.importorskip("sklearn", reason='needs pip install "bitfab[digits]"')
    data = digits.load()
    accuracy = top1_accuracy(predict(zoo.load("digits"), data.test_images), data.test_labels)
    assert accuracy >= 0.97
    assert accuracy == pytest.approx(zoo.provenance("digits")["test"]["top1_accuracy"], abs=0.003)


def test_shipped_pulse_networks_reach_their_stated_accuracies() -> None:
    frames, labels = pulses.generate(4000, pulses.SPLIT_SEEDS["test"])
    stated = zoo.provenance("pulses")["test"]
    real = top1_accuracy(predict(zoo.load("pulses"), frames.astype(np.float32)), labels)
    assert real == pytest.approx(stated["top1_accuracy"], abs=0.015)
    found = float((answers(zoo.load_graph("pulses"), frames) == labels).mean())
    assert found == pytest.approx(stated["luts_top1_accuracy"], abs=0.015)


def test_the_shipped_jet_networks_agree_and_the_graph_is_small() -> None:
    graph, jets = zoo.load_graph("jets"), np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    assert answers(graph, jets).shape == (200,)
    assert graph.inputs[0].shape == (16,) and zoo.graph_path("jets").stat().st_size < 60_000


def test_unknown_lut_network_lists_the_known_ones() -> None:
    with pytest.raises(BitfabError, match="'qubit'; choose one of pulses, jets, mnist"):
        zoo.load_graph("qubit")


def bright_lines(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, 16, 16), np.uint8)
    masks[np.arange(count), :, rng.integers(0, 16, count)] = 1
    return (0.5 * masks + 0.5 * rng.random(masks.shape)).astype(np.float32)[:, None], masks


def test_training_learns_and_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qubit, "generate", bright_lines)
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        net = UNet((2, 4))
        with Progress(disable=True) as progress:
            scores = train_qubit(net, Schedule(epochs=8, batch=8), Diagrams(train=64, validation=8, test=8), progress)
        runs.append((scores, [value.clone() for value in net.state_dict().values()]))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(a, b) for a, b in zip(runs[0][1], runs[1][1], strict=True))
    assert runs[0][0]["test"]["iou"] > 0.5  # everything a line: 0.06


def test_train_command_refuses_an_unknown_name() -> None:
    command = [sys.executable, "-m", "bitfab.zoo.train", "nothing"]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 2 and "qubit-447" in result.stderr
