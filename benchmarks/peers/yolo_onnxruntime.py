"""Runs in the peers' environment: onnxruntime's static quantization of the detector of yolo.py, and its speed.

yolo_onnxruntime.py MODEL.onnx PHOTOS.npy CALIBRATION FOLDER

PHOTOS.npy holds letterboxed photos (N, 3, H, W), the first CALIBRATION of which calibrate. Then one line of JSON on
stdin for each network wanted: {"method": "float"} or {"method": "MinMax", "Entropy" or "Percentile", "ends": true to
leave what follows the last convolutions in float}. Its outputs for the other photos go to FOLDER/outputs.npy; the
answer holds the seconds to quantize, the milliseconds a photo, and the file's bytes.
"""

import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

OPSET = 17  # onnxruntime quantizes per channel from opset 13 on


class Photos(CalibrationDataReader):
    """The calibration photos, one at a time."""

    def __init__(self, name, images):
        self.batches = ({name: image[None]} for image in images)

    def get_next(self):
        return next(self.batches, None)


def prepared(model, folder):
    """The model in a newer opset and through onnxruntime's own preparation."""
    target = folder / "prepared.onnx"
    if not target.exists():
        onnx.save(version_converter.convert_version(onnx.load(model), OPSET), folder / "newer.onnx")
        quant_pre_process(str(folder / "newer.onnx"), str(target), skip_symbolic_shape=True)
    return target


def after_last_convolutions(model):
    """Names of the nodes between the last convolutions and the outputs."""
    graph = onnx.load(model).graph
    producers = {name: node for node in graph.node for name in node.output}
    waiting, found = [output.name for output in graph.output], set()
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None and node.op_type != "Conv" and node.name not in found:
            found.add(node.name)
            waiting += node.input
    return sorted(found)


def quantized(model, setting, source, images, folder):
    """The file of the setting: QDQ, u8 activations, s8 weights per channel."""
    start = prepared(model, folder)
    quantize_static(
        start,
        folder / "int8.onnx",
        Photos(source, images),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[setting["method"]],
        nodes_to_exclude=after_last_convolutions(start) if setting["ends"] else [],
    )
    return folder / "int8.onnx"


def main():
    model, photos, calibration, folder = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    images = np.load(photos)
    source = onnx.load(model).graph.input[0].name
    for line in sys.stdin:
        setting, start = json.loads(line), time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):  # onnxruntime prints while it calibrates
            file = model
            if setting["method"] != "float":
                file = quantized(model, setting, source, images[:calibration], folder)
        seconds = time.perf_counter() - start
        session = onnxruntime.InferenceSession(str(file))
        session.run(None, {source: images[:1]})
        start = time.perf_counter()
        outputs = np.concatenate([session.run(None, {source: image[None]})[0] for image in images[calibration:]])
        milliseconds = 1000 * (time.perf_counter() - start) / len(outputs)
        np.save(folder / "outputs.npy", outputs)
        answer = {"seconds": seconds, "milliseconds": milliseconds, "bytes": file.stat().st_size}
        print(json.dumps(answer), flush=True)


main()
