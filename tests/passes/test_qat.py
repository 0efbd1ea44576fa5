"""Quantization-aware training: gradients, what `prepare` and `lower` promise, one meaning with the integer graph."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from benchmarks.models.cnv import cnv
from benchmarks.models.mlp import JETS, TFC, mlp
from benchmarks.models.mobile import small_mobilenet
from benchmarks.models.resnet import ResNet, resnet8
from bitfab.data import digits
from bitfab.dtypes import QParams, Rounding, ScaleKind, dequantize, quantize, round_shift
from bitfab.errors import BitfabError
from bitfab.ir import Graph, trace
from bitfab.ir.run_fast import run_fast
from bitfab.quant import (
    AdaRound,
    Override,
    Recipe,
    StepRule,
    distillation,
    freeze_batch_norm,
    lower,
    lower_choices,
    prepare,
    reestimate_batch_norm,
    train,
    trained_choices,
)
from bitfab.quant.fake_quant import QuantizedLayer, Step, _Quantize, _Sign, round_real
from bitfab.quant.plan import make_plan
from bitfab.zoo import load
from bitfab.zoo.unet import UNet


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MNIST MLP": (lambda: mlp(TFC), (784,)),
    "jets MLP": (lambda: mlp(JETS), (16,)),
    "CNV": (lambda: cnv(4), (3, 32, 32)),
    "ResNet8": (resnet8, (3, 16, 16)),
    "ResNet-18 shape": (lambda: ResNet((4, 8, 8, 8), 2), (3, 16, 16)),
    "MobileNetV2 shape": (small_mobilenet, (3, 16, 16)),
    "EfficientNet-Lite shape": (lambda: _relu6(small_mobilenet()), (3, 16, 16)),
    "qubit U-Net": (lambda: UNet((4, 8)), (1, 16, 16)),
    "digits": (lambda: load("digits"), (1, 8, 8)),
}


def _relu6(net: nn.Module) -> nn.Module:
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.ReLU):
            net.set_submodule(name, nn.ReLU6())
    return net


def _few_steps(net: nn.Module, x: Tensor, steps: int = 2) -> nn.Module:
    """A few steps toward random targets, so that scales, weights and statistics are no longer what PTQ gave."""
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 0.01)
    target = torch.randn_like(net(x))
    for step in range(steps):
        freeze_batch_norm(net, step >= steps // 2)
        loss = (net(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


class _Beside(fx.Interpreter):
    """Runs a prepared network beside its graph: each layer gets the graph's own values, and its codes are compared."""

    def __init__(self, net: fx.GraphModule, expected: dict[str, tuple[QParams, np.ndarray]]) -> None:
        super().__init__(net)
        self.expected = expected
        self.shares: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name not in self.expected:
            return result
        qparams, codes = self.expected[n.name]
        found = result.numpy() / qparams.scale[0] + qparams.zero_point
        assert np.abs(found - codes).max() < 1 + 1e-3 + (codes.min() == -1)  # signs are two apart
        self.shares[n.name] = float((np.abs(found - codes) > 0.5).mean())
        return torch.from_numpy(dequantize(codes, qparams))


def _differences(net: nn.Module, x: Tensor) -> dict[str, float]:
    """For each rounded activation the share of codes that module and graph, given the same inputs, differ in."""
    net = net.double()  # before lowering: folding rounds as well
    choices = trained_choices(net)
    lowered = lower_choices(choices, "net", tuple(x.shape[1:]))
    source = lowered.graph.inputs[0]
    values = trace(lowered.graph, quantize(x.numpy(), source.qparams, source.type))
    observed = make_plan(choices.module, choices.recipe).observed()
    meant = {output.name: choices.encodings[node.name] for node, output in observed.items()}
    expected = {}
    for name, value in lowered.graph.values.items():
        encoding = meant.get(lowered.meaning[name])
        if encoding and value.qparams == encoding.qparams and value.type == encoding.type:
            expected[f"{lowered.meaning[name]}_codes"] = (encoding.qparams, values[name])
    assert len(expected) == len(meant)
    beside = _Beside(net, expected)
    with torch.no_grad():
        beside.run(x.double())
    assert beside.shares.keys() == expected.keys()
    return beside.shares


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("bits", [(8, 8), (2, 2)], ids=["W8A8", "W2A2"])
def test_powers_of_two_have_one_meaning(name: str, bits: tuple[int, int]) -> None:
    build, shape = ARCHITECTURES[name]
    x = torch.randn(4, *shape)
    recipe = Recipe(*bits, scale="po2", observer="mse")
    net = _few_steps(prepare(build(), [x], recipe), x)
    differences = _differences(net, torch.randn(4, *shape))
    assert max(differences.values()) == 0, differences


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_real_scales_differ_by_the_multipliers_rounding_alone(name: str) -> None:
    """A multiplier of 16 bits is off by 2**-17 at most: codes change only next to a rounding threshold, by one."""
    build, shape = ARCHITECTURES[name]
    x = torch.randn(4, *shape)
    net = _few_steps(prepare(build(), [x], Recipe(8, 8, observer="mse")), x)
    differences = _differences(net, torch.randn(4, *shape))
    assert max(differences.values()) <= 0.01, differences


