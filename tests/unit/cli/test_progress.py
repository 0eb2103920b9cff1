"""How far a command has come, on a terminal and elsewhere."""

from __future__ import annotations

import io

from relproxy.cli.progress import ProgressLine


class Terminal(io.StringIO):
    """A stream that is one."""

    def isatty(self) -> bool:
        return True


def test_a_file_gets_a_line_for_each_task_and_each_five_thousand() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    for done in range(250, 10_500, 250):
        line.say("listed", done, share=done / 10_000)
    line.say("compared", 500, share=None)
    line.close()
    assert stream.getvalue().splitlines() == [
        "250 listed, about 2%",
        "5250 listed, about 52%",
        "10250 listed, about 102%",
        "500 compared",
    ]


def test_a_terminal_gets_a_bar_on_one_line() -> None:
    stream = Terminal()
    line = ProgressLine(stream)
    line.say("listed", 250, share=0.5)
    line.say("asked for", 3, share=None)
    line.close()
    bar = "#" * 12 + " " * 12
    assert stream.getvalue() == f"\r[{bar}] 250 listed, about 50%\x1b[K\r3 asked for\x1b[K\n"


def test_nothing_is_left_on_a_terminal_that_was_told_nothing() -> None:
    stream = Terminal()
    ProgressLine(stream).close()
    assert stream.getvalue() == ""
