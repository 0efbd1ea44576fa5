"""Runs in the peers' environment: times onnxruntime int8 and the qonnx executor on the network of run_speed.py.

run_speed_peer.py WEIGHTS.npz THREADS SIZE...

Then, for each timed run over all images, SIZE of them at a time, one line "onnxruntime SIZE" or "qonnx SIZE" on stdin.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes

ATTRIBUTES = {
    "Conv2d": ("Conv", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "Linear": ("Gemm", {"transB": 1}),
    "ReLU": ("Relu", {}),
    "MaxPool2d": ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "AdaptiveAvgPool2d": ("GlobalAveragePool", {}),
    "Flatten": ("Flatten", {}),
}


class Network:
    """The ONNX graph as it grows; with `ranges` every weight and activation passes a Quant node of QONNX."""

    def __init__(self, ranges=None):
        self.nodes, self.constants, self.ranges = [], [], ranges

    def constant(self, name, array):
        self.constants.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def quant(self, name, scale, zero, signed):
        constants = [("scale", scale), ("zero", zero), ("bits", 8.0)]
        inputs = [name, *(self.constant(f"{name}_{key}", value) for key, value in constants)]
        attributes = {"signed": int(signed), "narrow": 0, "rounding_mode": "ROUND"}
        output = f"{name}_quant"
        self.nodes.append(helper.make_node("Quant", inputs, [output], domain="qonnx.custom_op.general", **attributes))
        return output

    def activation(self, name):
        if self.ranges is None:
            return name
        low, high = min(self.ranges[name][0], 0.0), max(self.ranges[name][1], 0.0)
        scale = (high - low) / 255
        return self.quant(name, scale, np.rint(-low / scale), signed=False)

    def layer(self, index, kind, weights, x):
        op, attributes = ATTRIBUTES[kind]
        inputs, output = [x], f"layer{index}"
        if kind in ("Conv2d", "Linear"):
            weight = weights[f"{index}.weight"]
            name = self.constant(f"weight{index}", weight)
            if self.ranges is not None:
                axes = tuple(range(1, weight.ndim))
                name = self.quant(name, np.abs(weight).max(axis=axes, keepdims=True) / 127, 0.0, signed=True)
            inputs += [name, self.constant(f"bias{index}", weights[f"{index}.bias"])]
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def model(self, output, batch):
        values = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("images", [batch, 3, 64, 64]), (output, [batch, 10]))
        ]
        graph = helper.make_graph(self.nodes, "network", values[:1], values[1:], self.constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("qonnx.custom_op.general", 1)]
        return helper.make_model(graph, opset_imports=opsets if self.ranges else opsets[:1], ir_version=10)


def build(weights, batch, ranges=None):
    """The network; quantized are the input and every output of ReLU, pooling and the last layer."""
    network = Network(ranges)
    x = network.activation("images")
    kinds = [str(kind) for kind in weights["kinds"]]
    for index, kind in enumerate(kinds):
        x = network.layer(index, kind, weights, x)
        if kind in ("ReLU", "AdaptiveAvgPool2d", "Linear"):
            x = network.activation(x)
    return network.model(x, batch)


def observed_ranges(model, images):
    """The smallest and the largest value of every tensor of the float network."""
    everything = onnx.ModelProto.FromString(model.SerializeToString())
    names = [name for node in model.graph.node for name in node.output]
    del everything.graph.output[:]
    everything.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names)
    session = onnxruntime.InferenceSession(everything.SerializeToString())
    values = dict(zip(names, session.run(names, {"images": images}), strict=True)) | {"images": images}
    return {name: (float(value.min()), float(value.max())) for name, value in values.items()}


class Images(CalibrationDataReader):
    def __init__(self, images):
        self.batches = iter([{"images": images}])

    def get_next(self):
        return next(self.batches, None)


def int8_session(model, images, folder, options):
    source, target = folder / "float.onnx", folder / "int8.onnx"
    onnx.save(model, source)
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    quantize_static(source, target, Images(images), quant_format=QuantFormat.QDQ, **types)
    return onnxruntime.InferenceSession(target, options)


def contestants(path, threads, sizes):
    """By name, functions that compute the outputs of all images, so many at a time."""
    weights = np.load(path)
    images = weights["images"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    ranges = observed_ranges(build(weights, len(images)), images)
    functions = {}
    for size in sizes:
        session = int8_session(build(weights, size), images[:size], path.parent, options)
        model = ModelWrapper(build(weights, size, ranges)).transform(InferShapes())
        functions[f"onnxruntime {size}"] = piecewise(
            lambda x, run=session.run: run(None, {"images": x})[0], images, size
        )
        functions[f"qonnx {size}"] = piecewise(lambda x, model=model: execute(model, x), images, size)
    return functions, weights["expected"]


def execute(model, images):
    return execute_onnx(model, {"images": images})[model.graph.output[0].name]


def piecewise(function, images, size):
    pieces = np.split(images, len(images) // size)
    return lambda: np.concatenate([function(piece) for piece in pieces])


def main():
    threads = int(sys.argv[2])
    # The executor of qonnx makes its own sessions, as wide as the process may run.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    functions, expected = contestants(Path(sys.argv[1]), threads, [int(size) for size in sys.argv[3:]])
    for name, function in functions.items():  # each must compute the network that it claims to
        error = np.abs(function() - expected).max() / np.ptp(expected)
        assert error < 0.1, f"{name} differs from the float network by {error:.0%} of its range"
    for line in sys.stdin:
        function = functions[line.strip()]
        function()  # as in run_speed.py: the second of two calls counts
        start = time.perf_counter()
        function()
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main()
