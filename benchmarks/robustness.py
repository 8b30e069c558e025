"""How robust the course's digit networks are in the eyes of torchattacks' AutoAttack.

The rows are those of the experiment ``referee``, measured anew. torchattacks is not among the course's own
packages; without it this says so and measures nothing.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

from course_lib import experiments
from course_lib.experiments import referee


def main() -> None:
    """Measure and print."""
    if importlib.util.find_spec("torchattacks") is None:
        print("torchattacks is not installed (pip install torchattacks): nothing was measured")
        return
    print(f"L-infinity, eps {referee.EPS}, {referee.IMAGES} test digits, one thread")
    with tempfile.TemporaryDirectory() as folder:
        for _, _, row in experiments.run("referee", Path(folder)):
            if row:
                shares = ", ".join(f"{name} {100 * v:.1f} %" for name, v in row["result"].items())
                print(f"{row['cell']['network']:15} {shares} ({row['cpu_seconds']:.0f} CPU s)")


if __name__ == "__main__":
    main()
