"""Runs in the peer's environment: Brevitas' QAT of a network of qat.py, from the same float weights, data and batches.

qat_brevitas.py NETWORK STATE.npz DATA.npz     then lines of JSON: {"weights", "activations", "ends", "seed", ...}
"""

import copy
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import brevitas.nn as qnn
import numpy as np
import torch
from brevitas.graph.calibrate import calibration_mode
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloatMSE, Uint8ActPerTensorFloat
from torch import nn

from benchmarks.models import NETWORKS
from benchmarks.models.resnet import Block
from benchmarks.models.training import Data, Schedule, accuracy, right, train

BORDER_BITS = 8  # of the input, of pooled features, of what a residual block adds, and of the logits
CALIBRATION = 256


def quantized(net, weights, activations, ends):
    """The network with Brevitas' layers: learned scales, per channel for weights, and every layer's output as codes."""
    layers = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    bits = {name: ends if ends and name in (layers[0], layers[-1]) else weights for name in layers}
    for name, module in list(net.named_modules()):
        new = None
        if isinstance(module, nn.Conv2d):
            shape = (module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding)
            new = qnn.QuantConv2d(*shape, bias=module.bias is not None, **weight_arguments(bits[name]))
        elif isinstance(module, nn.Linear):
            shape = (module.in_features, module.out_features)
            new = qnn.QuantLinear(*shape, bias=module.bias is not None, **weight_arguments(bits[name]))
        elif isinstance(module, nn.ReLU):
            new = qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, bit_width=activations)
        elif isinstance(module, Block):
            module.body.append(signed(BORDER_BITS))
            if len(module.shortcut):
                module.shortcut.append(signed(BORDER_BITS))
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            new = nn.Sequential(module, qnn.QuantIdentity(act_quant=Uint8ActPerTensorFloat, bit_width=BORDER_BITS))
        if new is not None:
            if isinstance(module, nn.Conv2d | nn.Linear):
                new.load_state_dict(module.state_dict(), strict=False)
            net.set_submodule(name, new)
    return nn.Sequential(signed(BORDER_BITS), net, signed(BORDER_BITS))


def weight_arguments(bits):
    """Scales that start at least squared error and are learned: as ours, and of Brevitas' the best at 2 bits."""
    return {
        "weight_quant": Int8WeightPerChannelFloatMSE,
        "weight_scaling_impl_type": "parameter_from_stats",
        "weight_bit_width": bits,
        "weight_narrow_range": True,
    }


def signed(bits):
    return qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=bits)


def answer(task, real, data):
    """Top-1 before training in percent, which test inputs are right after it, and its CPU seconds."""
    teacher = copy.deepcopy(real).eval()
    torch.manual_seed(task["seed"])
    net = quantized(copy.deepcopy(real), task["weights"], task["activations"], task["ends"])
    with torch.no_grad(), calibration_mode(net.eval()):
        net(data.train[:CALIBRATION])
    before = accuracy(net, data)
    start = time.process_time()
    train(net, data, Schedule(**task["schedule"]), task["seed"], teacher)
    seconds = time.process_time() - start
    return {"calibrated": before, "right": right(net, data).tolist(), "seconds": seconds}


def main():
    torch.set_num_threads(1)
    network, state, stored = sys.argv[1], np.load(sys.argv[2]), np.load(sys.argv[3])
    real = NETWORKS[network]()
    real.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    tensors = [torch.from_numpy(stored[key]) for key in ("train", "labels", "test", "truth")]
    data = Data(*tensors, mirrors=bool(stored["mirrors"]))
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), real, data)), flush=True)


main()
