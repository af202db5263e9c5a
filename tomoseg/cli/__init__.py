"""The command line: parse, call, render, exit code."""

from tomoseg.cli.app import main

__all__ = ["main"]
