"""The main job, measured: the qubit U-Net from float to a placed ECP5 design, and the paper-sized net's accuracy."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from common import ROOT, Check, main

from bitfab import applications, flow
from bitfab.backend import Stages
from bitfab.ir.graph import Graph
from bitfab.quant import quantize
from bitfab.report import Accuracy, Report
from bitfab.tools import verilator
from bitfab.tools.process import ToolError


def measure(arguments: argparse.Namespace) -> list[Check]:
    folder: Path = arguments.output
    stages = Stages(lambda stage, done: print(f"{stage} ...", flush=True) if done == 0 else None)
    report = flow.demo("qubit", folder, stages=stages)
    return [*_accuracy(report), *_proof(report, folder), *_hardware(report), *_paper_sized()]


def _accuracy(report: Report) -> list[Check]:
    accuracy = report.accuracy
    assert accuracy.float is not None and accuracy.integer is not None
    return [
        Check("IoU, float", accuracy.float),
        Check("IoU, INT8", accuracy.integer),
        Check.at_most("IoU drop of INT8, points", 100 * (accuracy.float - accuracy.integer), 0.5),
        Check.at_least("parameters, float32 bytes over integer bytes", _ratio(report), 3.9),
    ]


def _ratio(report: Report) -> float:
    return report.size_bytes.float / report.size_bytes.integer


def _proof(report: Report, folder: Path) -> list[Check]:
    return [
        Check.at_least("whole images simulated", report.verification.images, 20),
        Check("values compared", report.verification.values_compared),
        Check.at_most("mismatches, outputs and every layer", report.verification.mismatches, 0),
        Check.at_least("mismatches found after one expected bit is flipped", _corrupted(folder), 1),
    ]


def _corrupted(folder: Path) -> int:
    """Run the same simulator with one bit of the expected output changed, and put the file back."""
    file = folder / "sim" / "output.mem"
    kept = folder / "sim" / "output.kept"
    shutil.copy(file, kept)
    words = file.read_text().split("\n")
    words[100] = f"{int(words[100], 16) ^ 1:0{len(words[100])}x}"
    file.write_text("\n".join(words))
    try:
        verilator.run(folder / "sim" / "obj" / "sim_tb", folder / "rtl", arguments=["+images=1"])
    except ToolError as error:
        return sum(line.startswith("MISMATCH") for line in error.lines)
    finally:
        kept.replace(file)
    return 0


def _hardware(report: Report) -> list[Check]:
    timing, resources = report.timing, report.resources
    assert timing.fmax_mhz is not None and timing.mac_utilization is not None
    figures = {
        "cycles an image": timing.cycles_per_image,
        "latency, us": timing.latency_us,
        "images a second": timing.images_per_second,
        "GOPS": timing.gops,
        "LUT": resources.lut,
        "FF": resources.ff,
        "DSP": resources.dsp,
        "BRAM": resources.bram,
    }
    return [
        Check.at_least(f"Fmax on {resources.part}, MHz", timing.fmax_mhz, 80),
        Check.at_least("MAC utilization of the slowest layer", timing.mac_utilization, 0.85),
        *[Check(name, float(value)) for name, value in figures.items() if value is not None],
        Check("wall time of all stages, s", sum(report.wall_seconds.values())),
    ]


def _paper_sized() -> list[Check]:
    application = applications.load("qubit-447")
    graph: Graph = quantize(application.network, application.calibration, name="qubit_447")
    real = flow.float_outputs(application.network, application.tests)
    accuracy: Accuracy = application.judge(real, flow.integer_outputs(graph, application.tests))
    assert accuracy.pixel_accuracy_float is not None and accuracy.pixel_accuracy_integer is not None
    drop = 100 * (accuracy.pixel_accuracy_float - accuracy.pixel_accuracy_integer)
    return [
        Check("447 parameters: pixel accuracy, float", accuracy.pixel_accuracy_float),
        Check.at_most("447 parameters: drop of pixel accuracy, points", drop, 0.2),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The qubit U-Net, from float to a placed design")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "qubit", help="the design's folder")
    main(measure, parser)
