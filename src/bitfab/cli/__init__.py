"""The command line: `bitfab demo | quantize | debug | train | estimate | build | inspect | export | parts`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bitfab.cli.app import app
from bitfab.cli.graphs import export, inspect
from bitfab.cli.hardware import build, demo, estimate, parts
from bitfab.cli.networks import debug, quantize, train
from bitfab.errors import BitfabError
from bitfab.terminal import fail

__all__ = ["app", "main"]

USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it

for command in (demo, quantize, debug, train, estimate, build, inspect, export, parts):
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, by default on the process's own arguments, and exit.

    A user's error, and any failure of the file system, is one line on stderr and exit code 2, never a traceback.
    """
    try:
        app(arguments, prog_name="bitfab")
    except BitfabError as error:
        fail(str(error), USER_ERROR)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        fail(f"{place}{error.strerror or error}; free space, or choose another place", USER_ERROR)
    except MemoryError:
        fail("not enough memory; give fewer or smaller inputs", USER_ERROR)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
