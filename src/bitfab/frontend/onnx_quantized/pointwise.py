"""Rules for functions of one element: affine maps of constants, clips, and functions that wait for a quantizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from bitfab.frontend.onnx_quantized.meaning import Function, Reals, Tensor, reals
from bitfab.frontend.onnx_quantized.step import Known, Step

Rule = Callable[[Step], Known | tuple[Known | None, ...]]


def _sigmoid(x: Reals) -> Reals:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _erf(x: Reals) -> Reals:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _gelu(x: Reals, approximate: str) -> Reals:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _softplus(x: Reals) -> Reals:
    return np.logaddexp(0, x)


def _elu(x: Reals, alpha: float) -> Reals:
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)


def _hard_sigmoid(x: Reals, alpha: float, beta: float) -> Reals:
    return np.clip(alpha * x + beta, 0, 1)


Maker = Callable[[Step], tuple[Callable[[Reals], Reals], bool]]

# What each operator computes, and whether it rises; definitions as in the ONNX operator documentation.
FUNCTIONS: dict[str, Maker] = {
    "Sigmoid": lambda _: (_sigmoid, True),
    "Tanh": lambda _: (np.tanh, True),
    "Erf": lambda _: (_erf, True),
    "Softplus": lambda _: (_softplus, True),
    "Softsign": lambda _: (lambda x: x / (1 + np.abs(x)), True),
    "Exp": lambda _: (lambda x: np.exp(np.minimum(x, 700)), True),
    "Abs": lambda _: (np.abs, False),
    "Round": lambda _: (np.rint, True),
    "Floor": lambda _: (np.floor, True),
    "Ceil": lambda _: (np.ceil, True),
    "Sign": lambda _: (np.sign, True),
    "HardSwish": lambda _: (lambda x: x * _hard_sigmoid(x, 1 / 6, 0.5), False),
    "Mish": lambda _: (lambda x: x * np.tanh(_softplus(x)), False),
    "Gelu": lambda step: (lambda x: _gelu(x, step.get("approximate", "none")), False),
    "HardSigmoid": lambda step: (_bind(_hard_sigmoid, step.get("alpha", 0.2), step.get("beta", 0.5)), True),
    "Elu": lambda step: (_bind(_elu, step.get("alpha", 1.0)), step.get("alpha", 1.0) >= 0),
    "LeakyRelu": lambda step: (_leaky(step.get("alpha", 0.01)), step.get("alpha", 0.01) >= 0),
}


def _bind(function: Callable[..., Reals], *parameters: float) -> Callable[[Reals], Reals]:
    return lambda x: function(x, *parameters)


def _leaky(slope: float) -> Callable[[Reals], Reals]:
    return lambda x: np.where(x < 0, slope * x, x)


def function(step: Step, x: Tensor, operator: str) -> Tensor:
    """The tensor through one of FUNCTIONS."""
    apply, rising = FUNCTIONS[operator](step)
    return x.mapped(Function(operator, apply, rising))


def _prelu(step: Step) -> Known:
    x = step.tensor(0)
    slope = step.per_channel(step.const(1).array, x.shape)
    rising, uniform = bool((slope >= 0).all()), bool((slope == slope[0]).all())
    column = slope[:1, None] if uniform else slope[:, None]
    return x.mapped(Function("PRelu", lambda v: np.where(v < 0, column * v, v), rising, uniform))


def _relu(step: Step) -> Known:
    return step.tensor(0).clipped(reals(0), reals(np.inf))


def _clip(step: Step) -> Known:
    x = step.tensor(0)
    ends = []
    for index, attribute, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        array = step.array(index)
        value = step.get(attribute, default) if array is None else float(array.reshape(-1)[0])
        ends.append(max(min(float(value), np.inf), -np.inf))
    if math.isnan(sum(abs(e) for e in ends)) or ends[0] > ends[1]:
        step.refuse(f"limits {ends[0]} to {ends[1]}", "the lower one must be the smaller")
    low, high = (np.inf * np.sign(e) if abs(e) >= np.finfo(np.float32).max else e for e in ends)
    return x.clipped(reals(low), reals(high))


def _affine_of(operator: str, constant: Reals, first: bool) -> tuple[Reals, Reals] | None:
    """(a, b) of `x operator constant`, or of `constant operator x` where not `first`; None where it is not affine."""
    one, zero = reals(1), reals(0)
    match operator:
        case "Add":
            return one, constant
        case "Sub":
            return (one, -constant) if first else (-one, constant)
        case "Mul":
            return constant, zero
        case "Div" if first and (constant != 0).all():
            return 1 / constant, zero
    return None


def _binary(step: Step) -> Known:
    operator, a, b = step.node.op_type, step.given(0), step.given(1)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _of_two(step, operator, step.tensor(0), step.tensor(1))
    x, constant = (step.tensor(0), step.const(1)) if isinstance(a, Tensor) else (step.tensor(1), step.const(0))
    parameters = _affine_of(operator, step.per_channel(constant.array, x.shape), isinstance(a, Tensor))
    if parameters is None:
        step.refuse("divides by its input or by 0", "use a multiplication by a constant")
    return x.affine(*parameters)


def _of_two(step: Step, operator: str, a: Tensor, b: Tensor) -> Known:
    """Two tensors: functions of the same integers make one function of these; others can be added."""
    if a.shape != b.shape:
        step.refuse(f"shapes {a.shape} and {b.shape} differ", "only constants are broadcast")
    if a.value is b.value and operator in _TOGETHER:
        left, right, both = a, b, _TOGETHER[operator]
        uniform = left.uniform and right.uniform
        joined = Function(operator, lambda q: both(left.of(q), right.of(q)), rising=False, uniform=uniform)
        return Tensor(a.value, a.shape, then=(joined,))
    if operator == "Sub":
        b = b.affine(reals(-1), reals(0))
    elif operator != "Add":
        step.refuse("combines two tensors", "only Add and Sub of two tensors have integer operations")
    made = step.emitter.total(a, b, step.name)
    if made is None:
        step.refuse("an operand is a function without a quantizer behind it", "quantize both operands")
    return made


_TOGETHER: dict[str, Callable[[Any, Any], Any]] = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}


def _batch_norm(step: Step) -> Known:
    """`(x - mean) / sqrt(variance + epsilon) * scale + bias`, channel by channel."""
    x = step.tensor(0)
    channels = (x.shape[0],) + (1,) * (len(x.shape) - 1)
    scale, bias, mean, variance = (
        step.per_channel(np.asarray(step.const(i).array, np.float64).reshape(channels), x.shape) for i in range(1, 5)
    )
    spread = variance + float(step.get("epsilon", 1e-5))
    if (spread <= 0).any():
        step.refuse("a variance is not positive", "check the model's parameters")
    slope = scale / np.sqrt(spread)
    return x.affine(slope, bias - mean * slope)


def _same(step: Step) -> Known:
    return step.tensor(0, padded=True)


def _cast(step: Step) -> Known:
    kept = {1, 6, 7, 10, 11, 16}  # float, int32, int64, float16, double, bfloat16
    if step.get("to") not in kept:
        step.refuse("casts what the model computes to few bits", "use QuantizeLinear")
    return step.tensor(0, padded=True)


def _applies(operator: str) -> Rule:
    return lambda step: function(step, step.tensor(0), operator)


def _softmax(step: Step) -> Known:
    step.refuse("a softmax inside the model", "it has no integer operation here; only at the end it is left out")


RULES: dict[str, Rule] = {
    **{name: _applies(name) for name in FUNCTIONS},
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _binary),
    **dict.fromkeys(("Identity", "Dropout"), _same),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    "Neg": lambda step: step.tensor(0).affine(reals(-1), reals(0)),
    "Relu": _relu,
    "Clip": _clip,
    "PRelu": _prelu,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
}
