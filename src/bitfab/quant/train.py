"""Training a prepared network: batch norms to be frozen or measured anew, and a loop for those who need no own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitfab.errors import BitfabError
from bitfab.quant.calibrate import NO_DATA, as_batches
from bitfab.quant.fake_quant import QuantizedLayer
from bitfab.quant.simulate import Progress

FROZEN = 0.25  # the last part of the epochs, trained with frozen batch norms
TEMPERATURE = 4.0  # of distillation (Hinton et al. 2015, 1503.02531)

Loss = Callable[[Tensor, Any], Tensor]


def train(
    net: nn.Module,
    batches: Iterable[tuple[Any, Any]],
    loss: Loss,
    epochs: int,
    learning_rate: float = 1e-3,
    teacher: nn.Module | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Train a prepared network in place (AdamW, one learning-rate cycle) and return it in eval mode.

    Args:
        net: what `prepare` returned, on any device, wrapped by DistributedDataParallel or not.
        batches: (inputs, targets) pairs with a length, read once an epoch: a DataLoader or a list.
        loss: called as `loss(outputs, targets)`.
        epochs: the last quarter of them with the batch norms' running statistics frozen and folded in.
        learning_rate: the peak of the cycle.
        teacher: the float network, whose softened outputs count as much as the targets (`distillation`).
        progress: called as ("training", epochs done, epochs).

    Raises:
        BitfabError: no data, items that are no pairs, a loss that is NaN or infinite.
    """
    if not isinstance(batches, Sized) or not len(batches):
        raise BitfabError("training: no data of known length; give a DataLoader or a list of (inputs, targets) pairs")
    device = next(net.parameters()).device
    optimizer = torch.optim.AdamW((p for p in net.parameters() if p.requires_grad), learning_rate)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, epochs=epochs, steps_per_epoch=len(batches), pct_start=0.1
    )
    net.train()
    for epoch in range(epochs):
        freeze_batch_norm(net, epoch >= epochs * (1 - FROZEN))
        for position, item in enumerate(batches):
            inputs, targets = (part.to(device) for part in _pair(item, position))
            outputs = net(inputs)
            value = loss(outputs, targets)
            if teacher is not None:
                with torch.no_grad():
                    taught = teacher(inputs)
                value = (value + distillation(outputs, taught)) / 2
            if not bool(torch.isfinite(value)):
                raise BitfabError(
                    f"training: the loss is {float(value.detach())} in epoch {epoch + 1}, batch {position}; "
                    "lower the learning rate, or clean the data"
                )
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            cycle.step()
        if progress:
            progress("training", epoch + 1, epochs)
    return net.eval()


def distillation(outputs: Tensor, taught: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Cross entropy between the softened class probabilities of a teacher's logits (N, classes) and the network's.

    Multiplied by the temperature's square, so that its gradients weigh as those of hard targets do (Hinton et al. 2015,
    1503.02531, section 2).
    """
    soft = F.softmax(taught / temperature, dim=1)
    return F.cross_entropy(outputs / temperature, soft) * temperature**2


def freeze_batch_norm(net: nn.Module, frozen: bool = True) -> None:
    """From now on train a prepared network with its batch norms' running statistics folded in, as in inference."""
    for layer in _quantized_layers(net):
        layer.frozen = frozen


@torch.no_grad()
def reestimate_batch_norm(net: nn.Module, batches: Iterable[Any]) -> None:
    """Set the running statistics of a prepared network's batch norms to those of the data under quantization.

    Running averages lag behind weights that jump between few codes (Nagel et al. 2022, 2203.11086).
    `batches` as for `quantize`; means over all of them. Raises BitfabError where there are none.
    """
    norms: list[Any] = [layer.norm for layer in _quantized_layers(net) if layer.norm is not None]
    seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {norm: [] for norm in norms}

    def watch(norm: nn.Module, args: tuple[Tensor]) -> None:
        axes = [axis for axis in range(args[0].ndim) if axis != 1]
        seen[norm].append((args[0].mean(axes), args[0].var(axes, correction=0)))

    momenta, training = [norm.momentum for norm in norms], net.training
    handles = [norm.register_forward_pre_hook(watch) for norm in norms]
    frozen = [layer.frozen for layer in _quantized_layers(net)]
    freeze_batch_norm(net.train(), False)
    try:
        for norm in norms:
            norm.momentum = 0.0  # the running statistics, which scale the weights, stay until the end
        count = sum(len(net(batch)) for batch in as_batches(batches, net))
    finally:
        net.train(training)
        for norm, momentum, handle in zip(norms, momenta, handles, strict=True):
            norm.momentum = momentum
            handle.remove()
        for layer, was in zip(_quantized_layers(net), frozen, strict=True):
            layer.frozen = was
    if not count:
        raise BitfabError(NO_DATA)
    for norm, found in seen.items():
        means, variances = (torch.stack(part) for part in zip(*found, strict=True))
        mean = means.mean(0)
        norm.running_mean.copy_(mean)  # type: ignore[operator]
        norm.running_var.copy_((variances + means.square()).mean(0) - mean.square())  # type: ignore[operator]


def _quantized_layers(net: nn.Module) -> list[QuantizedLayer]:
    return [layer for layer in net.modules() if isinstance(layer, QuantizedLayer)]


def _pair(item: Any, position: int) -> tuple[Tensor, Tensor]:
    if isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(part, Tensor) for part in item):
        return item[0], item[1]
    raise BitfabError(f"training: batch {position} is no pair (inputs, targets) of tensors; are the labels missing?")
