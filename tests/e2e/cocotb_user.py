"""Runs inside the simulator, by cocotb: drives a design with registers over AXI, as its user would."""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge, with_timeout
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiResp,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)
from cocotbext.axi.axil_channels import AxiLiteARTransaction, AxiLiteAWTransaction, AxiLiteWTransaction

CONTROL, LATENCY, UNDER_WAY = 0x0C, 0x20, 0x24
BEGUN, FINISHED, BUSY, INPUT_WAITS, OUTPUT_WAITS = range(0x40, 0x68, 8)
ENABLE, CLEAR = 1, 2
LIMIT_US = 2000


@dataclass(frozen=True)
class Job:
    """What the test outside has written down: frames as bytes, and what the first registers must say."""

    frames: list[str]
    answers: list[str]
    registers: dict[str, int]

    @classmethod
    def load(cls) -> Job:
        return cls(**json.loads(Path(os.environ["COCOTB_JOB"]).read_text()))


@dataclass
class Seen:
    """Counts of what passes at the streams, taken in the middle of each cycle."""

    dut: Any
    words: tuple[int, int]
    counts: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(BEGUN, OUTPUT_WAITS + 8, 8), 0))
    begun_at: list[int] = field(default_factory=list)
    ended_at: list[int] = field(default_factory=list)
    outside: int = 0  # transfers where none may be

    async def watch(self) -> None:
        cycle = ins = outs = 0
        while True:
            await FallingEdge(self.dut.aclk)
            cycle += 1
            if not self.dut.aresetn.value:
                continue
            put, taken = self.dut.s_axis_tvalid.value, self.dut.s_axis_tready.value
            given, wanted = self.dut.m_axis_tvalid.value, self.dut.m_axis_tready.value
            if put and taken:
                if ins % self.words[0] == 0:
                    self.begun_at.append(cycle)
                ins += 1
            self.counts[BUSY] += len(self.begun_at) > len(self.ended_at)
            if given and wanted:
                outs += 1
                if outs % self.words[1] == 0:
                    self.ended_at.append(cycle)
                self.outside += bool(self.dut.m_axis_tlast.value) != (outs % self.words[1] == 0)
            self.counts[BEGUN], self.counts[FINISHED] = len(self.begun_at), len(self.ended_at)
            self.counts[INPUT_WAITS] += bool(put and not taken)
            self.counts[OUTPUT_WAITS] += bool(given and not wanted)


@dataclass(frozen=True)
class Bench:
    """The design out of reset, with a master at each of its ports."""

    dut: Any
    job: Job
    source: Any
    sink: Any
    master: Any
    seen: Seen

    async def read(self, address: int, size: int = 4) -> int:
        answer = await self.master.read(address, size)
        assert answer.resp == AxiResp.OKAY
        return int.from_bytes(answer.data, "little")

    async def send(self, frames: list[str]) -> None:
        for frame in frames:
            await self.source.send(AxiStreamFrame(bytes.fromhex(frame)))

    async def receive(self) -> str:
        frame = await with_timeout(self.sink.recv(), LIMIT_US, "us")
        return bytes(frame.tdata).hex()


async def start(dut: Any) -> Bench:
    job = Job.load()
    cocotb.start_soon(Clock(dut.aclk, 10, "ns").start())
    dut.aresetn.value = 0
    dut.s_axil_awprot.value = 0
    dut.s_axil_arprot.value = 0
    await ClockCycles(dut.aclk, 3)  # masters read what is known by now
    ends = {"clock": dut.aclk, "reset": dut.aresetn, "reset_active_level": False}
    source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis"), **ends)
    sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis"), **ends)
    master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), **ends)
    await ClockCycles(dut.aclk, 3)
    dut.aresetn.value = 1
    await RisingEdge(dut.aclk)
    seen = Seen(dut, (job.registers["0x10"], job.registers["0x14"]))
    cocotb.start_soon(seen.watch())
    return Bench(dut, job, source, sink, master, seen)


def pauses(share: float, seed: int) -> Iterator[bool]:
    """Pause or not, cycle by cycle."""
    chance = random.Random(seed)
    return (chance.random() < share for _ in itertools.count())


def slow_registers(bench: Bench, share: float) -> None:
    """Pauses in all five channels: addresses and data come in any order, and answers have to wait."""
    writes, reads = bench.master.write_if, bench.master.read_if
    channels = (writes.aw_channel, writes.w_channel, writes.b_channel, reads.ar_channel, reads.r_channel)
    for seed, channel in enumerate(channels):
        channel.set_pause_generator(pauses(share, 100 + seed))


