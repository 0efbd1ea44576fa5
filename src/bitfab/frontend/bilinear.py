"""Bilinear upsampling by whole factors in the float normal form."""

from __future__ import annotations

from torch import nn

from bitfab.frontend.calls import Call, Steps, Unsupported


class Bilinear(nn.Upsample):
    """Each pixel becomes factor[0] x factor[1] pixels, interpolated; pixels are squares (align_corners=False)."""

    def __init__(self, factor: tuple[int, int]) -> None:
        super().__init__(scale_factor=tuple(map(float, factor)), mode="bilinear", align_corners=False)
        self.factor = factor


def upsample(call: Call) -> Steps:
    """The layer of a call of `aten.upsample_bilinear2d`."""
    before, after = call.input_shape[2:], call.shape[2:]
    if call["align_corners"]:
        raise Unsupported("align_corners=True has other weights for every pixel: use align_corners=False")
    if any(new % old for old, new in zip(before, after, strict=True)):
        raise Unsupported(f"from {before} to {after}: only by whole factors")
    return [Bilinear((after[0] // before[0], after[1] // before[1]))]
