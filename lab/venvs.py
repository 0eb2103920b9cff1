"""Virtual environments for the real parts: made once, found again by what was asked of them.

Run as a module it makes all of them.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOM = Path(__file__).resolve().parent
ENVIRONMENTS = ROOM.parent / ".venvs"
_AT_A_TIME = 2


def ensure(name: str) -> Path:
    """Return the directory of an environment that has `lab/requirements/<name>.txt` installed.

    The directory's name carries a digest of the requirements and of the interpreter, so a changed
    pin makes a new environment and an unchanged one costs nothing. Safe to call from several
    processes at the same time. Raises `subprocess.CalledProcessError` if pip fails.
    """
    requirements = ROOM / "requirements" / f"{name}.txt"
    # Not by the interpreter's path: one environment has it under several names.
    asked = requirements.read_bytes() + sys.version.encode() + sys.prefix.encode()
    home = ENVIRONMENTS / f"{name}-{hashlib.sha256(asked).hexdigest()[:12]}"
    done = home / ".installed"
    if done.exists():
        return home
    ENVIRONMENTS.mkdir(exist_ok=True)
    with (ENVIRONMENTS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _install(home, requirements)
            done.touch()
    return home


def made_once(environment: Path, name: str, make: Callable[[], Path]) -> Path:
    """Return a file that is the same for all who use an environment, made by the first of them.

    `make` returns a file whose content it is to have: an empty database, say, that takes an
    environment's own tools many seconds.
    """
    file = environment / name
    with (environment / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            half = environment / f"{name}.half"
            shutil.copyfile(make(), half)
            half.rename(file)
    return file


def _install(home: Path, requirements: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    venv.create(home, with_pip=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-qq"]
    subprocess.run([*pip, "install", "-r", str(requirements)], check=True)


def ensure_all() -> None:
    """Make every environment there is: two at a time, because pip mostly waits."""
    names = [file.stem for file in sorted((ROOM / "requirements").glob("*.txt"))]
    with ThreadPoolExecutor(_AT_A_TIME) as workers:
        list(workers.map(ensure, names))


if __name__ == "__main__":
    ensure_all()
