"""Where files of the user's are kept that belong to no project, by the rules of the system."""

import os
import sys
from pathlib import Path


def data_folder() -> Path:
    """Return the folder of what the user keeps, which need not exist."""
    return _folder("XDG_DATA_HOME", ".local/share")


def cache_folder() -> Path:
    """Return the folder of what can be made or fetched again, which need not exist."""
    return _folder("XDG_CACHE_HOME", ".cache")


def _folder(variable: str, usual: str) -> Path:
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "tomoseg"
    return Path(os.environ.get(variable) or home / usual) / "tomoseg"
