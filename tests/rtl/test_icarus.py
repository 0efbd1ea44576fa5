"""Every block in the subset of SystemVerilog that Icarus Verilog 11 takes, without a warning."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.rtl.harness import RTL
from tests.rtl.test_stream_blocks import LEGAL, Parameters

SOURCES = sorted(RTL.glob("*/bf_*.sv"))
PHASES: Parameters = {"UpHeight": 2, "UpWidth": 2, "PhaseHeight": 1, "PhaseWidth": 1, "OutHeight": 4, "OutWidth": 4}
PADDED: Parameters = {"Height": 3, "Width": 3, "KernelHeight": 3, "KernelWidth": 3, "OriginTop": -1, "OriginLeft": -1}
IMAGE: Parameters = {**PADDED, "OutHeight": 3, "OutWidth": 3, "Rows": 4}
ENGINE: Parameters = {"Simd": 3, "Pe": 2, "InSigned": 1}
FURTHER: list[tuple[str, Parameters]] = [
    ("conv2d", {**IMAGE, **ENGINE, "Words": 2, "Groups": 2}),
    ("conv2d", {**PHASES, **ENGINE, "Height": 2, "Width": 2, "KernelHeight": 2, "KernelWidth": 2}),
    ("pool2d", {"Words": 2, "Lanes": 2}),
    ("pool", {"Sum": 1, "Signed": 1, "OutBits": 10}),
    ("window", {**IMAGE, "PadValue": 255}),
]


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
