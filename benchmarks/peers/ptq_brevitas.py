"""Runs in the peer's environment: Brevitas' post-training quantization of the network and photos of ptq.py.

ptq_brevitas.py NETWORK.npz PHOTOS.npy CALIBRATION LOGITS.npy

Then one line of JSON with a setting on stdin: {"weights": bits, "bias_correction": true or false}. The quantized
network's output for the photos not used for calibration goes to LOGITS.npy.

The steps are those of Brevitas' own example for ImageNet (imagenet_classification/ptq) with its `fx` back end, which
quantizes the whole graph, additions included, as an integer graph needs (`layerwise` leaves them in float), and the
example's defaults: weights per channel, by least squared error; affine activations, by the 99.999th percentile; biases
of 32 bits. That back end puts a QuantReLU without upper end in the place of each ReLU6; it gets its end back here (as
it comes, W8A8 has a top-1 of 57.7 %).
"""

import contextlib
import json
import resource
import sys
import time
import warnings

import numpy as np
import torch
from torch import fx, nn

warnings.simplefilter("ignore")
with contextlib.redirect_stdout(sys.stderr):
    from brevitas.graph.quantize import preprocess_for_quantize
    from brevitas.nn import QuantReLU
    from brevitas_examples.imagenet_classification.ptq import ptq_common

BATCH = 20
PERCENTILE = 99.999  # the example's default


def model(stored):
    """The network as a module; padding that is the same on all sides becomes the convolution's own."""
    root, graph, values, pads = nn.Module(), fx.Graph(), {}, {}
    values[str(stored["input"])] = graph.placeholder("x")
    for entry in json.loads(str(stored["nodes"])):
        name, kind = entry["name"], entry["kind"]
        inputs = [values[i] for i in entry["inputs"]]
        if kind == "Add":
            values[name] = graph.call_function(torch.add, tuple(inputs))
            continue
        top, left, bottom, right = entry.get("pads", (0, 0, 0, 0))
        if kind == "ZeroPad2d" and top == left == bottom == right:
            values[name], pads[name] = inputs[0], top
            continue
        if kind == "Conv2d":
            weight = torch.from_numpy(stored[f"{name}.weight"])
            padding, groups = top + pads.get(entry["inputs"][0], 0), entry["group"]
            sizes = (weight.shape[1] * groups, len(weight), tuple(weight.shape[2:]))
            layer = nn.Conv2d(*sizes, tuple(entry["strides"]), padding, groups=groups)
        elif kind == "Linear":
            layer = nn.Linear(*stored[f"{name}.weight"].shape[::-1])
        elif kind == "ZeroPad2d":
            layer = nn.ZeroPad2d((left, right, top, bottom))
        else:
            layer = {"ReLU6": nn.ReLU6, "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d(1), "Flatten": nn.Flatten}[
                kind
            ]()
        if kind in ("Conv2d", "Linear"):
            layer.load_state_dict({part: torch.from_numpy(stored[f"{name}.{part}"]) for part in ("weight", "bias")})
        root.add_module(name, layer)
        values[name] = graph.call_module(name, tuple(inputs))
    graph.output(values[name])
    return fx.GraphModule(root, graph).eval()


def batches(images):
    for i in range(0, len(images), BATCH):
        part = ((images[i : i + BATCH].astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2)
        yield torch.from_numpy(part.copy()).contiguous(memory_format=torch.channels_last), None


class Loader:
    """The calibration photos, as often as they are asked for."""

    def __init__(self, images):
        self.images = images

    def __iter__(self):
        return batches(self.images)


def quantized(stored, setting, loader):
    net = preprocess_for_quantize(model(stored), relu6_to_relu=False)
    net = ptq_common.quantize_model(
        net,
        backend="fx",
        weight_bit_width=setting["weights"],
        act_bit_width=8,
        bias_bit_width=32,
        weight_quant_granularity="per_channel",
        act_quant_percentile=PERCENTILE,
        act_quant_type="asym",
        scale_factor_type="float_scale",
        quant_format="int",
        weight_narrow_range=True,
        weight_param_method="mse",
        act_param_method="stats",
    )
    for module in net.modules():
        if isinstance(module, QuantReLU):  # all of them were ReLU6
            module.act_quant.fused_activation_quant_proxy.activation_impl = nn.ReLU6()
    ptq_common.calibrate(loader, net)
    if setting["bias_correction"]:
        ptq_common.apply_bias_correction(loader, net)
    return net.eval()


def main():
    network, photos, calibration, target = sys.argv[1:]
    stored, images, count = dict(np.load(network)), np.load(photos, mmap_mode="r"), int(calibration)
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr), torch.no_grad():
            start = time.perf_counter()
            net = quantized(stored, json.loads(line), Loader(images[:count]))
            seconds = time.perf_counter() - start
            np.save(target, torch.cat([torch.as_tensor(net(batch)) for batch, _ in batches(images[count:])]).numpy())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "mebibytes": peak}), flush=True)


main()
