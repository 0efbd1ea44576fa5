"""Every block in the subset of SystemVerilog that Icarus Verilog 11 takes, without a warning; networks in it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bitfab.hw import generate
from bitfab.hw import testbench as benches
from bitfab.hw.design import write_files
from tests.e2e import test_binary, test_multipliers
from tests.rtl.harness import RTL
from tests.rtl.test_stream_blocks import LEGAL, Parameters
from tests.strategies import batch

SOURCES = sorted(RTL.glob("*/bf_*.sv"))
PHASES: Parameters = {"UpHeight": 2, "UpWidth": 2, "PhaseHeight": 1, "PhaseWidth": 1, "OutHeight": 4, "OutWidth": 4}
PADDED: Parameters = {"Height": 3, "Width": 3, "KernelHeight": 3, "KernelWidth": 3, "OriginTop": -1, "OriginLeft": -1}
IMAGE: Parameters = {**PADDED, "OutHeight": 3, "OutWidth": 3, "Rows": 4}
ENGINE: Parameters = {"Simd": 3, "Pe": 2, "InSigned": 1}
LOADED: Parameters = {"Loadable": 1, "LoadAddressBits": 7, "LoadBase": 64}
FURTHER: list[tuple[str, Parameters]] = [
    ("conv2d", {**IMAGE, **ENGINE, "Words": 2, "Groups": 2}),
    ("conv2d", {**PHASES, **ENGINE, "Height": 2, "Width": 2, "KernelHeight": 2, "KernelWidth": 2}),
    ("conv2d", {**IMAGE, **ENGINE, "Words": 2, "InBits": 4, "WeightBits": 4, "Multiplier": 1, "Memory": 2}),
    ("conv2d", {**IMAGE, **ENGINE, "Words": 2, **LOADED, "LoadBits": 60}),
    ("requantize", {"Words": 3, "ScaleFile": "s", **LOADED, "LoadBits": 16}),
    ("threshold", {"Words": 3, "ThresholdFile": "t", **LOADED, "LoadBits": 48}),
    ("memory", {"Depth": 5, "AddressBits": 3, "LoadAddressBits": 6, "LoadBase": 16}),
    ("registers", {"Loadable": 1, "LoadBits": 40, "LoadAddressBits": 9}),
    ("products", {**ENGINE, "InBits": 5, "WeightBits": 7, "Multiplier": 2}),
    ("products", {"InBits": 1, "InBipolar": 1, "WeightBits": 1, "Simd": 17, "Pe": 2}),
    ("products", {"InBits": 1, "InBipolar": 1, "WeightBits": 4, "Simd": 3, "Pe": 2}),
    ("products", {"InBits": 3, "WeightBits": 1, "Simd": 3, "Pe": 2}),
    ("multiply", {"InBits": 2, "WeightBits": 3, "Count": 2}),
    ("pool2d", {"Words": 2, "Lanes": 2}),
    ("pool", {"Sum": 1, "Signed": 1, "OutBits": 10}),
    ("window", {**IMAGE, "PadValue": 255}),
]
NETWORKS = {"multipliers": test_multipliers.network, "binary": test_binary.network}


@pytest.mark.parametrize(
    ("block", "parameters"), [*((source.stem.removeprefix("bf_"), {}) for source in SOURCES), *LEGAL, *FURTHER]
)
def test_icarus_elaborates(block: str, parameters: Parameters, tmp_path: Path) -> None:
    if shutil.which("iverilog") is None:
        pytest.skip("Icarus Verilog is not installed (apt install iverilog)")
    values = {name: value if isinstance(value, int) else f'"{value}"' for name, value in parameters.items()}
    overrides = [f"-Pbf_{block}.{name}={value}" for name, value in values.items()]
    run = subprocess.run(
        ["iverilog", "-g2012", "-t", "null", "-s", f"bf_{block}", *overrides, *map(str, SOURCES)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0 and not run.stdout, run.stdout + run.stderr
    complaints = [line for line in run.stderr.splitlines() if "bf_" in line]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("network", NETWORKS)
def test_icarus_simulates_every_kind_of_product(network: str, tmp_path: Path) -> None:
    """It elaborates more than it computes: of arrays of delayed words it once made X."""
    if shutil.which("iverilog") is None:
        pytest.skip("Icarus Verilog is not installed (apt install iverilog)")
    graph = NETWORKS[network]()
    design = generate(graph, folding=test_multipliers.FOLDINGS if network == "multipliers" else None)
    write_files(dict(design.files) | benches.testbench(design, [batch(graph, seed=0)[0][:2]]), tmp_path / "net")
    run = subprocess.run(
        ["make", "-C", tmp_path / "net" / "sim", "icarus"], capture_output=True, text=True, timeout=120, check=False
    )
    assert "PASS 2 images, 0 mismatches" in run.stdout, run.stdout
