from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_demo_tells_its_story_to_the_end(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "lab.demo", "--home", str(tmp_path / "demo")]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("\nThe story holds.\n")
