"""A saved plan in a virtual environment with exactly numpy and llvmlite: `make engine-alone`.

Installs both from the package index (or pip's cache) in the releases of this environment, so it is not a test; the
test of the same name in `test_files` hides every other package instead.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tests.engine.numbers import graph_with_numbers

from luthier.arch.presets import get
from luthier.engine import compile

SRC = Path(__file__).parents[2] / "src"
PACKAGES = ("numpy", "llvmlite")
PROGRAM = """
import sys
from importlib.metadata import distributions
from pathlib import Path
import numpy as np
from luthier.engine import load
folder = Path(sys.argv[1])
np.save(folder / "y.npy", load(folder / "p.plan")(np.load(folder / "x.npy")))
print(*sorted(d.metadata["Name"] for d in distributions()))
"""


def main() -> int:
    """Exit code: 0 if the plan computed the same there."""
    plan = compile(*graph_with_numbers(get("mbconv_thumbnail")), threads=2)
    x = np.random.default_rng(0).normal(size=plan.inputs[0].shape).astype(np.float32)
    with TemporaryDirectory() as name:
        folder = Path(name)
        plan.save(folder / "p.plan")
        np.save(folder / "x.npy", x)
        venv.create(folder / "env", with_pip=True)
        python = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        wanted = [f"{package}=={version(package)}" for package in PACKAGES]
        quiet = ["--quiet", "--disable-pip-version-check"]
        if subprocess.run([python, "-m", "pip", "install", *quiet, "--only-binary", ":all:", *wanted]).returncode:
            print("engine-alone: numpy and llvmlite cannot be installed here, so nothing was tried", file=sys.stderr)  # noqa: T201
            return 2
        env = {"PYTHONPATH": str(SRC), "PATH": os.environ["PATH"], "LUTHIER_CACHE": ""}
        command = [python, "-W", "error", "-c", PROGRAM, name]
        packages = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.split()
        same = np.array_equal(np.load(folder / "y.npy"), plan(x))
    others = set(packages) - {*PACKAGES, "pip", "setuptools"}
    print(f"a plan among {', '.join(packages)}: {'the same numbers' if same else 'other numbers'}")  # noqa: T201
    return 0 if same and not others else 1


if __name__ == "__main__":
    sys.exit(main())
