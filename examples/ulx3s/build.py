"""The digits network as a bitstream for a ULX3S: quantized, proved over the simulated serial line, placed, packed.

python examples/ulx3s/build.py build/ulx3s
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from bitfab import applications
from bitfab.applications import Application
from bitfab.board import bitstream
from bitfab.flow import as_integers
from bitfab.hw import generate
from bitfab.hw.design import Target
from bitfab.ir.serialize import save
from bitfab.output import whole_folder
from bitfab.quant import Recipe, quantize_with_reference

PROVED = 10  # images sent over the simulated line


def main(folder: Path) -> None:
    digits = applications.load("digits")
    assert isinstance(digits, Application)
    graph = quantize_with_reference(digits.network, [digits.calibration], Recipe(), "digits").graph
    images = as_integers(graph, digits.tests)
    design = generate(graph, Target("ecp5-85k", clock_mhz=25), digits.parallelism)
    with whole_folder(folder) as draft:
        found = bitstream(design, images[:PROVED], draft, "ulx3s")
        save(graph, draft / "digits.safetensors")
        np.save(draft / "images.npy", images)
        size = found.path.stat().st_size
    print(f"{found.values_compared} values of {found.frames} images over the line, 0 mismatches")
    print(f"{found.placed.used.lut} LUTs, {found.placed.fmax_mhz:.1f} MHz (the board runs at 25)")
    print(f"{folder / 'board' / found.path.name}: {size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("build/ulx3s"))
