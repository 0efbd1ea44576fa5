"""A made-up report of plausible size, and pictures for it, for the tests of the report."""

import numpy as np
from numpy.typing import NDArray

from bitfab.report import (
    Accuracy,
    Available,
    ClassificationSample,
    Distribution,
    Fifo,
    Hop,
    HopKind,
    Layer,
    Metric,
    Network,
    QuantizedLayer,
    Report,
    Resources,
    SegmentationSample,
    SizeBytes,
    Verification,
    fifo_peaks,
    timing,
)

# name, op, input channels, output channels, side, kernel, PE, SIMD, busy cycles
CONVOLUTIONS = (
    ("down_0_0", "conv2d", 1, 8, 64, 3, 8, 1, 37_960),
    ("down_0_3", "conv2d", 8, 8, 64, 3, 8, 8, 38_025),
    ("down_1_0", "conv2d", 8, 16, 32, 3, 4, 8, 39_204),
    ("down_1_3", "conv2d", 16, 16, 32, 3, 8, 8, 39_204),
    ("up_0", "conv_transpose2d", 16, 8, 64, 1, 2, 8, 33_280),
    ("merge_0_0", "conv2d", 16, 8, 64, 3, 8, 16, 38_025),
    ("merge_0_3", "conv2d", 8, 8, 64, 3, 8, 8, 38_025),
    ("head", "conv2d", 8, 1, 64, 1, 1, 2, 16_448),
)


def layer(
    name: str, op: str, inputs: int, outputs: int, side: int, kernel: int, pe: int, simd: int, cycles: int
) -> Layer:
    macs = inputs * outputs * side * side * kernel * kernel
    used = pe * simd
    return Layer(
        name=name,
        op=op,
        input_shapes=((inputs, side, side),),
        output_shape=(outputs, side, side),
        types="uint8 -> int8" if name == "head" else "uint8 -> uint8",
        macs=macs,
        pe=pe,
        simd=simd,
        cycles=cycles,
        ideal_cycles=macs // used,
        utilization=macs / (pe * simd) / cycles,
        lut=310 + 37 * used,
        ff=260 + 31 * used,
        dsp=used // 4,
        bram=inputs * kernel // 4 + pe // 8,
        sqnr_db=round(44.0 - 1.3 * len(name) + 0.04 * used, 2),
    )


def other_layer(name: str, op: str, *shapes: tuple[int, ...]) -> Layer:
    """A layer without MACs; the last shape is its output's."""
    return Layer(
        name, op, shapes[:-1], shapes[-1], "uint8 -> uint8", 0, None, None, 4096, None, None, 96, 120, 0, 0, None
    )


def example_layers() -> tuple[Layer, ...]:
    layers = [layer(*row) for row in CONVOLUTIONS]
    layers.insert(2, other_layer("pool_0", "max_pool", (8, 64, 64), (8, 32, 32)))
    layers.insert(6, other_layer("cat_0", "concat", (8, 64, 64), (8, 64, 64), (16, 64, 64)))
    layers.append(other_layer("threshold", "table", (1, 64, 64), (1, 64, 64)))
    return tuple(layers)


def example_fifos() -> tuple[Fifo, ...]:
    return (
        Fifo("skip_0", 1024, 771, 64, 4),
        Fifo("down_0_3_to_pool_0", 16, 9, 64, 0),
        Fifo("up_0_to_cat_0", 64, 64, 64, 0),
        Fifo("merge_0_3_to_head", 2, 2, 64, 0),
    )


def example_path() -> tuple[Hop, ...]:
    instance = "merge_0_0.engine.dot.tree"
    return (
        Hop("merge_0_0.window.buffer", "merge_0_0", HopKind.CLOCK_TO_Q, 0.52),
        Hop("merge_0_0.window.buffer", "merge_0_0", HopKind.ROUTING, 1.31),
        *(Hop(instance, "merge_0_0", kind, delay) for kind, delay in ((HopKind.LOGIC, 0.45), (HopKind.ROUTING, 0.97))),
        *(Hop(instance, "merge_0_0", kind, delay) for kind, delay in ((HopKind.LOGIC, 2.1), (HopKind.ROUTING, 1.4))),
        Hop("merge_0_0.requantize.multiplier", "merge_0_0", HopKind.LOGIC, 2.94),
        Hop("merge_0_0.requantize.multiplier", "merge_0_0", HopKind.ROUTING, 0.83),
        Hop("fifo_merge_0_3", None, HopKind.SETUP, 0.21),
    )


