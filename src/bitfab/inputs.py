"""What a user names on the command line: arrays, networks, foldings; checked, never unpickled."""

from __future__ import annotations

import enum
import importlib
import re
import sys
import zipfile
from pathlib import Path
from typing import TypeVar

import numpy as np
import safetensors
import safetensors.torch
from numpy.typing import NDArray
from torch import nn

from bitfab import zoo
from bitfab.errors import BitfabError
from bitfab.hw.design import Folding
from bitfab.ir.graph import Graph

_Choice = TypeVar("_Choice", bound=enum.StrEnum)


def array(path: Path) -> NDArray[np.generic]:
    """The array of a .npy file, or of a .npz file that holds one; float64 becomes float32.

    Raises BitfabError where the file is missing, no such file, empty, or holds Python objects.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                if len(loaded.files) != 1:
                    names = ", ".join(loaded.files) or "none"
                    raise BitfabError(f"{path}: holds {len(loaded.files)} arrays ({names}); save the one of the inputs")
                loaded = loaded[loaded.files[0]]
    except FileNotFoundError:
        raise BitfabError(f"{path}: no such file; give a .npy or .npz file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BitfabError(f"{path}: cannot be read as .npy or .npz ({error}); save it with numpy.save") from error
    if loaded.ndim < 2 or loaded.shape[0] == 0:
        raise BitfabError(f"{path}: array of shape {loaded.shape}; inputs of shape (N, C, H, W) or (N, F) are expected")
    return loaded.astype(np.float32) if loaded.dtype == np.float64 else loaded


def network(name: str, parameters: Path | None) -> nn.Module:
    """A network by `zoo:NAME`, or by `MODULE:NAME` (an nn.Module, or a function or class that makes one).

    MODULE is imported from the current folder or the Python path: it is the user's own code. `parameters` is a
    state_dict in a safetensors file. Raises BitfabError where any of them does not fit.
    """
    module, _, attribute = name.partition(":")
    if module == "zoo" and attribute:
        net = zoo.load(attribute)
    elif not attribute or not re.fullmatch(r"[A-Za-z_][\w.]*", module):
        raise BitfabError(f"{name}: not a network; give MODULE:NAME, or zoo:{', zoo:'.join(zoo.NETWORKS)}")
    else:
        net = _imported(module, attribute)
    if parameters is not None:
        _load_parameters(net, parameters)
    return net.eval()


def foldings(texts: list[str]) -> dict[str, Folding]:
    """Foldings written LAYER=PExSIMD, such as conv1=8x4."""
    result = {}
    for text in texts:
        match = re.fullmatch(r"(\w+)=(\d+)x(\d+)", text)
        if match is None or int(match[2]) == 0 or int(match[3]) == 0:
            raise BitfabError(f"--fold {text}: write LAYER=PExSIMD, such as conv1=8x4")
        result[match[1]] = Folding(int(match[2]), int(match[3]))
    return result


def random_codes(graph: Graph, count: int) -> NDArray[np.generic]:
    """Uniformly random integers of the graph's input, always the same."""
    value = graph.inputs[0]
    return np.random.default_rng(0).integers(value.low, value.high + 1, (count, *value.shape))


def choice(kind: type[_Choice], text: str, option: str) -> _Choice:
    """The member of that name; BitfabError lists all."""
    try:
        return kind(text)
    except ValueError:
        raise BitfabError(f"{option} {text}: choose one of {', '.join(kind)}") from None


def identifier(name: str) -> str:
    """A name made fit for RTL modules and files: letters, digits and underscores, a letter first."""
    word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()
    return word if word[:1].isalpha() else f"net_{word}"


def _imported(module: str, attribute: str) -> nn.Module:
    sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise BitfabError(f"{module}: cannot be imported ({error}); run bitfab where Python finds it") from error
    except AttributeError:
        raise BitfabError(
            f"{module}: has no {attribute}; name a module's network or a function that makes it"
        ) from None
    finally:
        sys.path.pop(0)
    net = found if isinstance(found, nn.Module) else found()
    if not isinstance(net, nn.Module):
        raise BitfabError(f"{module}:{attribute}: gives a {type(net).__name__}; a torch.nn.Module is needed")
    return net


def _load_parameters(net: nn.Module, path: Path) -> None:
    try:
        net.load_state_dict(safetensors.torch.load_file(path))
    except FileNotFoundError:
        raise BitfabError(f"{path}: no such file; save the state_dict with safetensors.torch.save_file") from None
    except safetensors.SafetensorError as error:
        raise BitfabError(f"{path}: is no safetensors file ({error})") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise BitfabError(f"{path}: does not fit the network: {reason}") from error