@cocotb.test()
async def every_frame_is_answered_and_counted(dut: Any) -> None:
    bench = await start(dut)
    bench.source.set_pause_generator(pauses(0.4, 1))
    bench.sink.set_pause_generator(pauses(0.4, 2))
    await bench.send(bench.job.frames)
    for number, expected in enumerate(bench.job.answers):
        assert await bench.receive() == expected, f"frame {number}"
    await ClockCycles(dut.aclk, 20)
    assert bench.sink.empty() and not bench.seen.outside
    assert await bench.read(UNDER_WAY) == 0
    frames = len(bench.job.frames)
    assert bench.seen.counts[BEGUN] == bench.seen.counts[FINISHED] == frames
    assert min(bench.seen.counts.values()) > 0
    for address, count in bench.seen.counts.items():
        assert await bench.read(address, 8) == count, hex(address)


@cocotb.test()
async def a_frame_alone_takes_what_latency_says(dut: Any) -> None:
    bench = await start(dut)
    for frame, answer in list(zip(bench.job.frames, bench.job.answers, strict=True))[:2]:
        await bench.send([frame])
        assert await bench.receive() == answer
        taken = bench.seen.ended_at[-1] - bench.seen.begun_at[-1] + 1
        assert await bench.read(LATENCY) == taken
    assert await bench.read(BUSY, 8) == bench.seen.counts[BUSY]
    assert (await bench.master.write(CONTROL, bytes([ENABLE | CLEAR, 0, 0, 0]))).resp == AxiResp.OKAY
    for address in bench.seen.counts:
        assert await bench.read(address, 8) == 0
    assert await bench.read(LATENCY) == taken and await bench.read(CONTROL) == ENABLE


@cocotb.test()
async def registers_say_what_the_design_is(dut: Any) -> None:
    bench = await start(dut)
    slow_registers(bench, 0.5)
    for address, value in bench.job.registers.items():
        assert await bench.read(int(address, 16)) == value, address
    for address in range(0x100):
        known = address % 4 == 0 and (address < 0x28 or 0x40 <= address < 0x68)
        assert await _read_response(bench, address) == (AxiResp.OKAY if known else AxiResp.SLVERR), hex(address)
        if address != CONTROL:
            assert await _write_response(bench, address) == AxiResp.SLVERR, hex(address)
    assert await bench.read(CONTROL) == ENABLE
    # Many at once: each gets its own answer.
    answers = [bench.master.init_read(int(address, 16), 4) for address in bench.job.registers for _ in range(3)]
    for answer, value in zip(answers, (value for value in bench.job.registers.values() for _ in range(3)), strict=True):
        await answer.wait()
        assert int.from_bytes(answer.data.data, "little") == value


async def _read_response(bench: Bench, address: int) -> Any:
    """By the channels themselves: the master of cocotbext-axi aligns its addresses."""
    channel = bench.master.read_if
    await channel.ar_channel.send(AxiLiteARTransaction(araddr=address, arprot=0))
    return AxiResp((await with_timeout(channel.r_channel.recv(), LIMIT_US, "us")).rresp)


async def _write_response(bench: Bench, address: int) -> Any:
    channel = bench.master.write_if
    await channel.w_channel.send(AxiLiteWTransaction(wdata=0, wstrb=0xF))
    await channel.aw_channel.send(AxiLiteAWTransaction(awaddr=address, awprot=0))
    return AxiResp((await with_timeout(channel.b_channel.recv(), LIMIT_US, "us")).bresp)


@cocotb.test()
async def without_enable_nothing_begins(dut: Any) -> None:
    bench = await start(dut)
    frames, answers = bench.job.frames[:4], bench.job.answers[:4]
    await bench.send(frames)
    while not bench.seen.begun_at:
        await RisingEdge(dut.aclk)
    await bench.master.write(CONTROL, bytes(4))
    begun = len(bench.seen.begun_at)
    assert begun < len(frames)
    for answer in answers[:begun]:  # what has begun is finished
        assert await bench.receive() == answer
    await ClockCycles(dut.aclk, 200)
    assert len(bench.seen.begun_at) == begun and bench.sink.empty()
    assert await bench.read(CONTROL) == 0 and await bench.read(UNDER_WAY) == 0
    await bench.master.write(CONTROL, bytes([ENABLE, 0, 0, 0]))
    for answer in answers[begun:]:
        assert await bench.receive() == answer
