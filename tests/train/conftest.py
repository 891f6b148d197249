"""Lets the tests of this folder import `toy_data`, which a script in a process of its own imports too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