@pytest.mark.parametrize("rule", StepRule)
@pytest.mark.parametrize("rounding", Rounding)
def test_every_rule_and_rounding_trains_and_lowers(rule: StepRule, rounding: Rounding) -> None:
    scale = ScaleKind.PO2 if rule in (StepRule.TQT, StepRule.QFX) else ScaleKind.REAL
    x = torch.from_numpy(digits.load().train_images[:64])
    recipe = Recipe(4, 4, scale=scale, observer="mse", rounding=rounding)
    net = _few_steps(prepare(load("digits"), [x], recipe, rule), x, steps=4)
    differences = _differences(net, torch.from_numpy(digits.load().test_images[:64]))
    assert max(differences.values()) <= (0 if scale is ScaleKind.PO2 else 0.01), differences
    learned = [p for n, p in net.named_parameters() if n.endswith("octaves")]
    assert any((p != 0).any() for p in learned) == (rule is not StepRule.FIXED)


@pytest.mark.parametrize(("rule", "scale"), [("tqt", "po2"), ("lsq", "real"), ("fixed", "po2")])
def test_binary_networks_have_one_meaning(rule: str, scale: str) -> None:
    x = torch.randn(32, 3, 32, 32)
    recipe = Recipe(1, 1, symmetric_activations=True, scale=scale, observer="mse")
    net = prepare(cnv(4, nn.Hardtanh), [x], recipe, rule)
    for module in net.modules():
        if getattr(module, "shift", None) is not None:
            nn.init.uniform_(module.shift, -0.5, 1.5)  # some beyond what Hardtanh lets pass
    net = _few_steps(net, x)
    graph = lower(net)
    assert sum(value.type.bipolar for value in graph.values.values()) >= 8
    weights = [node.op.weight for node in graph if hasattr(node.op, "weight")]
    assert all(set(np.unique(w)) == {-1, 1} for w in weights)
    differences = _differences(net, torch.randn(16, 3, 32, 32))
    assert max(differences.values()) == 0, differences


def test_sign_of_a_value_that_others_read_too() -> None:
    """As in ReActNet: the shortcut keeps several bits, the convolution sees shifted signs."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.sign = nn.Conv2d(1, 6, 3), nn.Hardtanh()
            self.conv, self.norm = nn.Conv2d(6, 6, 1, bias=False), nn.BatchNorm2d(6)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return x + self.norm(self.conv(self.sign(x)))

    x = torch.randn(16, 1, 8, 8)
    recipe = Recipe(1, 8, scale="po2", symmetric_activations=True, overrides={"sign": Override(activations=1)})
    net = _few_steps(prepare(Residual(), [x], recipe), x)
    assert max(_differences(net, torch.randn(16, 1, 8, 8)).values()) == 0


@given(st.integers(-(2**20), 2**20), st.integers(0, 12), st.sampled_from(Rounding))
def test_real_rounding_is_that_of_integers(x: int, shift: int, rounding: Rounding) -> None:
    expected = int(round_shift(np.array(x), shift, rounding))
    for dtype in (torch.float32, torch.float64):
        assert int(round_real(torch.tensor(x, dtype=dtype) / 2**shift, rounding)) == expected


def test_gradients_are_those_of_the_papers() -> None:
    """LSQ and LSQ+ follow from the straight-through estimator of the rounding alone; PACT's sees clipping alone."""
    x = (torch.randn(500) * 3).double().requires_grad_()
    step, zero = (
        torch.tensor([0.3], dtype=torch.float64, requires_grad=True),
        torch.tensor(3.0).double().requires_grad_(),
    )
    outer = torch.randn(500).double()

    def composed(rounds: bool) -> Tensor:
        v = x / step if rounds else (x / step).detach() + (x - x.detach()) / step.detach()
        codes = v + (v.round() - v).detach() + zero
        clipped = codes.clamp(0, 15)
        size = step if rounds else torch.where(codes == clipped, step.detach(), step)
        return (clipped - zero) * size

    for rounds in (True, False):
        expected = torch.autograd.grad((composed(rounds) * outer).sum(), (x, step))
        y = _Quantize.apply(x, step, zero, 0, 15, Rounding.HALF_EVEN, rounds)
        torch.testing.assert_close(y, composed(rounds))
        torch.testing.assert_close(torch.autograd.grad((y * outer).sum(), (x, step), retain_graph=True), expected)
    of_zero = torch.autograd.grad((composed(True) * outer).sum(), zero)
    torch.testing.assert_close(torch.autograd.grad((y * outer).sum(), zero), of_zero)


