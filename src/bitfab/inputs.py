"""What a user names on the command line: arrays, networks, foldings, files to write; checked, never unpickled."""

from __future__ import annotations

import importlib
import os
import re
import sys
import textwrap
import traceback
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitfab.data import npz
from bitfab.errors import BitfabError, choice
from bitfab.hw.design import Folding, Multiplier
from bitfab.ir.graph import Graph
from bitfab.ir.serialize import load
from bitfab.output import nearest_folder

if TYPE_CHECKING:
    from torch import nn

FLOAT_FILES = (".onnx", ".tflite")


def array(path: Path) -> NDArray[np.generic]:
    """The array of a .npy file, or of a .npz file that holds one: (N, C, H, W) or (N, F), integers or finite reals.

    Wider reals become float32. Raises BitfabError where the file is missing, damaged, larger than npz.MAX_BYTES, claims
    more than it holds, or holds anything else.
    """
    loaded = _loaded(path)
    if loaded.ndim not in (2, 4) or loaded.size == 0:
        raise BitfabError(f"{path}: array of shape {loaded.shape}; give inputs of shape (N, C, H, W) or (N, F)")
    native = np.float32 if loaded.dtype.kind == "f" and loaded.dtype.itemsize > 4 else loaded.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite
        loaded = loaded.astype(native, copy=False)
    finite = np.isfinite(loaded).reshape(len(loaded), -1).all(axis=1)
    if not finite.all():
        raise BitfabError(f"{path}: input {int(np.argmin(finite))} holds NaN or infinite values; clean the data")
    return loaded


def reals(path: Path) -> NDArray[np.generic]:
    """An `array` of reals, as a float network takes them; BitfabError for integers."""
    loaded = array(path)
    if loaded.dtype.kind != "f":
        raise BitfabError(f"{path}: an array of {loaded.dtype}; give floats, scaled as the network takes them")
    return loaded


def labels(path: Path, count: int) -> NDArray[np.generic]:
    """Class numbers (count,) from a file as `array` reads them; BitfabError where it holds anything else."""
    loaded = _loaded(path)
    if loaded.ndim != 1 or loaded.dtype.kind not in "iu":
        raise BitfabError(f"{path}: {loaded.dtype} of shape {loaded.shape}; give labels as integers of shape (N,)")
    if len(loaded) != count:
        raise BitfabError(f"{path}: {len(loaded)} labels for {count} inputs; give one for each")
    return loaded.astype(np.int64)


def labelled(path: Path) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Samples `x` (N, F), integers or finite reals, and labels `y` (N,) of a .npz file; BitfabError for all else."""
    samples, labels = npz.read(path, "x", "y")
    if samples.ndim != 2 or samples.dtype.kind not in "iuf" or not samples.size:
        raise BitfabError(f"{path}: x is {samples.dtype} of shape {samples.shape}; give samples (N, features)")
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        raise BitfabError(f"{path}: x holds NaN or infinite values; clean the data")
    return samples, npz.labels(path, labels, len(samples), len(samples))


def counts(text: str, option: str) -> tuple[int, ...]:
    """Positive numbers written N or N,N,..."""
    if not re.fullmatch(r"[1-9]\d{0,6}(,[1-9]\d{0,6})*", text, re.ASCII):
        raise BitfabError(f"{option} {text}: write N or N,N,..., such as 400,200")
    return tuple(int(part) for part in text.split(","))


def span(text: str, option: str) -> tuple[int, ...]:
    """The whole numbers of FIRST-LAST, both included."""
    match = re.fullmatch(r"(\d{1,6})-(\d{1,6})", text, re.ASCII)
    if match is None or int(match[1]) > int(match[2]):
        raise BitfabError(f"{option} {text}: write FIRST-LAST, such as 2-99")
    return tuple(range(int(match[1]), int(match[2]) + 1))


def network(name: str, parameters: Path | None) -> nn.Module:
    """A network by `zoo:NAME`, by `MODULE:NAME` (an nn.Module, or a function or class that makes one), or by its file.

    MODULE is imported from the current folder or the Python path: it is the user's own code. A file is .onnx or
    .tflite, of floats. `parameters` is a state_dict in a safetensors file. All in eval mode. Raises BitfabError where
    any of them does not fit.
    """
    if Path(name).suffix in FLOAT_FILES:
        if parameters is not None:
            raise BitfabError(f"{name}: holds its own parameters; leave --parameters out")
        return _float_file(Path(name)).eval()
    module, _, attribute = name.partition(":")
    if not attribute or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", module) or module.endswith(".py"):
        raise BitfabError(f"{name}: not a network; give {_remedy(name)}")
    from bitfab import zoo

    net = zoo.load(attribute) if module == "zoo" else _imported(module, attribute)
    if parameters is not None:
        _load_parameters(net, parameters)
    return net.eval()


def graph(path: Path) -> Graph:
    """An integer graph: a file that bitfab saved, or a quantized .onnx (QDQ, QOperator, QONNX) or .tflite file.

    Raises BitfabError where the file is missing, damaged, of floats, or holds what has no integer form.
    """
    if path.suffix == ".onnx":
        from bitfab.frontend.onnx_quantized import load_quantized_onnx

        return load_quantized_onnx(path)
    if path.suffix == ".tflite":
        from bitfab.frontend.tflite_quantized import load_quantized_tflite

        return load_quantized_tflite(path)
    return load(path)


def foldings(texts: list[str]) -> dict[str, Folding]:
    """Foldings written LAYER=PExSIMD or LAYER=PExSIMD:MULTIPLIER, such as conv1=8x4 or conv1=8x4:luts."""
    result: dict[str, Folding] = {}
    for text in texts:
        match = re.fullmatch(r"(\w+)=([1-9]\d{0,5})x([1-9]\d{0,5})(?::(\w+))?", text, re.ASCII)
        if match is None:
            raise BitfabError(f"--fold {text}: write LAYER=PExSIMD or LAYER=PExSIMD:MULTIPLIER, such as conv1=8x4:luts")
        if match[1] in result:
            raise BitfabError(f"--fold {text}: {match[1]} is folded twice; give each layer once")
        multiplier = choice(Multiplier, match[4], f"--fold {text}: multiplier {match[4]}") if match[4] else None
        result[match[1]] = Folding(int(match[2]), int(match[3]), multiplier)
    return result


def random_codes(graph: Graph, count: int) -> list[NDArray[np.generic]]:
    """Uniformly random integers of each of the graph's inputs, always the same."""
    rng = np.random.default_rng(0)
    return [rng.integers(value.low, value.high + 1, (count, *value.shape)) for value in graph.inputs]


