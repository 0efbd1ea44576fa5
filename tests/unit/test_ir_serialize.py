"""A saved graph is the same graph: equal run, equal bytes; a damaged or hostile file is one clear error."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfab.dtypes import IntType, QParams
from bitfab.errors import BitfabError
from bitfab.ir import Builder, Graph, run
from bitfab.ir.ops import Conv2d, Requantize, Reshape, Table, Threshold, TopK
from bitfab.ir.serialize import load, save
from tests.strategies import batch, graphs


def example() -> Graph:
    """Tensors of three dtypes, qparams, an enum and a type among the attributes."""
    rng = np.random.default_rng(0)
    builder = Builder("example")
    x = builder.input("x", (2, 5, 6), IntType(8, signed=False), QParams((0.5,), 3))
    conv = Conv2d(
        rng.integers(-90, 91, (4, 2, 3, 3)), rng.integers(-70000, 70001, 4), padding=(1, 1, 1, 1), pad_value=3
    )
    x = builder.add("conv1", conv, x, QParams((0.1, 0.2, 1 / 3, 0.4)), source="net.conv1")
    requantize = Requantize(np.array([777, 40001, 50003, 60007]), np.array([20, 21, 22, 23]), IntType(4, True), -8, 7)
    x = builder.add("requantize1", requantize, x)
    x = builder.add("table1", Table(np.arange(16)[::-1].copy(), IntType(4, True), IntType(4, False)), x)
    return builder.build((builder.add("flat", Reshape((120,)), x),))


@given(graph=graphs() | graphs(ops=(Threshold, Conv2d)), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_round_trip(graph: Graph, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    first, second = (tmp_path_factory.mktemp("graph") / name for name in ("a.safetensors", "b.safetensors"))
    save(graph, first)
    loaded = load(first)
    save(loaded, second)
    assert first.read_bytes() == second.read_bytes()
    assert [value.signature for value in loaded.values.values()] == [v.signature for v in graph.values.values()]
    inputs = batch(graph, seed)
    np.testing.assert_equal(run(loaded, *inputs), run(graph, *inputs))


def test_an_argmax_of_before_is_the_largest_of_now(tmp_path: Path) -> None:
    builder = Builder("classes")
    graph = builder.build((builder.add("class_of", TopK(1), builder.input("x", (9,), IntType(4, signed=True))),))
    save(graph, tmp_path / "a")
    _rewrite(tmp_path / "a", '"op":"TopK","k":1', '"op":"Argmax"')
    assert load(tmp_path / "a") == graph
    _rewrite(tmp_path / "a", '"op":"Argmax"', '"op":"Argmax","k":2')
    with pytest.raises(BitfabError, match="'Argmax' found where an operation"):
        load(tmp_path / "a")


def test_metadata_survives(tmp_path: Path) -> None:
    save(example(), tmp_path / "a")
    loaded = load(tmp_path / "a")
    assert loaded.inputs == example().inputs
    assert [(node.source, node.output) for node in loaded] == [(node.source, node.output) for node in example()]
    assert loaded.nodes[0].op.weight.dtype == np.int8  # the narrowest
    assert loaded.nodes[0].op.bias.dtype == np.int32


SAVE = """
import sys
from bitfab.ir.serialize import save
from tests.unit.test_ir_serialize import example
save(example(), sys.argv[1])
"""


def test_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    contents = set()
    for seed in ("0", "1", "2"):
        path = tmp_path / seed
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", SAVE, path], check=True, env=environment, cwd=Path(__file__).parents[2])
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_a_damaged_file_is_one_error_or_a_valid_graph(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "graph"
    save(example(), path)
    original = path.read_bytes()
    header_end = 8 + struct.unpack("<Q", original[:8])[0]
    refused = 0
    for _ in range(600):
        data = bytearray(original)
        for _ in range(rng.integers(1, 4)):
            position = int(rng.integers(0, header_end if rng.random() < 0.9 else len(data)))
            match rng.integers(0, 4):
                case 0:
                    data[position] = rng.integers(0, 256)
                case 1:
                    data[position] = ord(rng.choice(list('0123456789-"{}[],:.e')))
                case 2:
                    del data[position : position + int(rng.integers(1, 9))]
                case 3:
                    data[position:position] = bytes(rng.integers(48, 58, rng.integers(1, 9), dtype=np.uint8))
        path.write_bytes(data)
        refused += _refused_or_valid(path)
    assert refused > 400


def _refused_or_valid(path: Path) -> bool:
    try:
        graph = load(path)
    except BitfabError as error:
        assert "\n" not in str(error)
        return True
    run(graph, *batch(graph, 0, size=2))
    return False


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, 1000])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    save(example(), tmp_path / "a")
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:size])
    with pytest.raises(BitfabError, match="not a bitfab graph or damaged"):
        load(tmp_path / "a")


def _rewrite(path: Path, old: str, new: str) -> None:
    """Replace text in the stored JSON and leave the file otherwise sound."""
    with safetensors.safe_open(path, framework="numpy") as file:
        text = file.metadata()["bitfab"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert old in text
    safetensors.numpy.save_file(tensors, path, {"bitfab": text.replace(old, new)})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"op":"Conv2d"', '"op":"Exec"', "'Exec' found where an operation"),
        ('"op":"Conv2d"', '"op":["Conv2d"]', "found where an operation"),
        ('"conv1.weight"', '"conv1.bias"', "has shape"),
        ('"conv1.weight"', '"conv9.weight"', "name of a tensor"),
        ('"stride":[1,1]', '"stride":[0,1]', "out of range"),
        ('"stride":[1,1]', '"stride":[1,1,1]', "a list of 2"),
        ('"stride":[1,1]', '"stride":[1,true]', "int is expected"),
        ('"dilation":[1,1]', '"dilation":[-1,1]', "out of range"),
        ('"groups":1', '"groups":0', "groups"),
        ('"groups":1', '"groups":1.0', "int is expected"),
        ('"groups":1', '"groups":1,"extra":1', "Conv2d"),
        ('"padding":[1,1,1,1]', '"padding":[-1,1,1,1]', "negative"),
        ('"padding":[1,1,1,1]', '"padding":[4294967296,1,1,1]', "2\\*\\*31|infer|stored"),
        ('"inputs":["conv1"]', '"inputs":["flat"]', "before its use"),
        ('"inputs":["conv1"]', '"inputs":["conv1","conv1"]', "inputs"),
        ('"name":"table1"', '"name":"conv1"', "twice"),
        ('"name":"table1"', '"name":"a b"', "identifier"),
        ('"outputs":["flat"]', '"outputs":[]', "output"),
        ('"outputs":["flat"]', '"outputs":["no"]', "not defined"),
        ('"shape":[2,5,6]', '"shape":[2,1000000000,1000000000]', "2\\*\\*31"),
        ('"shape":[120]', '"shape":[-120]', "positive"),
        ('"bits":8', '"bits":33', "bits"),
        ('"rounding":"half_up"', '"rounding":"up"', "up"),
        ('"scale":[0.5]', '"scale":[NaN]', "finite"),
        ('"scale":[0.5]', '"scale":[0.5,0.5,0.5]', "channels"),
        ('"low":-8', '"low":-9', "does not fit int4"),
        ('"input_zero":0', '"input_zero":1' + 30 * "0", "32 bits"),
        ('"input_zero":0', '"input_zero":1' + 5000 * "0", "damaged"),
        ('"format":1', '"format":2', "format"),
        ('"name":"example"', '"name":' + "[" * 100000 + "]" * 100000, "damaged"),
    ],
)
def test_a_hostile_file_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "a"
    save(example(), path)
    _rewrite(path, old, new)
    with pytest.raises(BitfabError, match=message):
        load(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    text = json.dumps({"format": 1, "graph": {}})
    tensors = [
        ({"a": np.zeros(3, np.float32)}, {"bitfab": text}, "F32"),
        ({"a": np.zeros(3, np.int64)}, {"bitfab": text}, "I64"),
        ({"a": np.zeros(3, np.int8)}, {}, "metadata"),
        ({"a": np.zeros(3, np.int8)}, {"bitfab": "[]"}, "format"),
        ({"a": np.zeros(3, np.int8)}, {"bitfab": "no json"}, "damaged"),
    ]
    for content, metadata, message in tensors:
        safetensors.numpy.save_file(content, path, metadata)
        with pytest.raises(BitfabError, match=message):
            load(path)
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{" * 100)
    with pytest.raises(BitfabError, match="header"):
        load(path)


def test_a_tensor_without_a_node_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save(example(), path)
    with safetensors.safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        safetensors.numpy.save_file(tensors | {"more": np.zeros(1, np.int8)}, tmp_path / "b", file.metadata())
    with pytest.raises(BitfabError, match="'more' belongs to no node"):
        load(tmp_path / "b")


def test_missing_and_unwritable_places(tmp_path: Path) -> None:
    with pytest.raises(BitfabError, match="cannot be read"):
        load(tmp_path / "none")
    with pytest.raises(BitfabError, match="cannot be read"):
        load(tmp_path)
    with pytest.raises(BitfabError, match="cannot be written"):
        save(example(), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BitfabError, match="cannot be written"):
        save(example(), tmp_path / "file" / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
