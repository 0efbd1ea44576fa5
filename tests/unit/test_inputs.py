"""Arrays, networks and foldings as users name them: what is read, and what is refused in one line."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

from bitfab import inputs
from bitfab.data import npz
from bitfab.errors import BitfabError
from bitfab.hw.design import Folding, Multiplier

GOOD = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)


def refused(path: Path) -> str:
    """The one line that reading the array gives; it names the file."""
    with pytest.raises(BitfabError) as caught:
        inputs.array(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 400
    return message


def npy(array: NDArray[np.generic], allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def with_header(header: str, data: bytes = bytes(64)) -> bytes:
    """A .npy of version 1.0 with any header at all."""
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8", "u1", "<i2", ">i8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_in_native_order(tmp_path: Path, dtype: str, order: str) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.asarray(GOOD, dtype=dtype, order=order))
    loaded = inputs.array(path)
    assert np.array_equal(loaded, GOOD) and loaded.dtype.isnative and loaded.dtype != np.float64
    assert loaded.dtype.kind == np.dtype(dtype).kind


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_of_one_array(tmp_path: Path, save: object) -> None:
    path = tmp_path / "x.npz"
    assert callable(save)
    save(path, frames=GOOD)
    assert np.array_equal(inputs.array(path), GOOD)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((0, 3, 2, 2), np.float32), "shape (0, 3, 2, 2)"),
        (np.zeros((2, 0), np.float32), "shape (2, 0)"),
        (np.zeros(5, np.float32), "shape (5,)"),
        (np.float32(1), "shape ()"),
        (np.array([[1, 2], [np.nan, 0]]), "input 1 holds NaN or infinite"),
        (np.array([[np.inf, 0]]), "input 0 holds NaN or infinite"),
        (np.array([[1e300, 0]]), "input 0 holds NaN or infinite"),  # beyond float32
        (np.zeros((2, 3), complex), "complex128; give integers or real numbers"),
        (np.zeros((2, 3), bool), "bool; give integers or real numbers"),
        (np.zeros((2, 3), "U4"), "give integers or real numbers"),
        (np.zeros((2, 3), [("a", "f4"), ("b", "i2")]), "give integers or real numbers"),
    ],
)
def test_arrays_that_are_no_inputs(tmp_path: Path, array: NDArray[np.generic], reason: str) -> None:
    path = tmp_path / "x.npy"
    np.save(path, array)
    assert reason in refused(path)


class Bomb:
    """Unpickling this makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("archive", [False, True])
def test_python_objects_are_never_unpickled(tmp_path: Path, archive: bool) -> None:
    objects = npy(np.array([[Bomb(tmp_path / "boom")]], dtype=object), allow_pickle=True)
    path = tmp_path / "x.np"
    if archive:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x.npy", objects)
    else:
        path.write_bytes(objects)
    assert "Python objects" in refused(path)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"PK\x03\x04 but no archive",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00",
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 1000), }"),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -4), }"),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 4000 + ", " + "9" * 4000 + "), }"),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 4), }", bytes(60)),
        with_header("{'descr': (), 'fortran_order': False, 'shape': (4, 4), }"),
        with_header("{1: 2, 'a': 3}"),
        with_header("(" * 3000),
        with_header("__import__('os').abort()"),
    ],
    ids=range(13),
)
def test_hostile_and_truncated_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(data)
    refused(path)


@pytest.mark.parametrize(("shape", "size"), [((10**12, 1000), 64), ((-4, -4), 64), ((4, 4), 60)])
def test_claims_beyond_the_file_are_found_before_memory_is_taken(
    tmp_path: Path, shape: tuple[int, int], size: int
) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    (tmp_path / "x.npy").write_bytes(with_header(header, bytes(size)))
    assert f"truncated or damaged: no {shape} of float32" in refused(tmp_path / "x.npy")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path, archive = tmp_path / "x.npy", tmp_path / "x.npz"
    np.savez(archive, x=GOOD)
    for whole, file in ((npy(GOOD), path), (archive.read_bytes(), archive)):
        for size in range(0, len(whole), 7):
            file.write_bytes(whole[:size])
            refused(file)


def test_an_archive_that_would_unpack_to_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MAX_BYTES", 1 << 20)
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.zeros((1 << 10, 1 << 10), np.float32))
    assert path.stat().st_size < 1 << 13
    assert "at most 1,048,576 are read" in refused(path)


def test_an_archive_that_lies_about_its_size(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.zeros((64, 64), np.float32))
    data = path.read_bytes()
    size = struct.pack("<I", 128 + 4 * 64 * 64)
    assert data.count(size) >= 1
    path.write_bytes(data.replace(size, struct.pack("<I", 200)))
    refused(path)


def test_archives_of_several_arrays_missing_files_and_folders(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=GOOD, b=GOOD)
    assert "holds 2 arrays (a, b)" in refused(tmp_path / "x.npz")
    assert "no such file" in refused(tmp_path / "none.npy")
    assert "cannot be read" in refused(tmp_path)


@pytest.mark.parametrize("text", ["conv1", "conv1=8", "conv1=0x4", "conv1=4x0", "=1x1", "a=1x1x1", "a=٤x1", "a=-1x2"])
def test_foldings_that_are_none(text: str) -> None:
    with pytest.raises(BitfabError, match=r"--fold .*: write LAYER=PExSIMD or LAYER=PExSIMD:MULTIPLIER, such as"):
        inputs.foldings([text])