def graph_file(path: Path) -> Path:
    """A path that a graph can be saved to, found out before the work; BitfabError says what is in the way."""
    if path.suffix != ".safetensors":
        raise BitfabError(f"{path}: a graph is saved as .safetensors; give it that ending")
    return new_file(path)


def new_file(path: Path) -> Path:
    """A path that can be written to, once its missing folders are made; found out before the work.

    BitfabError says what is in the way.
    """
    if path.exists() and not path.is_file():
        raise BitfabError(f"{path}: is not a file; choose another name")
    folder = nearest_folder(path.parent)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BitfabError(f"{folder}: this folder is not writable; choose another")
    return path


def _loaded(path: Path) -> NDArray[np.generic]:
    """The one array of a file, whatever its shape."""
    try:
        with path.open("rb") as file:
            zipped = zipfile.is_zipfile(file)
            file.seek(0)
            return _unzipped(file) if zipped else npz.array(file, path.stat().st_size)
    except FileNotFoundError:
        raise BitfabError(f"{path}: no such file; give a .npy or .npz file") from None
    except BitfabError as error:
        raise BitfabError(f"{path}: {error}") from error
    except Exception as error:  # numpy's and zipfile's parsers raise nearly anything on a hostile file
        raise BitfabError(f"{path}: cannot be read as .npy or .npz ({error}); save it with numpy.save") from error


def _unzipped(file: IO[bytes]) -> NDArray[np.generic]:
    """The one array of a .npz."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) != 1:
            names = ", ".join(member.filename.removesuffix(".npy") for member in members[:8]) or "none"
            raise BitfabError(f"holds {len(members)} arrays ({names}); save the one wanted by itself")
        with archive.open(members[0]) as member:
            return npz.array(member, members[0].file_size)


def _remedy(name: str) -> str:
    """What to give in place of something that is no MODULE:NAME."""
    from bitfab import zoo

    match Path(name.partition(":")[0]).suffix:
        case ".pt" | ".pth" | ".ckpt" | ".bin" | ".pkl":
            return "MODULE:NAME, with its state_dict as --parameters FILE.safetensors; pickles are never opened"
        case ".safetensors":
            return "MODULE:NAME, with this file as --parameters"
        case ".py":
            return "MODULE:NAME as Python imports it, such as net:Net for the class Net of net.py"
    return f"MODULE:NAME, or zoo:{', zoo:'.join(zoo.NETWORKS)}"


def _float_file(path: Path) -> nn.Module:
    """The network of a float file; frameworks are imported when needed, for torch takes seconds."""
    if path.suffix == ".onnx":
        from bitfab.frontend.onnx import load_onnx

        return load_onnx(path)
    from bitfab.frontend.tflite import load_tflite

    return load_tflite(path)


def _imported(module: str, attribute: str) -> nn.Module:
    """The network by its name; whatever the user's code raises becomes one line that names its place."""
    from torch import nn

    name = f"{module}:{attribute}"
    sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), attribute)
        net = found if isinstance(found, nn.Module) else found()
    except ModuleNotFoundError as error:
        remedy = "run bitfab where Python finds it" if error.name == module else "install it"
        raise BitfabError(f"{name}: no module named {error.name}; {remedy}") from error
    except (Exception, SystemExit) as error:
        raise BitfabError(
            f"{name}: {_essence(error)}; name an nn.Module, or a function or class that makes one without arguments"
        ) from error
    finally:
        with suppress(ValueError):
            sys.path.remove("")
    if not isinstance(net, nn.Module):
        raise BitfabError(f"{name}: gives a {type(net).__name__}; a torch.nn.Module is needed")
    return net


def _essence(error: BaseException) -> str:
    """What the user's code raised, and where."""
    text = textwrap.shorten(str(error), 200) or "no reason given"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if len(frames) > 1 else ""
    return f"{type(error).__name__}: {text}{place}"


def _load_parameters(net: nn.Module, path: Path) -> None:
    import safetensors.torch

    try:
        net.load_state_dict(safetensors.torch.load_file(path))
    except FileNotFoundError:
        raise BitfabError(f"{path}: no such file; save the state_dict with safetensors.torch.save_file") from None
    except OSError as error:
        raise BitfabError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    except safetensors.SafetensorError as error:
        raise BitfabError(f"{path}: no safetensors file, or damaged ({error}); save the state_dict again") from error
    except RuntimeError as error:
        reason = textwrap.shorten(str(error), 300)
        raise BitfabError(f"{path}: does not fit the network ({reason}); give the parameters of this one") from error
