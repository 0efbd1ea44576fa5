"""Quantization-aware training by two processes on loopback (gloo), started by torchrun as a user would."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

import bitfab as bf
from bitfab.data import digits

WORKER = Path(__file__).parent.parent / "distributed_worker.py"


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run(
        [*command, f"--master-port={port}", WORKER, tmp_path],
        check=True,
        timeout=300,
        env=environment,
        capture_output=True,
    )
    files = [(tmp_path / f"{rank}.safetensors").read_bytes() for rank in (0, 1)]
    assert files[0] == files[1]
    graph, data = bf.load(tmp_path / "0.safetensors"), digits.load()
    found = bf.run_fast(graph, bf.as_integers(graph, data.test_images))
    assert (np.asarray(found).argmax(1) == data.test_labels).mean() > 0.93
