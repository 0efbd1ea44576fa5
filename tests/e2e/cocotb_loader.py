"""Runs inside the simulator, by cocotb: loads other weights over AXI-Lite into an idle design, and into one at work."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiResp

from tests.e2e.cocotb_user import CONTROL, ENABLE, UNDER_WAY, Bench, pauses, slow_registers, start

LOAD_DATA, LOAD_ADDRESS = 0x28, 0x2C
Writes = list[tuple[int, int]]


async def write(bench: Bench, address: int, data: int) -> Any:
    return (await bench.master.write(address, data.to_bytes(4, "little"))).resp


async def load(bench: Bench, writes: Writes) -> None:
    """As the design's README says."""
    assert await write(bench, CONTROL, 0) == AxiResp.OKAY
    while await bench.read(UNDER_WAY):
        pass
    for address, data in writes:
        assert await write(bench, address, data) == AxiResp.OKAY
    assert await write(bench, CONTROL, ENABLE) == AxiResp.OKAY


async def answered(bench: Bench, answers: list[str]) -> None:
    await bench.send(bench.job.frames)
    for number, expected in enumerate(answers):
        assert await bench.receive() == expected, f"frame {number}"


def loads() -> tuple[Writes, Writes, list[str]]:
    """The writes for the other graph, those for the design's own, and what the other one answers."""
    loads = json.loads(Path(os.environ["COCOTB_JOB"]).with_name("loads.json").read_text())
    return loads["other"], loads["own"], loads["answers"]


@cocotb.test()
async def other_weights_are_loaded_and_taken_back(dut: Any) -> None:
    bench, (other, own, answers) = await start(dut), loads()
    bench.source.set_pause_generator(pauses(0.3, 1))
    bench.sink.set_pause_generator(pauses(0.3, 2))
    await answered(bench, bench.job.answers)
    slow_registers(bench, 0.3)
    await load(bench, other)
    await answered(bench, answers)
    await load(bench, own)
    await answered(bench, bench.job.answers)


@cocotb.test()
async def a_reset_keeps_what_was_loaded(dut: Any) -> None:
    bench, (other, own, answers) = await start(dut), loads()
    await load(bench, other)
    dut.aresetn.value = 0
    await ClockCycles(dut.aclk, 3)
    dut.aresetn.value = 1
    await answered(bench, answers)
    await load(bench, own)


async def refused(bench: Bench, writes: Writes) -> None:
    for address, data in writes:
        assert await write(bench, address, data) == (AxiResp.SLVERR if address == LOAD_ADDRESS else AxiResp.OKAY)


@cocotb.test()
async def nothing_is_loaded_at_work(dut: Any) -> None:
    bench, (other, _, _) = await start(dut), loads()
    await refused(bench, other)  # the input is open
    bench.sink.pause = True
    await bench.send(bench.job.frames[:1])
    await ClockCycles(dut.aclk, 500)
    await write(bench, CONTROL, 0)
    assert await bench.read(UNDER_WAY) == 1 and bench.source.empty()
    await refused(bench, other)  # a frame is within
    bench.sink.pause = False
    assert await bench.receive() == bench.job.answers[0]
    assert await write(bench, LOAD_ADDRESS, 1 << 20) == AxiResp.SLVERR
    for address in (LOAD_DATA, LOAD_ADDRESS):
        assert (await bench.master.read(address, 4)).resp == AxiResp.SLVERR
    await write(bench, CONTROL, ENABLE)
    await answered(bench, bench.job.answers)
