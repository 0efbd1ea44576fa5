"""Runs in a peer's environment: QONNX's own executor on a model, one image at a time, as its batch axis has it.

interop_qonnx.py MODEL.onnx IMAGES.npy OUTPUTS.npy
"""

import sys
import warnings

import numpy as np
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes


def main(path: str, images: str, outputs: str) -> None:
    warnings.simplefilter("ignore")  # it renames the operator domains of old files, and says so
    model = ModelWrapper(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    (source,) = (entry.name for entry in model.graph.input if entry.name not in constants)
    model = model.transform(InferShapes())
    shape, results = model.get_tensor_shape(source), []
    for image in np.load(images):
        made = execute_onnx(model, {source: image.reshape(shape)})
        results.append(made[model.graph.output[0].name].reshape(-1))
    np.save(outputs, np.stack(results))


main(*sys.argv[1:])
