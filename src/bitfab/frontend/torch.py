"""Capture a torch module: export it, then rebuild it as the float normal form.

`torch.export` captures real models where `symbolic_trace` fails, but gives flat aten calls that refuse `train()`; so
its graph is only read, and a fresh graph of ordinary modules is built from it.
"""

from __future__ import annotations

import copy
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from bitfab.errors import BitfabError
from bitfab.frontend import affine
from bitfab.frontend.aten import SUPPORTED, rebuild_call
from bitfab.frontend.calls import Affine, Call, Function, Unsupported
from bitfab.frontend.lone_norms import give_layers
from bitfab.frontend.one_dimension import as_images
from bitfab.frontend.pointwise import recognize

__all__ = ["capture"]

_STACK_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in .*(?:\n[ \t]+(?P<code>.*))?')
MAX_VALUES = 1 << 27  # of any tensor, for each image: half a GiB of float32
_LEAVES = ("torch.nn.", "bitfab.frontend.onnx.")  # modules whose own place names their calls
_TORCH_FILES = str(Path(torch.__file__).parent)


def capture(net: nn.Module, example: Tensor) -> fx.GraphModule:
    """The float normal form of `net` in eval mode: standard modules, each called once, and a few named functions.

    The modules are `Conv2d, ConvTranspose2d, BatchNorm1d/2d, Linear`, activations, `MaxPool2d, AvgPool2d,
    AdaptiveAvgPool2d(1), Upsample, ZeroPad2d, Flatten`, `ConstantPad2d` of -inf before a max pool, and `Pointwise`, any
    other function of each value by itself; the functions are `torch.add, torch.mul, torch.cat, torch.reshape,
    torch.permute, operator.getitem` of a slice along one axis, `torch.argmax`, and `top_k.top_k`. Each is named after
    its place in the user's module (`encoder.0.conv`; a functional call after the module that makes it:
    `encoder.0.relu`; a second call of the same layer gets its own copy and a number); a node's `meta["source"]` holds
    that name. Sums and products with constants become part of the layer before. Parameters are copies. The result takes
    any batch size, and can be trained.

    Args:
        net: a module of one tensor argument; it is left as it is, its mode included. A normal form is copied.
        example: a batch (N, C, H, W) or (N, F), N >= 1; only its shape, dtype and device matter.

    Raises:
        BitfabError: the module cannot be exported, or holds an operation that has no normal form.
    """
    if isinstance(net, fx.GraphModule) and all("source" in n.meta for n in net.graph.nodes if n.op != "output"):
        return copy.deepcopy(net).eval()
    exported = _export(net, torch.cat([example[:1], example[:1]]))
    return give_layers(as_images(_Rebuilder(exported, type(net).__name__).rebuild(), example))


def _export(net: nn.Module, pair: Tensor) -> ExportedProgram:
    """The functional aten graph of a batch of two: enough to tell the batch axis, for axes of size 1 are special."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with _quiet(), torch.no_grad():
            # An empty table decomposes nothing but makes in-place calls functional.
            return torch.export.export(net, (pair,)).run_decompositions({})
    except BitfabError:
        raise
    except Exception as error:
        raise BitfabError(
            f"{type(net).__name__}: torch.export cannot capture it on an input of shape {tuple(pair.shape[1:])} "
            f"({_essence(error)}); check the input's shape, and keep control flow independent of the data"
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training


def _essence(error: Exception) -> str:
    """The first line of torch's message, and the user's line that it names."""
    text = str(error).strip() or type(error).__name__
    guarded = type(error).__name__.startswith("GuardOnDataDependent")
    first = "its control flow depends on a tensor's values" if guarded else text.splitlines()[0].rstrip(".")
    return first + _place(text)


def _place(trace: str) -> str:
    """The innermost line of the user's code in a stack trace, as ` at file:line: code`; empty where there is none."""
    frames = [frame for frame in _STACK_FRAME.finditer(trace) if not frame["file"].startswith(_TORCH_FILES)]
    if not frames:
        return ""
    code = f": {frames[-1]['code'].strip()}" if frames[-1]["code"] else ""
    return f" at {frames[-1]['file']}:{frames[-1]['line']}{code}"


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, log lines or dumped programs: whatever matters comes as an exception."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


