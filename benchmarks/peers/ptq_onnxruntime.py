"""Runs in the peers' environment: static quantization of onnxruntime on the network and photos of ptq.py.

ptq_onnxruntime.py NETWORK.npz PHOTOS.npy CALIBRATION LOGITS.npy

Then one line of JSON with a setting on stdin: {"method": "MinMax", "Entropy" or "Percentile", "per_channel": ...}. The
quantized network's output for the photos not used for calibration goes to LOGITS.npy.
"""

import contextlib
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


def model(stored):
    """The ONNX graph; zero padding in front of a convolution becomes its own."""
    source, nodes, constants, pads, alias = str(stored["input"]), [], [], {}, {}

    def constant(name, array):
        constants.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    constant("zero", 0.0), constant("six", 6.0)
    for entry in json.loads(str(stored["nodes"])):
        name, kind = entry["name"], entry["kind"]
        inputs = [alias.get(i, i) for i in entry["inputs"]]
        if kind == "ZeroPad2d":
            alias[name], pads[name] = inputs[0], entry["pads"]
            continue
        attributes = {}
        if kind in ("Conv2d", "Linear"):
            inputs += [constant(f"{name}.{part}", stored[f"{name}.{part}"]) for part in ("weight", "bias")]
        if kind == "Conv2d":
            extra = pads.get(entry["inputs"][0], [0] * 4)
            attributes = {"strides": entry["strides"], "group": entry["group"]}
            attributes["pads"] = [a + b for a, b in zip(entry["pads"], extra, strict=True)]
        if kind == "Linear":
            attributes = {"transB": 1}
        if kind == "ReLU6":
            inputs += ["zero", "six"]
        op = {"Conv2d": "Conv", "Linear": "Gemm", "ReLU6": "Clip", "AdaptiveAvgPool2d": "GlobalAveragePool"}
        nodes.append(helper.make_node(op.get(kind, kind), inputs, [name], **attributes))
    values = [
        helper.make_tensor_value_info(source, TensorProto.FLOAT, ["N", 3, 224, 224]),
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1000]),
    ]
    graph = helper.make_graph(nodes, "network", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


class Photos(CalibrationDataReader):
    """The calibration photos, a few at a time."""

    def __init__(self, name, images, size=20):
        self.batches = ({name: as_input(images[i : i + size])} for i in range(0, len(images), size))

    def get_next(self):
        return next(self.batches, None)


def as_input(images):
    return ((images.astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2).copy()


def answer(setting, folder, source, images, calibration, target):
    start = time.perf_counter()
    quant_pre_process(str(folder / "lite0.onnx"), str(folder / "lite0_pre.onnx"), skip_symbolic_shape=True)
    quantize_static(
        folder / "lite0_pre.onnx",
        folder / "lite0_int8.onnx",
        Photos(source, images[:calibration]),
        quant_format=QuantFormat.QDQ,
        per_channel=setting["per_channel"],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[setting["method"]],
    )
    seconds = time.perf_counter() - start
    session = onnxruntime.InferenceSession(str(folder / "lite0_int8.onnx"))
    test = images[calibration:]
    np.save(
        target,
        np.concatenate([session.run(None, {source: as_input(test[i : i + 20])})[0] for i in range(0, len(test), 20)]),
    )
    return {"seconds": seconds, "mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main():
    network, photos, calibration, target = sys.argv[1:]
    stored, folder = np.load(network), Path(network).parent
    onnx.save(model(stored), folder / "lite0.onnx")
    images = np.load(photos, mmap_mode="r")
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):  # onnxruntime prints while it calibrates
            result = answer(json.loads(line), folder, str(stored["input"]), images, int(calibration), target)
        print(json.dumps(result), flush=True)


main()
