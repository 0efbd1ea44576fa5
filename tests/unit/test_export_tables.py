"""Tables of parameters, each format read back by a reader of its own: exactly the graph's integers."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bitfab.dtypes import IntArray, IntType, QParams, storage
from bitfab.errors import BitfabError
from bitfab.export import export_tables, table_formats
from bitfab.ir import Builder, Graph
from bitfab.ir.ops import Conv2d, Dense, Requantize, Reshape, Table, Threshold


def example() -> Graph:
    """Weights of 8, 4 and 1 bits, a table, thresholds, and values with scales."""
    rng = np.random.default_rng(0)
    builder = Builder("example")
    x = builder.input("x", (3, 4, 4), IntType(8, False), QParams((0.0078125,), 128))
    weight = rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    x = builder.add("conv", Conv2d(weight, rng.integers(-9999, 9999, 4, np.int32), pad_value=128), x, source="net.conv")
    scales = np.array([40001, 3, 5, 77]), np.array([24, 8, 9, 16])
    codes = IntType(8, False)
    x = builder.add("relu", Requantize(*scales, codes, 3, 255, 0, 3), x, QParams((0.1,), 3))
    x = builder.add("silu", Table(rng.integers(-8, 8, 256).astype(np.int8), codes, IntType(4, True)), x)
    nibbles = rng.integers(-7, 8, (5, 4, 1, 1)).astype(np.int8)
    x = builder.add("narrow", Conv2d(nibbles, np.zeros(5, np.int32)), x)
    x = builder.add("sign", Threshold(np.arange(5)[:, None] - 3, IntType(1, True), -1), x, QParams((0.5,)))
    x = builder.add("flat", Reshape((20,)), x)
    binary = np.where(rng.integers(0, 2, (3, 20)), 1, -1).astype(np.int8)
    return builder.build((builder.add("head", Dense(binary, np.array([70000, -1, 0], np.int32)), x),))


GRAPH = example()
TENSORS = {
    f"{node.name}_{name}": array
    for node in GRAPH
    for name, array in vars(node.op).items()
    if isinstance(array, np.ndarray)
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables") / "out"
    export_tables(GRAPH, folder)
    return folder


def entries(folder: Path) -> dict[str, dict[str, object]]:
    return {entry["name"]: entry for entry in json.loads((folder / "manifest.json").read_text())["tensors"]}


def signed(words: list[int], entry: dict[str, object]) -> IntArray:
    """Raw words as the manifest says they are to be read."""
    bits = entry["bits"]
    if entry["bipolar"]:
        return np.array(words).reshape(entry["shape"]) * 2 - 1
    limit = 1 << (bits - 1) if entry["signed"] else 1 << bits
    return np.array([word - (1 << bits) if word >= limit else word for word in words]).reshape(entry["shape"])


def read_mem(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def read_coe(text: str) -> list[int]:
    found = re.fullmatch(r"memory_initialization_radix=16;\nmemory_initialization_vector=\n([^;]*);\n", text)
    assert found
    return [int(word, 16) for word in found[1].split(",")]


def read_mif(text: str) -> list[int]:
    depth = int(re.search(r"DEPTH=(\d+);", text)[1])
    pairs = re.findall(r"^([0-9a-f]+) : ([0-9a-f]+);$", text, re.MULTILINE)
    assert [int(address, 16) for address, _ in pairs] == list(range(depth))
    return [int(word, 16) for _, word in pairs]


def read_intel_hex(text: str) -> bytes:
    """The bytes of an Intel HEX file; every record's sum of bytes must be 0."""
    data, upper, ended = {}, 0, False
    for line in text.split():
        record = bytes.fromhex(line[1:])
        assert line[0] == ":" and sum(record) % 256 == 0 and len(record) == record[0] + 5 and not ended
        address, kind, body = int.from_bytes(record[1:3], "big"), record[3], record[4:-1]
        if kind == 4:
            upper = int.from_bytes(body, "big") << 16
        ended = kind == 1
        data |= {upper + address + i: byte for i, byte in enumerate(body)} if kind == 0 else {}
    assert ended and sorted(data) == list(range(len(data)))
    return bytes(data[i] for i in range(len(data)))


def unpacked(data: bytes, bits: int, count: int) -> list[int]:
    number = int.from_bytes(data, "little")
    return [number >> (i * bits) & ((1 << bits) - 1) for i in range(count)]