def test_foldings() -> None:
    assert inputs.foldings(["a=8x4", "b=1x1:luts"]) == {"a": Folding(8, 4), "b": Folding(1, 1, Multiplier.LUTS)}
    with pytest.raises(BitfabError, match="--fold a=8x4:fast: multiplier fast: choose one of dsp, packed, luts"):
        inputs.foldings(["a=8x4:fast"])
    with pytest.raises(BitfabError, match="a is folded twice"):
        inputs.foldings(["a=8x4", "a=1x1"])


MODULE = """
import torch
from torch import nn
made = nn.Linear(2, 3)
class Net(nn.Linear):
    def __init__(self): super().__init__(2, 3)
def make(): return nn.Linear(2, 3)
def needs(width): return nn.Linear(width, 3)
def broken(): raise ValueError("no width\\nwas given")
def leaves(): raise SystemExit(0)
def gives(): return [1, 2]
number = 3
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with modules in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some_networks.py").write_text(MODULE)
    (tmp_path / "raises_on_import.py").write_text("x = 1\nx / 0\n")
    (tmp_path / "syntax_error.py").write_text("def f(:\n")
    (tmp_path / "needs_more.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "exits_on_import.py").write_text("import sys\nsys.exit(0)\n")
    return tmp_path


@pytest.mark.parametrize("name", ["made", "Net", "make"])
def test_networks_in_eval_mode(modules: Path, name: str) -> None:
    net = inputs.network(f"some_networks:{name}", None)
    assert isinstance(net, torch.nn.Linear) and not net.training


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("some_networks:needs", "missing 1 required positional argument"),
        ("some_networks:broken", r"ValueError: no width was given at .*some_networks.py:9;"),
        ("some_networks:leaves", "SystemExit: 0 at "),
        ("some_networks:gives", "gives a list; a torch.nn.Module is needed"),
        ("some_networks:number", "TypeError: 'int' object is not callable"),
        ("some_networks:nothing", "AttributeError: .* has no attribute 'nothing'"),
        ("no_such_module_here:Net", "no module named no_such_module_here; run bitfab where Python finds it"),
        ("needs_more:Net", "no module named nowhere_to_be_found; install it"),
        ("raises_on_import:Net", r"ZeroDivisionError: division by zero at .*raises_on_import.py:2;"),
        ("syntax_error:Net", r"SyntaxError: .*\(syntax_error.py, line 1\)"),
        ("exits_on_import:Net", "SystemExit: 0"),
        ("zoo:none", "choose one of qubit-447, qubit, digits"),
        ("some_networks", "give MODULE:NAME, or zoo:qubit-447, zoo:qubit, zoo:digits"),
        ("", "not a network"),
        (":Net", "not a network"),
        ("some_networks:", "not a network"),
        ("weights/net.pt", "pickles are never opened"),
        ("net.safetensors", "give MODULE:NAME, with this file as --parameters"),
        ("some_networks.py:Net", "such as net:Net for the class Net of net.py"),
        ("./some_networks.py:Net", "such as net:Net for the class Net of net.py"),
    ],
)
def test_networks_that_are_none(modules: Path, name: str, reason: str) -> None:
    with pytest.raises(BitfabError, match=reason) as caught:
        inputs.network(name, None)
    assert "\n" not in str(caught.value)


def test_parameters_are_loaded(modules: Path) -> None:
    weight = torch.arange(6.0).reshape(3, 2)
    safetensors.torch.save_file({"weight": weight, "bias": torch.zeros(3)}, "p.safetensors")
    net = inputs.network("some_networks:Net", Path("p.safetensors"))
    assert isinstance(net, torch.nn.Linear) and torch.equal(net.weight, weight)


def test_parameters_that_do_not_fit(modules: Path) -> None:
    def refused(path: str) -> str:
        with pytest.raises(BitfabError) as caught:
            inputs.network("some_networks:Net", Path(path))
        assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{path}: ")
        return str(caught.value)

    safetensors.torch.save_file({"weight": torch.zeros(3, 2)}, "missing.safetensors")
    assert "does not fit the network" in refused("missing.safetensors")
    safetensors.torch.save_file({"weight": torch.zeros(3, 9), "bias": torch.zeros(3)}, "wide.safetensors")
    assert "size mismatch for weight" in refused("wide.safetensors")
    whole = Path("wide.safetensors").read_bytes()
    for size in (0, 7, 8, 20, len(whole) - 1):
        Path("cut.safetensors").write_bytes(whole[:size])
        assert "damaged" in refused("cut.safetensors")
    Path("huge.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + whole[8:])
    assert "damaged" in refused("huge.safetensors")
    assert "no such file" in refused("none.safetensors")
    refused(".")


def test_where_a_graph_can_be_saved(tmp_path: Path) -> None:
    good = tmp_path / "net.safetensors"
    assert inputs.graph_file(good) == good
    assert inputs.graph_file(tmp_path / "none" / "net.safetensors").parent.name == "none"
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path / "net", "give it that ending"),
        (tmp_path / "folder.safetensors", "is not a file"),
        (tmp_path / "file" / "net.safetensors", "file: is not a folder"),
        (tmp_path / "file" / "none" / "net.safetensors", "file: is not a folder"),
    ):
        with pytest.raises(BitfabError, match=reason):
            inputs.graph_file(path)
