"""Send images to a network on a ULX3S over its USB serial port and print what it answers: one class an image.

    python examples/ulx3s/host.py /dev/ttyUSB0 build/digits/board/framing.json images.npy

images.npy: (N, *shape), the integers of the graph's input (its shape is in framing.json). With
`--graph digits.safetensors` real numbers are quantized with the graph's own scale first. Needs no serial library: the
port is a file, set up by Python's own `termios` (Linux, macOS).
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import termios
import time
from pathlib import Path

import numpy as np

from bitfab.board import Framing
from bitfab.dtypes import IntArray
from bitfab.errors import BitfabError

PATIENCE_S = 2.0  # without a byte of the answer


class Line:
    """A serial port: 8 data bits, no parity, 1 stop bit, no flow control, bytes as they are."""

    def __init__(self, path: str, baud: int) -> None:
        speed = getattr(termios, f"B{baud}", None)
        if speed is None:
            raise BitfabError(f"{baud} baud: this system's serial ports have no such rate; build the board for another")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_NOCTTY)
            settings = termios.tcgetattr(self._file)
        except (OSError, termios.error) as error:
            raise BitfabError(
                f"{path}: cannot be used as a serial port ({error}); give one such as /dev/ttyUSB0"
            ) from error
        control = settings[6]
        control[termios.VMIN], control[termios.VTIME] = 0, 0
        mode = termios.CS8 | termios.CREAD | termios.CLOCAL
        termios.tcsetattr(self._file, termios.TCSANOW, [0, 0, mode, 0, speed, speed, control])
        termios.tcflush(self._file, termios.TCIOFLUSH)

    def reset(self) -> None:
        """A break: the board forgets what it was doing."""
        termios.tcsendbreak(self._file, 0)
        time.sleep(0.05)
        termios.tcflush(self._file, termios.TCIFLUSH)

    def ask(self, frame: bytes, answer_bytes: int) -> bytes:
        """Send a frame and wait for the answer; BitfabError where it does not come."""
        while frame:
            frame = frame[os.write(self._file, frame) :]
        answer = b""
        while len(answer) < answer_bytes:
            if not select.select([self._file], [], [], PATIENCE_S)[0]:
                raise BitfabError(
                    f"{len(answer)} of {answer_bytes} bytes came back: check the cable, the port and its rate"
                )
            answer += os.read(self._file, answer_bytes - len(answer))
        return answer


def images_of(path: Path, graph: Path | None) -> IntArray:
    images = np.load(path, allow_pickle=False)
    if graph is None and np.issubdtype(images.dtype, np.integer):
        return images
    if graph is None:
        raise BitfabError(f"{path}: real numbers; give --graph too, which says what their integers are")
    from bitfab.flow import as_integers
    from bitfab.ir.serialize import load

    return as_integers(load(graph), images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", help="such as /dev/ttyUSB0")
    parser.add_argument("framing", type=Path, help="board/framing.json of the build")
    parser.add_argument("images", type=Path, help="a .npy file, (N, *shape)")
    parser.add_argument("--graph", type=Path, help="the quantized network, .safetensors, to quantize real numbers with")
    arguments = parser.parse_args()
    framing = Framing.from_json(arguments.framing.read_text(encoding="utf-8"))
    images = images_of(arguments.images, arguments.graph)
    line = Line(arguments.port, framing.baud)
    line.reset()
    start = time.perf_counter()
    for image in images:
        answer = framing.output.decode(line.ask(framing.input.encode(image), framing.output.frame_bytes))
        print(int(answer.reshape(-1)[0]) if answer.size == 1 else int(answer.reshape(-1).argmax()), flush=True)
    seconds = time.perf_counter() - start
    print(f"{len(images)} images in {seconds:.2f} s at {framing.baud} baud", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except (BitfabError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