def test_every_tensor_in_every_format(folder: Path) -> None:
    known = entries(folder)
    assert known.keys() == TENSORS.keys()
    archive = np.load(folder / "parameters.npz")
    for name, entry in known.items():
        texts = {suffix: (folder / file).read_text() for suffix, file in entry["files"].items() if suffix != "npz"}
        count = int(np.prod(entry["shape"]))
        found = {
            "mem": signed(read_mem(texts["mem"]), entry),
            "coe": signed(read_coe(texts["coe"]), entry),
            "mif": signed(read_mif(texts["mif"]), entry),
            "hex": signed(unpacked(read_intel_hex(texts["hex"]), entry["bits"], count), entry),
            "csv": np.array([[int(n) for n in row.split(",")] for row in texts["csv"].split()]).reshape(entry["shape"]),
            "npz": archive[entry["name"]],
        }
        for suffix, array in found.items():
            np.testing.assert_array_equal(array, TENSORS[name], err_msg=f"{name}.{suffix}")


def test_widths(folder: Path) -> None:
    widths = {name: (entry["bits"], entry["signed"]) for name, entry in entries(folder).items()}
    assert widths["conv_weight"] == (8, True)
    assert widths["narrow_weight"] == (4, True)
    assert widths["head_weight"] == (1, True)
    assert widths["head_bias"] == (32, True)
    assert widths["relu_multiplier"] == (16, False)
    assert widths["silu_table"] == (4, True)


def test_the_c_header_compiles(folder: Path, tmp_path: Path) -> None:
    """A C program prints all that the header holds."""
    names = [*TENSORS, "x_scale"]
    prints = "".join(
        f'for (int i = 0; i < {name.upper()}_SIZE; i++) printf("%.9g ", (double){name}[i]); puts("");' for name in names
    )
    main = f'#include <stdio.h>\n#include "parameters.h"\nint main(void) {{ {prints} return X_ZERO_POINT != 128; }}\n'
    (tmp_path / "main.c").write_text(main)
    program = tmp_path / "main"
    subprocess.run(["gcc", "-Wall", "-Werror", f"-I{folder}", tmp_path / "main.c", "-o", program], check=True)
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()
    for line, wanted in zip(printed, [*TENSORS.values(), np.array([0.0078125])], strict=True):
        np.testing.assert_array_equal(np.array(line.split(), float), wanted.ravel())


def test_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    values = {value["name"]: value for value in manifest["values"]}
    assert values["x"] == {
        "name": "x",
        "shape": [3, 4, 4],
        "bits": 8,
        "signed": False,
        "scale": [0.0078125],
        "zero_point": 128,
    }
    assert entries(folder)["conv_weight"]["layer"] == "net.conv"
    written = {file for entry in manifest["tensors"] for file in entry["files"].values()}
    assert written | {"manifest.json", "bitfab.json"} == {path.name for path in folder.iterdir()}


@st.composite
def tensors(draw: st.DrawFn) -> tuple[IntArray, IntType]:
    type = IntType(draw(st.sampled_from([1, 2, 4, 8, 16, 32])), draw(st.booleans()))
    numbers = st.sampled_from([-1, 1]) if type.bipolar else st.integers(type.low, type.high)
    return draw(arrays(storage(type), array_shapes(max_dims=4, max_side=9), elements=numbers)), type


@given(tensors())
@settings(deadline=None, max_examples=100)
def test_any_tensor(drawn: tuple[IntArray, IntType]) -> None:
    array, type = drawn
    entry = {"bits": type.bits, "signed": type.signed, "bipolar": type.bipolar, "shape": array.shape}
    for write, read in ((table_formats.mem, read_mem), (table_formats.coe, read_coe), (table_formats.mif, read_mif)):
        np.testing.assert_array_equal(signed(read(write(array, type)), entry), array)
    data = read_intel_hex(table_formats.intel_hex(array, type))
    assert len(data) == -(-array.size * type.bits // 8)
    np.testing.assert_array_equal(signed(unpacked(data, type.bits, array.size), entry), array)


def test_intel_hex_beyond_64_kib() -> None:
    array = np.random.default_rng(0).integers(-128, 128, 70_000).astype(np.int8)
    data = read_intel_hex(table_formats.intel_hex(array, IntType(8, True)))
    np.testing.assert_array_equal(np.frombuffer(data, np.int8), array)


def test_chosen_formats_and_errors(tmp_path: Path) -> None:
    export_tables(GRAPH, tmp_path / "out", ["mem"])
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".mem", ".json"}
    export_tables(GRAPH, tmp_path / "out", ["npz"])  # replaces its own folder
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".npz", ".json"}
    with pytest.raises(BitfabError, match="format 'xls' is unknown; choose from mem, hex, coe, mif, csv, h, npz"):
        export_tables(GRAPH, tmp_path / "new", ["mem", "xls"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(BitfabError, match="holds files that are not bitfab's"):
        export_tables(GRAPH, tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]
