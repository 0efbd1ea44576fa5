"""Running a tool: lines, log, time limit, failure."""

import os
import sys
import time
from pathlib import Path

import pytest

from bitfab.errors import BitfabError
from bitfab.tools.process import (
    MissingToolError,
    ToolError,
    find_package,
    find_program,
    output_folder,
    run_tool,
    telling_lines,
)


def run_python(program: str, directory: Path, **options: object) -> list[str]:
    keywords = {"tool": "snake", "task": "slithering", "log": directory / "logs" / "snake.log", "time_limit": 20}
    return run_tool([sys.executable, "-c", program], directory=directory, **{**keywords, **options})


def alive(pid: int) -> bool:
    """Whether a process runs; a killed one that nobody has waited for yet does not."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_lines_are_returned_logged_and_streamed(tmp_path: Path) -> None:
    seen: list[str] = []
    program = "import os, sys; print(os.getcwd()); print(os.environ['COLOUR'], file=sys.stderr)"
    lines = run_python(program, tmp_path, environment={"COLOUR": "grün"}, on_line=seen.append)
    assert sorted(lines) == sorted([str(tmp_path), "grün"])
    assert seen == lines
    assert (tmp_path / "logs" / "snake.log").read_text(encoding="utf-8").splitlines() == lines


def test_failure_shows_the_last_lines_and_the_log(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        run_python("print(*range(20), sep='\\n'); raise SystemExit(3)", tmp_path)
    first, *shown = str(caught.value).splitlines()
    assert first == f"snake: slithering: failed with exit code 3; the whole log: {tmp_path / 'logs' / 'snake.log'}"
    assert shown == [f"  {number}" for number in range(15, 20)]
    assert len(caught.value.lines) == 20
    assert caught.value.log.is_file()


def test_death_by_signal_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"ended by signal SIGKILL \(out of memory\?\)"):
        run_python("import os; os.kill(os.getpid(), 9)", tmp_path)


def test_time_limit_kills_the_whole_group(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    start = time.monotonic()
    with pytest.raises(ToolError, match="stopped at the time limit of 2 s") as caught:
        run_python(program, tmp_path, time_limit=2)
    assert time.monotonic() - start < 15
    grandchild = int(caught.value.lines[0])
    deadline = time.monotonic() + 5
    while alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(grandchild)


def test_an_exception_of_the_callback_stops_the_tool(tmp_path: Path) -> None:
    pids: list[int] = []

    def stop(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_python("import os, time; print(os.getpid(), flush=True); time.sleep(60)", tmp_path, on_line=stop)
    assert not alive(pids[0])


def test_output_that_is_no_text_does_not_stop_the_run(tmp_path: Path) -> None:
    assert run_python("import sys; sys.stdout.buffer.write(b'a\\xffb\\n')", tmp_path) == ["a\ufffdb"]


def test_errors_come_before_warnings_before_last_lines() -> None:
    assert telling_lines(["a", "%Warning-WIDTH: b", "c", "%Error: d", "e"]) == ["%Error: d", "e"]
    lint = ["a", "%Warning-WIDTH: b", "c", "%Error: Exiting due to 1 warning(s)"]
    assert telling_lines(lint) == lint[1:]
    assert telling_lines(["x.sv:25: ERROR: no file", "", "y"]) == ["x.sv:25: ERROR: no file", "y"]
    assert telling_lines(["", "last"]) == ["last"]


def test_missing_program_and_package_say_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(MissingToolError, match=r"no-such-program: not on PATH.*apt install some-package"):
        find_program("no-such-program", "some-package")
    with pytest.raises(MissingToolError, match=r"some-dist: not installed: run `pip install some-dist`"):
        find_package("no_such_module", "some-dist")
    with pytest.raises(ToolError, match="cannot run"):
        run_tool([tmp_path / "absent"], tool="x", task="y", directory=tmp_path, log=tmp_path / "x.log", time_limit=1)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_unwritable_log_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file, no folder")
    with pytest.raises(BitfabError, match=r"^snake: slithering: cannot write .*logs"):
        run_python("print(1)", tmp_path)


def test_output_folder_that_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    assert output_folder(tmp_path / "new" / "folder").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(BitfabError, match=r"file/under: cannot make this output folder: .*: choose another$"):
        output_folder(tmp_path / "file" / "under")