def test_gradient_of_the_sign() -> None:
    x = torch.tensor([-3.0, -0.5, 0.25, 1.0], requires_grad=True)
    step = torch.tensor([0.5], requires_grad=True)
    for approximate, expected in ((True, [0.0, 0.0, 1.0, 0.0]), (False, [1.0, 1.0, 1.0, 1.0])):
        y = _Sign.apply(x, step, approximate)
        assert y.tolist() == [-0.5, -0.5, 0.5, 0.5]
        of_x, of_step = torch.autograd.grad(y.sum() + y[0], (x, step))
        assert of_x.tolist() == [2 * expected[0], *expected[1:]]
        assert of_step.tolist() == [-1.0]


@given(st.floats(-60, 60), st.sampled_from(ScaleKind), st.booleans(), st.floats(1e-6, 1e6))
def test_scales_stay_positive(octaves: float, kind: ScaleKind, nearest: bool, start: float) -> None:
    step = Step(torch.tensor([start], dtype=torch.float64), kind, True, nearest)
    with torch.no_grad():
        step.octaves.fill_(octaves)
    scale = float(step().detach())
    assert scale > 0
    if kind is ScaleKind.PO2:
        assert np.frexp(scale)[0] == 0.5


def test_a_relative_step_as_large_as_lsqs() -> None:
    """SGD on `octaves` moves the scale by the share that SGD on the scale itself moves it, LSQ's gain included."""
    x = torch.randn(4, 100).double()
    net = prepare(
        nn.Sequential(nn.Linear(100, 3, bias=False)).double(), [x], Recipe(4, 8, per_channel=False, observer="mse")
    )
    (layer,) = (m for m in net.modules() if isinstance(m, QuantizedLayer))
    scale = layer.step().detach().requires_grad_()
    weight = layer.layer.weight.detach()
    y = _Quantize.apply(weight, scale, torch.zeros((), dtype=torch.float64), -7, 7, Rounding.HALF_EVEN, True)
    outer = torch.randn(3, 100).double()
    (plain,) = torch.autograd.grad((y * outer).sum(), scale)
    rounded = layer._rounded(layer.layer.weight, layer.scale(layer.layer.weight))
    (relative,) = torch.autograd.grad((rounded * outer).sum(), layer.step.octaves)
    share = float(relative * np.log(2)) * 1e-6  # of the scale that a small step changes
    assert share == pytest.approx(float(plain / scale.detach()) / np.sqrt(300 * 7) * 1e-6)


def _accuracy(graph: Graph, data: digits.Digits) -> float:
    source = graph.inputs[0]
    found = run_fast(graph, quantize(data.test_images, source.qparams, source.type))
    return float((np.asarray(found).argmax(1) == data.test_labels).mean())


@pytest.fixture(scope="module")
def batches() -> list[tuple[Tensor, Tensor]]:
    data = digits.load()
    images, labels = torch.from_numpy(data.train_images), torch.from_numpy(data.train_labels)
    return list(zip(images.split(64), labels.split(64), strict=True))


def test_training_recovers_what_few_bits_lose(batches: list[tuple[Tensor, Tensor]]) -> None:
    data, net = digits.load(), load("digits")
    recipe = Recipe(2, 2, observer="mse")
    prepared = prepare(net, [batches[0][0]], recipe)
    before = _accuracy(lower(prepared), data)
    done = []
    train(prepared, batches, nn.CrossEntropyLoss(), 6, 1e-2, net, lambda *told: done.append(told))
    assert done[-1] == ("training", 6, 6)
    assert not prepared.training
    after = _accuracy(lower(prepared), data)
    assert after > 0.9
    assert after > before + 0.1