class _Rebuilder:
    """Walks the exported graph once; what depends on no input is computed, all else becomes normal-form nodes."""

    def __init__(self, exported: ExportedProgram, name: str) -> None:
        self.exported = exported
        self.name = name
        self.graph = fx.Graph()
        self.modules: dict[str, nn.Module] = {}
        self.paths: set[str] = set()
        self.values = _constants(exported)  # exported node -> constant, or node of the new graph
        self.functions = recognize(exported.graph, self.values)
        self.readers = self._readers()

    def rebuild(self) -> fx.GraphModule:
        for node in self.exported.graph.nodes:
            if node.op == "placeholder" and node not in self.values:
                self.values[node] = self._input(node)
            elif node in self.readers and node not in self.values:
                _check_size(node, self._path(node))
                self.values[node] = self._call(node)
        self.graph.output(self._outputs())
        module = fx.GraphModule(self.modules, self.graph, class_name=self.name)
        module.recompile()
        return module.eval()

    def _readers(self) -> dict[fx.Node, int]:
        """How many nodes that the outputs depend on read each node; recognized functions read but their argument."""
        readers = dict.fromkeys(self.exported.graph.output_node().all_input_nodes, 1)
        for node in reversed(self.exported.graph.nodes):
            if node in readers and node not in self.values:
                read = [self.functions[node][0]] if node in self.functions else node.all_input_nodes
                for source in read:
                    readers[source] = readers.get(source, 0) + 1
        return readers

    def _input(self, node: fx.Node) -> fx.Node:
        made = self.graph.placeholder(node.name)
        made.meta["source"] = node.name
        self.paths.add(node.name)
        return made

    def _outputs(self) -> Any:
        found = {node.name: value for node, value in self.values.items()}
        names = self.exported.graph_signature.user_outputs
        results = [found[name] if isinstance(name, str) else None for name in names]
        if not results or not all(isinstance(result, fx.Node) for result in results):
            raise BitfabError(f"{self.name}: an output does not depend on the input; return tensors computed from it")
        return results[0] if len(results) == 1 else tuple(results)

    def _call(self, node: fx.Node) -> Any:
        path = self._path(node)
        if node in self.functions:
            start, function = self.functions[node]
            return self._append(function, [self.values[start]], path)
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: self.values[n])
        try:
            steps = rebuild_call(Call(node, args, kwargs))
        except Unsupported as unsupported:
            raise BitfabError(_complaint(node, path, unsupported)) from None
        operands = [self.values[n] for n in node.all_input_nodes if isinstance(self.values[n], fx.Node)]
        main = next((step for step in steps if _has_weights(step)), steps[0] if steps else None)
        for step in steps:
            if not isinstance(step, Affine):
                operands = [self._append(step, operands, path if step is main else f"{path}_{_label(step)}")]
            elif not self._merged(step, operands[0]):
                for part in affine.layers(step, node.meta["val"]):
                    name = path if _has_weights(part) else f"{path}_{_label(part)}"
                    operands = [self._append(part, operands, name)]
        return operands[0]

    def _merged(self, step: Affine, operand: fx.Node) -> bool:
        """Whether the step could become part of the layer whose output it alone reads."""
        layer = self.modules.get(str(operand.target)) if operand.op == "call_module" else None
        names = [known for known, value in self.values.items() if value is operand]
        alone = sum(self.readers[name] for name in names) == len(names)
        return layer is not None and alone and affine.merge(step, layer)

    def _append(self, step: nn.Module | Function, operands: list[fx.Node], path: str) -> fx.Node:
        path = self._unique(path)
        if isinstance(step, Function):
            data = (tuple(operands),) if step.packed else tuple(operands) * step.repeat
            name = path.replace(".", "_")
            made = self.graph.create_node("call_function", step.target, (*data, *step.trailing), name=name)
        else:
            self.modules[path] = step
            made = self.graph.call_module(path, tuple(operands))
        made.meta["source"] = path
        return made

    def _path(self, node: fx.Node) -> str:
        """Where the user's module calls the operation: the layer's own path, or the caller's and the operation."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path, kind = stack[-1] if stack else ("", "")
        if path and str(kind).startswith(_LEAVES):
            return path
        operation = _operation(node).rstrip("_")
        return f"{path}.{operation}" if path else operation

    def _unique(self, path: str) -> str:
        unique, number = path, 1
        while unique in self.paths:
            number += 1
            unique = f"{path}_{number}"
        self.paths.add(unique)
        return unique


def _constants(exported: ExportedProgram) -> dict[fx.Node, Any]:
    """Parameters, buffers and constant tensors, and all that is computed from them alone, by their nodes."""
    signature = exported.graph_signature
    tensors = {**exported.constants, **exported.state_dict}
    targets = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    known: dict[fx.Node, Any] = {}
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in targets:
            known[node] = tensors[targets[node.name]].detach()
        elif node.op == "call_function" and node.users and all(source in known for source in node.all_input_nodes):
            _check_size(node, str(node.name))
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: known[n])
            known[node] = node.target(*args, **kwargs)
    return known


def _check_size(node: fx.Node, path: str) -> None:
    value = node.meta.get("val")
    if isinstance(value, Tensor) and value.numel() > 2 * MAX_VALUES:  # in a batch of two
        raise BitfabError(
            f"{path}: {tuple(value.shape[1:])} values for each image, at most {MAX_VALUES:,} are supported; use "
            "smaller images"
        )


def _operation(node: fx.Node) -> str:
    target = node.target
    return target._schema.name.split("::")[-1] if isinstance(target, torch._ops.OpOverload) else str(node.name)


def _has_weights(step: nn.Module | Function | Affine) -> bool:
    return isinstance(step, nn.Module) and next(step.parameters(), None) is not None


def _label(step: nn.Module | Function) -> str:
    return (step.target if isinstance(step, Function) else type(step)).__name__.lower()


def _complaint(node: fx.Node, path: str, unsupported: Unsupported) -> str:
    place = _place(node.meta.get("stack_trace") or "")
    reason = f" ({unsupported})" if str(unsupported) else ""
    return (
        f"{path}: {_operation(node)} is not supported{place}{reason}; bitfab.quantize_mixed keeps it in float; "
        f"supported: {SUPPORTED}"
    )
