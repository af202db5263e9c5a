"""Folders for the user's files that belong to no project, by the conventions of the operating system."""

import os
import sys
from pathlib import Path


def data_folder() -> Path:
    """Return the folder of files to keep, which need not exist."""
    return _folder("XDG_DATA_HOME", ".local/share")


def cache_folder() -> Path:
    """Return the folder of files that can be made or downloaded again, which need not exist."""
    return _folder("XDG_CACHE_HOME", ".cache")


def home_folder() -> Path:
    """Return the user's home folder; where there is none, a path under which nothing is and nothing can be kept."""
    try:
        return Path.home()
    except RuntimeError:  # a user without an entry, as in a container, and without $HOME
        return Path(os.devnull)


def _folder(variable: str, usual: str) -> Path:
    home = home_folder()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "tomoseg"
    return Path(os.environ.get(variable) or home / usual) / "tomoseg"
