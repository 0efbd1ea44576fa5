"""What the command line shows: progress, tables and lines, on a terminal or in a file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from bitfab.quant import Diagnosis

PLAIN_WIDTH = 1000  # columns where the output is no terminal: nothing is cut off


class StageBars:
    """Progress: one moving line a stage on a terminal, else a line of text when a stage has ended."""

    def __init__(self) -> None:
        from bitfab import backend

        columns = (SpinnerColumn(), TextColumn("{task.description:<22}"), BarColumn(bar_width=24), TimeElapsedColumn())
        terminal = console()
        self._progress = Progress(*columns, console=terminal, disable=not terminal.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self.watch = backend.Stages(self._update)

    def __enter__(self) -> StageBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _update(self, stage: str, done: float) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=None)
        self._progress.update(self._tasks[stage], total=1.0 if done else None, completed=done)
        if self._progress.disable and stage in self.watch.seconds:
            say(f"{stage}: {self.watch.seconds[stage]:.1f} s")


class Steps:
    """Progress of steps that count: a moving line for each on a terminal, else a line of text for each trial."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description:<46}"), BarColumn(bar_width=24), TimeElapsedColumn())
        terminal = console()
        self._progress = Progress(*columns, console=terminal, disable=not terminal.is_terminal, transient=True)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Steps:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, step: str, done: int, total: int) -> None:
        """`step` may be "kind: which one"; steps of a kind share a line."""
        kind, _, one = step.partition(": ")
        if self._progress.disable and one:
            say(f"{step} ({done + 1} of {total})")
        if kind not in self._tasks:
            self._tasks[kind] = self._progress.add_task(step)
        self._progress.update(self._tasks[kind], description=step, completed=done, total=total, visible=done < total)


def show_diagnosis(found: Diagnosis, metric: str) -> None:
    """The trials, the layers, and what they say."""
    both = any(trial.metric != trial.sqnr_db for trial in found.trials)  # else the metric is the SQNR itself
    tried = Table("tried", title="What was tried", title_justify="left")
    layers = Table("layer", title="Each layer alone, the worst first", title_justify="left")
    for table, columns in ((tried, (metric, "of the gap")), (layers, (metric,))):
        for column in (*columns, *(["output SQNR, dB"] if both else [])):
            table.add_column(column, justify="right")
    for trial in found.trials:
        share = "" if trial.closes is None else f"{trial.closes:.0%}"
        cells = f"{trial.metric:.4f}", share, *([f"{trial.sqnr_db:.1f}"] if both else [])
        tried.add_row(trial.name, *cells, style="bold" if trial.name == found.remedy else "")
    for layer in found.layers:
        cells = f"{layer.metric:.4f}", *([f"{layer.sqnr_db:.1f}"] if both else [])
        layers.add_row(Text(layer.layer), *cells, style="bold" if layer.layer == found.worst_layer else "")
    for table in (tried, layers):
        console().print(table)
    for finding in found.findings:
        say(finding)


def console(stderr: bool = False) -> Console:
    """The terminal; a file or a pipe gets lines of any length."""
    terminal = Console(stderr=stderr, highlight=False)
    return terminal if terminal.is_terminal else Console(stderr=stderr, highlight=False, width=PLAIN_WIDTH)


def say(text: str) -> None:
    """A line as it is: no markup, no wrapping."""
    console().print(text, markup=False, soft_wrap=True)


def fail(message: str, code: int) -> NoReturn:
    """Show an error and exit; what a file smuggles into the message cannot steer the terminal."""
    text = "".join(c if c.isprintable() or c == "\n" else "?" for c in message)
    console(stderr=True).print(Text("error: ", "bold red").append(text, "default not bold"), soft_wrap=True)
    sys.exit(code)
