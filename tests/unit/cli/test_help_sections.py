"""The first help that a user sees, and `check` given what is no pipeline."""

import os
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.main import get_command, get_group
from typer.testing import CliRunner

from tomoseg import cli
from tomoseg.cli.app import SECTIONS, app
from tomoseg.cli.examples import EXAMPLES
from tomoseg.io.mrc import write_angles, write_mrc
from tomoseg.words import count


def test_every_command_has_a_line_in_one_section():
    named = [name for rows in SECTIONS.values() for name in rows]
    there = []
    for path in Path(cli.__file__).parent.glob("*.py"):
        module = import_module(f"tomoseg.cli.{path.stem}")
        if hasattr(module, "add_commands"):
            part = Typer()
            module.add_commands(part)
            there += get_group(part).commands
    assert sorted(named) == sorted(there)
    group = get_command(app)
    assert all(group.get_command(None, name).name == name for name in named)
    assert group.get_command(None, "nonsense") is None


def test_help_imports_neither_numpy_nor_the_stages():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tomoseg", "--help"], capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "tomoseg.cli.app" in imported
    assert not {"numpy", "h5py", "pydantic", "tomoseg.config"} & imported


def test_the_lines_fit_a_terminal_uncut():
    shown = CliRunner().invoke(app, ["--help"], terminal_width=80).stdout.splitlines()
    for rows in SECTIONS.values():
        for name, text in rows.items():
            assert any(line.split() == [name, *text.split()] for line in shown), name
    assert max(map(len, shown)) <= 80


def test_without_a_word_it_helps_and_that_is_no_error():
    done = subprocess.run([sys.executable, "-m", "tomoseg"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: ")
    assert "\nPipeline:\n  run " in done.stdout
    assert not done.stderr


def test_check_takes_an_input_alone(project, tmp_path):
    raw = tmp_path / "raw.mrc"
    write_mrc(raw, np.ones((3, 16, 16), np.float32), 1.0, kind="stack", label="")
    write_angles(raw.with_suffix(".rawtlt"), np.array([-2.0, 0.0, 2.0]))
    for path in (project, raw):
        done = CliRunner().invoke(app, ["check", str(path)])
        assert done.stdout == "default: no problems found\n", done.exception


def test_check_of_an_input_finds_wrong_parameters(project):
    done = CliRunner().invoke(app, ["check", str(project), "--set", "reconstruct.iterations=-3"])
    assert "reconstruct.iterations" in str(done.exception)


@pytest.mark.skipif(os.name == "nt", reason="descriptors are those of POSIX")
def test_doctor_shows_findings_alone():
    done = subprocess.run([sys.executable, "-m", "tomoseg", "doctor"], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 4)
    assert done.stdout.splitlines()[0].startswith("ok       tomoseg")
    assert not done.stderr


def test_one_is_singular():
    assert [count(n, "particle") for n in (0, 1, 2)] == ["0 particles", "1 particle", "2 particles"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_have_options_that_there_are(name):
    """As `--help` shows them, uncut, and with no option that the command does not take."""
    command = get_command(app).get_command(None, name)
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    shown = CliRunner().invoke(app, [name, "--help"], terminal_width=80).stdout
    for line in EXAMPLES[name]:
        program, command_name, *words = shlex.split(line)
        assert (program, command_name) == ("tomoseg", name)
        assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known
        assert f"  {line}\n" in shown


def test_stage_options_come_first_and_read_as_people_write():
    shown = CliRunner().invoke(app, ["align", "--help"], terminal_width=80).stdout
    assert shown.index("--method") < shown.index("--pipeline") < shown.index("--workers")
    assert "null" not in shown
    assert "0.33333333" not in shown