def distribution(low: float, high: float, range_low: float, range_high: float, count: int) -> Distribution:
    """Bell-shaped between low and high, with what lies beyond the range clipped."""
    centres = np.linspace(low, high, 65)[:-1] + (high - low) / 128
    shares = np.exp(-8 * ((centres - (low + high) / 2) / (high - low)) ** 2)
    counts = np.round(count * shares / shares.sum(), 2)
    clipped = float(counts[(centres < range_low) | (centres > range_high)].sum() / counts.sum())
    return Distribution(low, high, tuple(counts.tolist()), range_low, range_high, clipped, 0.31 if clipped else 0.0)


def example_quantized() -> tuple[QuantizedLayer, ...]:
    """The input, every convolution (one of them clips), and a layer of which nothing was measured."""
    layers = [QuantizedLayer("image", 51.2, Distribution(), distribution(0, 1, 0, 1, 4096))]
    for index, (name, *_) in enumerate(CONVOLUTIONS):
        high = 2.1 if name == "up_0" else 3.4
        activation = distribution(-0.2, 3.3, -0.2, high, 32768)
        layers.append(
            QuantizedLayer(
                name.replace("_", "."), 46.0 - 1.7 * index, distribution(-0.4, 0.5, -0.5, 0.5, 600), activation
            )
        )
    return (*layers, QuantizedLayer("threshold", None, Distribution(), Distribution()))


def example_report() -> Report:
    layers, fifos = example_layers(), example_fifos()
    macs = sum(one.macs for one in layers)
    return Report(
        application="qubit",
        network=Network(parameters=7641, macs=macs),
        accuracy=Accuracy(Metric.IOU, 0.8162, 0.8143, 0.9874, 0.9872, 0.8988, 0.8976),
        size_bytes=SizeBytes(float=30564, integer=7785),
        verification=Verification(20, 5_898_240, 0, "Verilator 5.48", fifo_peaks(fifos)),
        timing=timing(cycles_per_image=39_204, latency_cycles=46_912, fmax_mhz=92.41, macs=macs, layers=layers),
        resources=Resources("ecp5-85k", 26_482, 22_310, 114, 51, Available(lut=83640, ff=83640, dsp=156, bram=208)),
        wall_seconds={
            "calibrate": 1.92,
            "quantize": 0.31,
            "generate": 0.14,
            "simulate": 71.6,
            "synthesize": 62.9,
            "route": 301.4,
        },
        layers=layers,
        fifos=fifos,
        critical_layer="merge_0_0",
        critical_path=example_path(),
        command="bitfab demo qubit --target ecp5-85k --seed 1 -o build/demo",
        recipe={"weights": 8, "activations": 8, "observer": "percentile", "per_channel": True, "rounding": "half_up"},
        versions={"bitfab": "0.1.0", "torch": "2.13.0", "Verilator": "5.48", "Yosys": "0.70", "nextpnr-ecp5": "0.11.1"},
        quantized=example_quantized(),
    )


def segmentation_samples(count: int = 6, side: int = 64) -> list[SegmentationSample]:
    """Lines over a noisy ground; the masks miss some pixels of the truth, and differ from one another in a few."""
    rng = np.random.default_rng(7)
    return [_segmentation_sample(rng, side) for _ in range(count)]


def _segmentation_sample(rng: np.random.Generator, side: int) -> SegmentationSample:
    row, column = np.mgrid[:side, :side]
    slope, offset = rng.uniform(-0.6, -0.2), rng.uniform(0.4, 1.4) * side
    distance: NDArray[np.float64] = np.abs(row - slope * column - offset)
    image = (np.exp(-distance) + 0.01 * row + rng.normal(0, 0.12, (side, side))).astype(np.float32)
    truth = distance < 1.0
    by_float = truth & (rng.random(truth.shape) < 0.93)
    by_integer = by_float ^ (rng.random(truth.shape) < 0.0006)
    return SegmentationSample(image, *(mask.astype(np.uint8) for mask in (truth, by_float, by_integer)))


def classification_samples(count: int = 20) -> list[ClassificationSample]:
    rng = np.random.default_rng(8)
    images = rng.random((count, 8, 8), np.float32)
    return [ClassificationSample(image, i % 10, i % 10, (i + (i == 3)) % 10) for i, image in enumerate(images)]
