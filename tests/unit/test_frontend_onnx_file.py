"""ONNX files are believed nothing: sizes, external data and structure are checked, and each fault is one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bitfab.errors import BitfabError
from bitfab.frontend.onnx_file import attributes, initializers, opset, read_model
from tests.onnx_files import saved, small_network


def external(model: ModelProto, location: str, **entries: int) -> ModelProto:
    """The model with its first initializer's data in another file."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return model


def refused(path: Path, expected: str) -> None:
    with pytest.raises(BitfabError) as caught:
        read_model(path)
    message = str(caught.value)
    assert expected in message and str(path) in message and "\n" not in message


def test_reads_what_onnx_writes(tmp_path: Path) -> None:
    model = read_model(saved(small_network(17), tmp_path))
    arrays = initializers(model)
    assert opset(model) == 17 and arrays["c0"].shape == (4, 3, 3, 3) and arrays["c0"].dtype == np.float32
    assert attributes(model.graph.node[0]) == {"pads": [1, 1, 1, 1]}


def test_external_data_are_inlined(tmp_path: Path) -> None:
    expected = initializers(small_network())
    onnx.save(small_network(), tmp_path / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    model = read_model(tmp_path / "net.onnx")
    assert all(not tensor.external_data for tensor in model.graph.initializer)
    for name, array in initializers(model).items():
        np.testing.assert_array_equal(array, expected[name])
    inside = tmp_path / "data"
    inside.mkdir()
    (inside / "w.bin").write_bytes(expected["c0"].tobytes())
    (tmp_path / "link.bin").symlink_to(inside / "w.bin")  # a link inside the folder is as good as a file
    for location in ("data/w.bin", "link.bin"):
        found = read_model(saved(external(small_network(), location), tmp_path))
        np.testing.assert_array_equal(initializers(found)["c0"], expected["c0"])


@pytest.mark.parametrize("location", ["../secret.bin", "{outside}", "a/../../secret.bin", "..\\secret.bin", "", "a\0b"])
def test_external_data_outside_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(4 * 4 * 27))
    location = location.format(outside=secret)
    refused(saved(external(small_network(), location), folder), "only files inside the model's folder are read")


def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(4 * 4 * 27))
    (folder / "w.bin").symlink_to("../secret.bin")
    refused(saved(external(small_network(), "w.bin"), folder), "a link that leaves the model's folder is not read")
    (folder / "up").symlink_to("..")
    refused(saved(external(small_network(), "up/secret.bin"), folder), "a link that leaves the model's folder")


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({}, "claims 108"),
        ({"offset": 90}, "beyond the end"),
        ({"offset": 0, "length": 1 << 40}, "beyond the end"),
        ({"offset": -5, "length": 5}, "beyond the end"),
        ({"offset": "x"}, "beyond the end"),
    ],
)
def test_external_data_of_another_size_are_refused(entries: dict[str, int], expected: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(80))
    refused(saved(external(small_network(), "w.bin", **entries), tmp_path), expected)


def test_a_missing_or_special_external_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for location in ("absent.bin", "pipe", "."):
        refused(saved(external(small_network(), location), tmp_path), "no such file")


def _claims_much() -> ModelProto:
    model = small_network()
    model.graph.initializer[0].dims[0] = 1 << 40
    return model


def _overflows() -> ModelProto:
    model = small_network()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([1 << 32, 1 << 32])
    return model


def _negative() -> ModelProto:
    model = small_network()
    model.graph.initializer[0].dims[0] = -4
    return model


def _packed() -> ModelProto:
    model = small_network()
    model.graph.initializer.append(TensorProto(name="p", data_type=TensorProto.INT4, dims=[1 << 30], raw_data=b"ab"))
    return model


def _constant() -> ModelProto:
    model = small_network()
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1 << 33], raw_data=b"abcd")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=tensor))
    return model


def _sparse() -> ModelProto:
    model = small_network()
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 40]))
    return model


def _function() -> ModelProto:
    model = small_network()
    model.functions.append(helper.make_function("d", "F", ["a"], ["b"], [], []))
    return model


def _no_opset() -> ModelProto:
    model = small_network()
    del model.opset_import[:]
    return model


def _newer() -> ModelProto:
    model = small_network()
    model.opset_import[0].version = 25
    return model


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (_claims_much, "c0: damaged tensor, 108 elements held"),
        (_overflows, "c0: damaged tensor"),
        (_negative, "c0: damaged tensor of shape (-4"),
        (_packed, "p: damaged tensor, 4 elements held"),
        (_constant, "t: damaged tensor"),
        (_sparse, "sparse tensors are not supported"),
        (_function, "local function 'F'"),
        (_no_opset, "names no single version"),
        (_newer, "opset 25, supported are 11 to 24"),
        (ModelProto, "holds no graph"),
    ],
)
def test_false_claims_are_refused(make: Callable[[], ModelProto], expected: str, tmp_path: Path) -> None:
    refused(saved(make(), tmp_path), expected)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    refused(path, "cannot be read (No such file or directory)")
    path.write_bytes(b"not a model at all")
    refused(path, "no ONNX model or damaged")
    refused(tmp_path, "cannot be read")
    with path.open("wb") as file:
        file.truncate((1 << 30) + 1)  # sparse: takes no room
    refused(path, "holds 1,073,741,825 bytes")
