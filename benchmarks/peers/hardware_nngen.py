"""NNgen: the same network, folded, as Verilog with its testbench for Icarus; and what its own emulator computes.

    python hardware_nngen.py NETWORK.npz FOLDER FRAMES

Runs in an environment of its own, with NNgen. NETWORK.npz: see hardware_da4ml.py; unsigned bytes become int8, as NNgen
has them: inputs minus 128 (which the first bias makes up for), codes after a ReLU halved, and with them the next bias.
Scales of channels are its `scale` of 8 bits, a power of two each. Two inputs by two outputs are multiplied at once.
FOLDER gets nngen.v and testbench.v (module `test`), which computes the first FRAMES one after the other and prints the
cycles of each, and SAME or DIFFERENT for every output, beside the emulator's.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import nngen as ng
import numpy as np
import veriloggen.thread as vthread
from veriloggen import Module, Not, Seq, simulation
from veriloggen.types import axi

PARALLEL = {"par_ich": 2, "par_och": 2}
WIDTH = 32  # bits of its memory port
FRAME_BYTES = 4096  # from one frame's input to the next one's


def variable(name, values, dtype):
    made = ng.variable(dtype=dtype, shape=values.shape, name=name)
    made.set_value(values)
    return made


def network(stored):
    """The output and input of the network in NNgen's operators."""
    shape = stored["x"].shape[1:]
    if len(shape) == 3:
        shape = (*shape[1:], shape[0])
    entry = ng.placeholder(dtype=ng.int8, shape=(1, *shape), name="frame")
    value, count = entry, int(stored["layers"])
    for i in range(count):
        weight, bias = stored[f"weight{i}"].astype(np.int64), stored[f"bias{i}"].astype(np.int64)
        shift = stored[f"shift{i}"].astype(np.int64) + (i == 0)
        last, whole = i == count - 1, int(shift.max())
        bias = bias + 128 * weight.reshape(len(weight), -1).sum(axis=1) if i == 0 else bias // 2
        common = {
            "bias": variable(f"bias{i}", bias, ng.int32),
            "scale": variable(f"scale{i}", 2 ** (whole - shift), ng.int8),
            "rshift_out": whole,
            "act_func": None if last else ng.relu,
            "dtype": ng.int8,
            "sum_dtype": ng.int32,
        }
        if weight.ndim == 4:
            kernel = variable(f"weight{i}", weight.transpose(0, 2, 3, 1), ng.int8)
            value = ng.conv2d(value, kernel, strides=(1, 1, 1, 1), padding="VALID", **common)
        else:
            if len(value.shape) == 4:  # (1, height, width, channels)
                _, *pixels, channels = value.shape
                weight = weight.reshape(-1, channels, *pixels).transpose(0, 2, 3, 1).reshape(len(weight), -1)
                value = ng.reshape(value, [1, weight.shape[1]])
            value = ng.matmul(value, variable(f"weight{i}", weight, ng.int8), transposed_b=True, **common)
        value.attribute(**PARALLEL)
        if stored[f"pool{i}"]:
            value = ng.max_pool_serial(value, ksize=(1, 2, 2, 1), strides=(1, 2, 2, 1))
    return value, entry


def rounded(address):
    return -(-address // FRAME_BYTES) * FRAME_BYTES


def testbench(hardware, exit_, entry, x, expected):
    """Runs the frames one after the other, each from an address of its own, and compares all outputs."""
    parameters = ng.export_ndarray([exit_], 64)
    variables = -(-(entry.addr + entry.memory_size) // 64) * 64
    frames = rounded(variables + len(parameters))
    checks = frames + FRAME_BYTES * len(x)
    temporary = checks + FRAME_BYTES * len(x)
    image = np.zeros([(temporary + (1 << 20)) * 8 // WIDTH], dtype=np.int64)
    axi.set_memory(image, parameters, WIDTH, 8, variables)
    for i in range(len(x)):
        axi.set_memory(image, x[i], WIDTH, 8, frames + FRAME_BYTES * i, WIDTH // 8)
        axi.set_memory(image, expected[i], WIDTH, 8, checks + FRAME_BYTES * i, WIDTH // 8)

    m = Module("test")
    m.copy_params(hardware)
    ports = m.copy_sim_ports(hardware)
    clk, resetn = ports["CLK"], ports["RESETN"]
    rst = m.Wire("RST")
    rst.assign(Not(resetn))
    options = {"memimg": image, "memimg_name": "memory.out", "memimg_datawidth": WIDTH}
    memory = axi.AxiMemoryModel(m, "memory", clk, rst, datawidth=WIDTH, **options)
    memory.connect(ports, "maxi")
    control = vthread.AXIMLite(m, "_saxi", clk, rst, noio=True)
    control.connect(ports, "saxi")
    timer = m.Reg("time_counter", 32, initval=0)
    Seq(m, "seq", clk, rst)(timer.inc())
    words, results, total = int(entry.memory_size) * 8 // WIDTH, expected.shape[1], len(x)
    source, sink = int(entry.addr), int(exit_.addr)

    def run():
        for _ in range(100):
            pass
        ng.sim.set_global_addrs(control, temporary)
        for frame in range(total):
            for i in range(words):
                memory.write_word(i, source, memory.read_word(i, frames + frame * FRAME_BYTES, WIDTH), WIDTH)
            start = timer.value
            ng.sim.start(control)
            ng.sim.wait(control)
            # veriloggen makes hardware of this function's syntax tree, and of formats it knows this one alone.
            print("CYCLES %d" % (timer.value - start))  # noqa: UP031 (compiled to Verilog)
            for i in range(results):
                found = memory.read_word(i, sink, 8)
                wanted = memory.read_word(i, checks + frame * FRAME_BYTES, 8)
                if found == wanted:
                    print("SAME")
                else:
                    print("DIFFERENT %d: %d instead of %d" % (frame, found, wanted))  # noqa: UP031 (likewise)
        print("DONE")
        vthread.finish()

    vthread.Thread(m, "th_ctrl", clk, rst, run).start()
    m.Instance(hardware, "uut", params=m.connect_params(hardware), ports=m.connect_ports(hardware))
    simulation.setup_clock(m, clk, hperiod=5)
    simulation.setup_reset(m, resetn, m.make_reset(), period=100, polarity="low")
    return m.to_verilog()


def main() -> None:
    stored, folder, frames = np.load(sys.argv[1]), Path(sys.argv[2]).resolve(), int(sys.argv[3])
    exit_, entry = network(stored)
    x = stored["x"][:frames].astype(np.int64) - 128
    if x.ndim == 4:
        x = x.transpose(0, 2, 3, 1)
    hardware = ng.to_veriloggen([exit_], "nngen", silent=True, config={"maxi_datawidth": WIDTH})
    (folder / "nngen.v").write_text(hardware.to_verilog())
    expected = np.stack([ng.eval([exit_], frame=frame[None])[0].ravel() for frame in x])
    np.save(folder / "y.npy", expected)
    os.chdir(folder)  # where the testbench's memory image goes
    (folder / "testbench.v").write_text(testbench(hardware, exit_, entry, x, expected))
    print(json.dumps({"frames": len(x), "outputs": int(expected.size)}))


if __name__ == "__main__":
    main()