def test_freezing_and_measuring_batch_norms(batches: list[tuple[Tensor, Tensor]]) -> None:
    images = torch.cat([x for x, _ in batches[:8]])
    net = prepare(load("digits"), [images], Recipe(3, 3, observer="mse"))
    layers = [m for m in net.modules() if isinstance(m, QuantizedLayer) and m.norm is not None]
    seen: list[Tensor] = []
    layers[0].norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    reestimate_batch_norm(net, [images])
    values = torch.cat(seen).movedim(1, 0).flatten(1)
    torch.testing.assert_close(layers[0].norm.running_mean, values.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layers[0].norm.running_var, values.var(1, correction=0), rtol=1e-4, atol=1e-5)
    assert layers[0].norm.momentum == 0.1
    freeze_batch_norm(net)
    statistics = layers[0].norm.running_mean.clone()
    frozen = net.train()(images)
    assert torch.equal(layers[0].norm.running_mean, statistics)
    torch.testing.assert_close(frozen, net.eval()(images))
    with pytest.raises(BitfabError, match="no data"):
        reestimate_batch_norm(net, [])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
def test_it_is_an_ordinary_module(batches: list[tuple[Tensor, Tensor]]) -> None:
    images = batches[0][0]
    net = _few_steps(prepare(load("digits"), [images], Recipe(4, 4, observer="mse"), "lsq+"), images)
    other = prepare(load("digits"), [images * 2], Recipe(4, 4, observer="mse"), "lsq+").eval()
    assert not torch.equal(net(images), other(images))
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(images), other(images))
    expected = lower(net)
    source = expected.inputs[0]
    codes = quantize(images.numpy(), source.qparams, source.type)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), net(images))
    compiled.train()(images).sum().backward()
    for same in (copy.deepcopy(net), compiled.eval(), other):
        assert np.array_equal(run_fast(lower(same), codes), run_fast(expected, codes))


def test_distillation_is_least_for_the_teachers_own_answer() -> None:
    taught = torch.randn(10, 5)
    own, other = taught.clone().requires_grad_(), torch.randn(10, 5)
    loss = distillation(own, taught)
    loss.backward()
    assert own.grad.abs().max() < 1e-6
    assert loss < distillation(other, taught)


def _wrong_loss(outputs: Tensor, _: Tensor) -> Tensor:
    return outputs.sum() * float("nan")


def test_bad_input_is_told_in_one_line(batches: list[tuple[Tensor, Tensor]]) -> None:
    net, images = load("digits"), batches[0][0]
    prepared = prepare(net, [images])
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: prepare(net, []), "no data"),
        (lambda: prepare(net, [images], rule="best"), "rule 'best': choose one of"),
        (lambda: prepare(net, [images], rule="tqt"), "does not suit scale='real'"),
        (lambda: prepare(net, [images], Recipe(scale="po2"), "lsq"), "does not suit scale='po2'"),
        (lambda: prepare(net, [images], Recipe(adaround=AdaRound(1))), "leave adaround"),
        (lambda: prepare(net, [images], Recipe(4, levels="po2")), "levels='po2' is for bitfab.quantize"),
        (lambda: prepare(net, [images], Recipe(4, group_size=8)), "group_size=8 is for bitfab.quantize"),
        (lambda: lower(net), "not prepared for training"),
        (lambda: train(prepared, [], nn.CrossEntropyLoss(), 1), "no data of known length"),
        (lambda: train(prepared, iter(batches), nn.CrossEntropyLoss(), 1), "no data of known length"),
        (lambda: train(prepared, [images], nn.CrossEntropyLoss(), 1), "labels missing"),
        (lambda: train(prepared, batches, _wrong_loss, 1), "loss is nan in epoch 1, batch 0"),
        (lambda: lower(prepare(net, [images], Recipe(1, 1, symmetric_activations=True))), "all \\+1"),
        (
            lambda: lower(prepare(_padded(), [images], Recipe(1, 1, symmetric_activations=True))),
            "pads its input of signs",
        ),
    ]
    for call, message in cases:
        with pytest.raises(BitfabError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def _padded() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Hardtanh(), nn.Conv2d(4, 4, 3, padding=1), nn.Flatten(), nn.Linear(144, 2)
    )
