"""Rules for what joins, reshapes and reorders values, and for what picks the largest."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from bitfab.frontend.onnx_quantized.emitter import MAX_CHANNELS
from bitfab.frontend.onnx_quantized.meaning import Joined, Reals, Source, Tensor
from bitfab.frontend.onnx_quantized.pointwise import Rule
from bitfab.frontend.onnx_quantized.step import Known, Step
from bitfab.frontend.onnx_quantized.windows import average
from bitfab.ir import ops as ir

MAX_PER_VALUE = 1 << 22  # numbers kept, one for each value of a flattened image


def joined(step: Step, parts: tuple[Tensor, ...]) -> Tensor:
    """Tensors one after the other along the channels."""
    if any(part.shape[1:] != parts[0].shape[1:] for part in parts):
        step.refuse("joins images of different sizes", "check the model")
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    if shape[0] > MAX_CHANNELS:
        step.refuse(f"joins {shape[0]:,} channels", f"up to {MAX_CHANNELS:,} are supported")
    return Tensor(Joined(parts, step.name), shape)


def reshaped(step: Step, x: Tensor, shape: ir.Shape) -> Tensor:
    """The same values in C order under another shape; what is known for each channel goes with its values."""
    if x.shape == shape:
        return x
    if isinstance(x.value, Source) and x.uniform:
        return replace(x, shape=shape)
    t = step.emitter.integers(x)
    area = math.prod(t.shape[1:])
    per_channel: tuple[Reals, ...] = (t.scale, t.offset, t.low, t.high)
    if not t.uniform and shape[0] != t.shape[0]:
        if t.then or math.prod(shape[1:]) != 1 or math.prod(shape) > MAX_PER_VALUE:
            step.refuse("reshapes what differs from channel to channel", "quantize it before, per tensor")
        per_channel = tuple(np.repeat(part, area) if len(part) > 1 else part for part in per_channel)
    elif t.uniform:
        per_channel = tuple(part[:1] for part in per_channel)
    scale, offset, low, high = per_channel
    moved = step.emitter.moved(t, ir.Reshape(shape), step.name, "reshape")
    return replace(moved, scale=scale, offset=offset, low=low, high=high)


def _concat(step: Step) -> Known:
    parts = tuple(step.tensor(i) for i in range(len(step.inputs)))
    if step.get("axis") not in (1, -len(parts[0].shape)):
        step.refuse(f"joins along axis {step.get('axis')}", "only channels, axis 1, are joined")
    return joined(step, parts)


def _to(step: Step, full: list[int]) -> Known:
    """A reshape to a shape with its batch axis, which must stay as it is."""
    x = step.tensor(0)
    if len(full) < 2 or full[0] != step.batch or math.prod(full[1:]) != math.prod(x.shape) or min(full) < 1:
        step.refuse(f"reshapes {(step.batch, *x.shape)} to {tuple(full)}", "the batch axis must stay the first")
    return reshaped(step, x, tuple(full[1:]))


def _reshape(step: Step) -> Known:
    old = (step.batch, *step.tensor(0).shape)
    wanted = list(step.integers_of(1) or step.get("shape", ()))
    if not step.get("allowzero", 0):
        wanted = [old[i] if size == 0 and i < len(old) else size for i, size in enumerate(wanted)]
    if wanted.count(-1) == 1:
        rest = -math.prod(wanted)
        wanted[wanted.index(-1)] = math.prod(old) // rest if rest > 0 else -1
    return _to(step, wanted)


def _flatten(step: Step) -> Known:
    axis, full = step.get("axis", 1), (step.batch, *step.tensor(0).shape)
    axis += len(full) if axis < 0 else 0
    return _to(step, [math.prod(full[:axis]), math.prod(full[axis:])])


def _squeeze(step: Step) -> Known:
    full = (step.batch, *step.tensor(0).shape)
    axes = step.integers_of(1) or tuple(step.get("axes", ())) or tuple(i for i in range(1, len(full)) if full[i] == 1)
    gone = {axis % len(full) for axis in axes}
    if any(full[axis] != 1 for axis in gone):
        step.refuse(f"squeezes axes {sorted(gone)} of {full}", "they must have the size 1")
    return _to(step, [size for i, size in enumerate(full) if i not in gone])


def _unsqueeze(step: Step) -> Known:
    full = [step.batch, *step.tensor(0).shape]
    axes = step.integers_of(1) or tuple(step.get("axes", ()))
    for axis in sorted(axis % (len(full) + len(axes)) for axis in axes):
        full.insert(axis, 1)
    return _to(step, full)


def _transpose(step: Step) -> Known:
    x = step.tensor(0)
    rank = len(x.shape) + 1
    perm = list(step.get("perm", range(rank - 1, -1, -1)))
    if sorted(perm) != list(range(rank)) or perm[0] != 0:
        step.refuse(f"permutes axes as {perm}", "the batch axis must stay the first")
    shape = tuple(x.shape[axis - 1] for axis in perm[1:])
    if [axis for axis in perm if axis and x.shape[axis - 1] > 1] == [a for a in range(1, rank) if x.shape[a - 1] > 1]:
        return reshaped(step, x, shape)
    t = step.emitter.integers(x)
    if perm[1] != 1 and not t.uniform:
        step.refuse("moves channels that have scales of their own", "quantize it before, per tensor")
    axes = tuple(axis - 1 for axis in perm[1:])
    moved = step.emitter.moved(t, ir.Transpose(axes), step.name, "transpose")
    if perm[1] == 1:
        return moved
    return replace(moved, scale=t.scale[:1], offset=t.offset[:1], low=t.low[:1], high=t.high[:1])


def _reduce_mean(step: Step) -> Known:
    axes = step.integers_of(1) or tuple(step.get("axes", ()))
    x = step.tensor(0)
    if len(x.shape) != 3 or {axis % 4 for axis in axes} != {2, 3}:
        step.refuse(f"a mean over axes {list(axes)}", "only the mean of whole images, over axes 2 and 3, is supported")
    made = average(step, x, whole=True)
    return made if step.get("keepdims", 1) else reshaped(step, made, (made.shape[0],))


def _argmax(step: Step) -> Known:
    """The index of the first largest channel; the axis stays, with size 1, as the graph has no scalars."""
    x = step.tensor(0)
    if step.get("axis", 0) not in (1, -len(x.shape)) or step.get("select_last_index", 0):
        step.refuse("an argmax of another axis than the channels, or of the last largest", "use axis 1 and the first")
    return _largest(step, x, 1)


def _top_k(step: Step) -> tuple[Known | None, ...]:
    """The indices alone; a node that reads the values finds none."""
    x = step.tensor(0)
    counts = step.integers_of(1) or (step.get("k", 0),)
    if len(counts) != 1 or step.get("axis", -1) not in (1, -len(x.shape)) or not step.get("largest", 1):
        step.refuse("picks along another axis than the channels, or the smallest", "use axis 1 and the largest")
    return None, _largest(step, x, counts[0])


def _largest(step: Step, x: Tensor, count: int) -> Tensor:
    value = step.emitter.comparable(x, step.name)
    if value is None:
        step.refuse("compares channels whose codes do not compare", "quantize its input per tensor")
    made = step.emitter.add(step.name, "top_k", ir.TopK(count), value, None)
    return Tensor(made, step.emitter.builder.value(made).shape)


RULES: dict[str, Rule] = {
    "Concat": _concat,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "ReduceMean": _reduce_mean,
    "ArgMax": _argmax,
    "TopK": _top_k,
}
