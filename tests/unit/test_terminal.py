"""The door to the terminal: what it shows is printable and has the lines it was given; a lost terminal does no harm."""

import errno
import io
import json
import logging
import os
import sys
import traceback

import pytest

from tomoseg import terminal
from tomoseg.errors import InputError, StageFailed, printable
from tomoseg.progress import Bar, Plain, make_progress

# What a terminal obeys, what breaks or turns a line, and what is no character.
ODD = {
    "escape": "\x1b[2J",
    "8-bit control": "\x9b31m",
    "backspace": "\b\b",
    "delete": "\x7f",
    "right to left override": "\u202etxt.exe",
    "isolate": "\u2066x\u2069",
    "zero width": "a\u200bb",
    "byte order mark": "\ufeff",
    "lone surrogate": "\udcff",
    "no character": "\uffff",
    "title": "\x1b]0;owned\x07",
}
BREAKS = ["\n", "\r", "\r\n", "\v", "\f", "\x85", "\u2028", "\u2029", "\x1c"]


class Lost(io.TextIOBase):
    """A stream that cannot be written to."""

    encoding = "utf-8"

    def __init__(self, number):
        self.number = number

    def write(self, _text):
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_what_a_terminal_would_obey_is_shown_as_a_question_mark(capsys, text):
    terminal.show(f"before {text} after")
    terminal.tell(f"before {text} after")
    out, err = capsys.readouterr()
    assert out == err
    assert out.endswith(" after\n")
    assert "?" in out
    assert out.removesuffix("\n").isprintable()


@pytest.mark.parametrize("text", BREAKS, ids=ascii)
def test_text_from_a_file_adds_no_line(capsys, text):
    terminal.tell(f"the name{text}tomoseg: all is well")
    error = capsys.readouterr().err
    assert error.splitlines() == [error.removesuffix("\n")]
    assert error.startswith("the name ")


def test_ordinary_text_is_shown_as_it_is(capsys):
    text = "γ‑Al₂O₃ – größe 5 µm, 100 % ± ☃ 漢字"
    terminal.show(text, 3, None)
    assert capsys.readouterr().out == f"{text}\n3\nNone\n"
    assert printable("a\u00a0b\u2009c") == "a b c"


def test_a_document_keeps_its_lines_and_is_the_same_afterwards(capsys):
    content = {name: [text, *BREAKS] for name, text in ODD.items()}
    terminal.show_document(json.dumps(content, indent=1))
    out = capsys.readouterr().out
    assert json.loads(out) == content
    assert all(line.isprintable() for line in out.split("\n"))


def test_the_lines_of_several_problems_are_those_of_the_program(capsys):
    terminal.tell(*InputError.of(["no such file a\nb", "none"]).lines)
    assert capsys.readouterr().err == "2 problems:\n  - no such file a b\n  - none\n"
    assert StageFailed("one\ntwo").lines == ("one\ntwo",)
    assert str(InputError.of(["a", "b"])) == "2 problems:\n  - a\n  - b"


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EBADF])
def test_messages_to_a_terminal_that_is_lost_are_dropped(monkeypatch, number):
    monkeypatch.setattr(sys, "stderr", Lost(number))
    terminal.tell("nobody reads this")
    Plain().message("nor this")
    Bar().message("nor that")
    assert make_progress("auto").__class__ is Plain


def test_results_that_cannot_be_written_are_an_error_except_on_a_terminal_that_is_lost(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Lost(errno.EIO))
    terminal.show("result")
    for number in (errno.ENOSPC, errno.EPIPE):
        monkeypatch.setattr(sys, "stdout", Lost(number))
        with pytest.raises(OSError, match="standard output") as caught:
            terminal.show("result")
        assert caught.value.errno == number


def test_a_pipe_that_nobody_reads_is_turned_away_from(monkeypatch):
    """Python would fail at its end over what it could not write."""
    read, write = os.pipe()
    with open(write, "w", encoding="utf-8") as pipe:  # noqa: PTH123 - a number, not a path
        monkeypatch.setattr(sys, "stdout", pipe)
        os.close(read)
        with pytest.raises(BrokenPipeError):
            terminal.show("result")
        terminal.show("more of it")
        pipe.write("and more")


@pytest.mark.parametrize("closed", [False, True])
def test_streams_that_are_not_there(monkeypatch, closed):
    for name in ("stdout", "stderr"):
        stream = io.StringIO() if closed else None
        if closed:
            stream.close()
        monkeypatch.setattr(sys, name, stream)
    terminal.show("result")
    terminal.tell("message")
    assert terminal.is_terminal() is False
    with terminal.guarded():
        print("from a library", file=sys.stderr)
        print("from a library")
        assert sys.stdout.isatty() is False
        bar = Bar()
        bar.start("work", 2)
        bar.advance(1)
        bar.finish()


def test_what_others_write_goes_through_the_door_too(capsys):
    with terminal.guarded():
        print("library\x1b[2J", file=sys.stderr)
        sys.stderr.write("two\nlines\x07\n")
        traceback.print_exception(ValueError("odd\x1b]0;name\x07"))
        logging.getLogger("tomoseg.test").warning("log\x9b2J")
        print("out\u202e")
    out, err = capsys.readouterr()
    assert out == "out?\n"
    assert err.startswith("library?[2J\ntwo\nlines?\n")
    assert "ValueError: odd?]0;name?\n" in err
    assert "\x9b" not in err
    assert isinstance(sys.stderr, terminal.Stream) is False


def test_a_bar_names_its_task_without_commands_and_markup(capsys):
    bar = Bar()
    bar.start("meshing [bold]a[/bold]\x1b[2J\n:smile:", 3)
    bar.advance(3)
    bar.message("class [red]b[/red]\x1b]0;x\x07 :smile:")
    bar.finish()
    err = capsys.readouterr().err
    assert "class [red]b[/red]?]0;x? :smile:" in err
    assert "\x1b[2J" not in err
    assert "\x07" not in err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_characters_that_an_encoding_lacks(monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="strict"))
    terminal.show("größe γ")
    said = raw.getvalue().decode(encoding)
    assert said == {"ascii": "gr??e ?\n", "latin-1": "größe ?\n", "utf-8": "größe γ\n"}[encoding]
    assert terminal.can_show("größe γ") is (encoding == "utf-8")
