"""Imports run one way: the table of rooms is data, it has no cycle, and the source keeps to it."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"

# From the alphabet up.  A room imports from the layers before its own; rooms of one layer never import each other.
LAYERS = (
    ("errors",),
    ("units", "files", "intervals", "documents"),
    ("arch",),
    ("graph",),
    ("device",),
    ("schedule",),
    ("cost",),
    ("engine", "quant"),
    ("nn",),
    ("train",),
    ("search", "probe", "scene", "deploy"),
    ("job",),
    ("lab",),
    ("cli",),
)
# `report` draws frozen results.  It takes classes (never functions) from these rooms, and from the modules named
# `result` or `results` of any room up to `job`.
REPORT_DRAWS = ("arch", "graph", "cost")
REPORT_IS_USED_BY = ("job", "lab", "cli")
RESULT_MODULES = ("result", "results")
ALPHABET = ("errors", "units", "files", "intervals", "documents")


def import_table() -> dict[str, frozenset[str]]:
    """Node -> the nodes it may import.  `room.result` is a node of its own, below the room that fills it."""
    table: dict[str, frozenset[str]] = {}
    below: set[str] = set()
    for layer in LAYERS:
        for room in layer:
            if room not in ALPHABET:
                table[f"{room}.result"] = frozenset(below)
            table[room] = frozenset(below | ({f"{room}.result"} - {f"{a}.result" for a in ALPHABET}))
        below |= {name for room in layer for name in (room, f"{room}.result") if name in table}
    up_to_job = {f"{room}.result" for layer in LAYERS[: LAYERS.index(("job",)) + 1] for room in layer}
    table["report"] = frozenset({*ALPHABET, *REPORT_DRAWS} | (up_to_job & table.keys()))
    for room in REPORT_IS_USED_BY:
        table[room] |= {"report"}
    # The front door hands out names of every room; no room may come back in through it.
    table["luthier"] = frozenset(table)
    return table


@dataclass(frozen=True)
class Import:
    """One imported name: `from target import name` (name is empty for `import target`)."""

    importer: str
    line: int
    target: str
    name: str
    at_import_time: bool

    @property
    def place(self) -> str:
        """Where to look, for a message."""
        return f"{self.importer}:{self.line}"


def modules_of(src: Path) -> dict[str, Path]:
    """Dotted module name -> file."""
    found = {}
    for file in sorted((src / "luthier").rglob("*.py")):
        parts = file.relative_to(src).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports_of(src: Path) -> Iterator[Import]:
    """Every import of one of our own modules, wherever it stands: type-checking and lazy imports count too."""
    modules = modules_of(src)
    for importer, file in modules.items():
        package = importer if file.name == "__init__.py" else importer.rpartition(".")[0]
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
        deferred = _deferred_nodes(tree)
        for node in ast.walk(tree):
            now = node not in deferred
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == "luthier":
                        yield Import(importer, node.lineno, alias.name, "", now)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                    base = ".".join([*anchor, *filter(None, [node.module])])
                if base.split(".")[0] != "luthier":
                    continue
                for alias in node.names:
                    whole_module = f"{base}.{alias.name}" in modules
                    target, name = (f"{base}.{alias.name}", "") if whole_module else (base, alias.name)
                    yield Import(importer, node.lineno, target, name, now)


def _deferred_nodes(tree: ast.Module) -> set[ast.AST]:
    """What does not run when the module is imported: bodies of functions, and `if TYPE_CHECKING`."""
    roots = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    return {inner for root in roots for inner in ast.walk(root)}


def node_of(module: str) -> str:
    """`luthier.train.loop` -> `train`; `luthier.job.result` -> `job.result`; `luthier` -> `luthier`."""
    parts = module.split(".")[1:]
    if not parts:
        return "luthier"
    return f"{parts[0]}.result" if len(parts) > 1 and parts[1] in RESULT_MODULES else parts[0]


def violations(src: Path) -> list[str]:
    """One line per import that the table does not allow."""
    table = import_table()
    found = [
        f"{module}: there is no room {node_of(module)!r} in the import table"
        for module in modules_of(src)
        if node_of(module) not in table
    ]
    for step in imports_of(src):
        here, there = node_of(step.importer), node_of(step.target)
        if step.target == "luthier" and step.name == "__version__":
            continue
        if here not in table or here == there:
            continue
        if there not in table[here]:
            found.append(f"{step.place}: {here} may not import {step.target}")
        elif here == "report" and there not in ALPHABET and not step.name[:1].isupper():
            found.append(f"{step.place}: report may import only result classes, not {step.target} {step.name}".rstrip())
    return found


def module_cycle(src: Path) -> list[str]:
    """The modules of one import cycle at import time, or nothing."""
    graph: dict[str, set[str]] = {module: set() for module in modules_of(src)}
    for step in imports_of(src):
        if step.at_import_time and step.target in graph and (step.target, step.name) != ("luthier", "__version__"):
            graph[step.importer].add(step.target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def plant(tmp_path: Path, **files: str) -> Path:
    """A small source tree: `arch__bad="import x"` writes luthier/arch/bad.py."""
    (tmp_path / "luthier").mkdir()
    (tmp_path / "luthier" / "__init__.py").write_text('__version__ = "0"\n')
    for name, text in files.items():
        file = tmp_path / "luthier" / (name.replace("__", "/") + ".py")
        file.parent.mkdir(exist_ok=True)
        (file.parent / "__init__.py").touch()
        file.write_text(text + "\n")
    return tmp_path


def test_the_table_has_no_cycle() -> None:
    order = list(graphlib.TopologicalSorter(import_table()).static_order())
    assert order[0] == "errors"
    assert order[-1] == "luthier"
    assert order.index("report") < order.index("job") < order.index("cli")


def test_a_table_with_a_cycle_is_noticed() -> None:
    table = {**import_table(), "arch": frozenset({"errors", "train"})}
    with pytest.raises(graphlib.CycleError, match="in a cycle"):
        list(graphlib.TopologicalSorter(table).static_order())


def test_every_import_is_in_the_table() -> None:
    assert violations(SRC) == []


def test_modules_do_not_import_each_other_in_a_ring() -> None:
    assert module_cycle(SRC) == []


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"arch__bad": "from luthier.train import loop"}, "arch may not import luthier.train"),
        ({"arch__bad": "def f():\n    import luthier.nn.build"}, "arch may not import luthier.nn.build"),
        ({"arch__bad": "from ..graph import op", "graph__op": ""}, "arch may not import luthier.graph.op"),
        ({"search__bad": "from luthier.probe import gates"}, "search may not import luthier.probe"),
        ({"errors": "from luthier.units import parse"}, "errors may not import luthier.units"),
        ({"train__bad": "from luthier.report import html"}, "train may not import luthier.report"),
        ({"train__bad": "from luthier import fit"}, "train may not import luthier"),
        ({"report__bad": "from luthier.job.fit import Fit"}, "report may not import luthier.job.fit"),
        ({"report__bad": "from luthier.cost.macs import count"}, "report may import only result classes"),
        ({"report__bad": "from luthier.cost import macs", "cost__macs": ""}, "report may import only result classes"),
        ({"job__result": "from luthier.job import fit", "job__fit": ""}, "job.result may not import luthier.job.fit"),
        ({"utils__bad": ""}, "there is no room 'utils'"),
    ],
)
def test_a_planted_bad_import_is_found(tmp_path: Path, files: dict[str, str], complaint: str) -> None:
    assert complaint in "\n".join(violations(plant(tmp_path, **files)))


def test_good_imports_pass(tmp_path: Path) -> None:
    src = plant(
        tmp_path,
        arch__network="from luthier.errors import SpecError\nfrom .block import Block",
        job__fit="from luthier import __version__\nfrom luthier.report.html import write\nfrom .result import Fit",
        job__result="from luthier.arch.network import Network\nfrom luthier.train.result import Curve",
        report__html="from luthier.job.result import Fit\nfrom luthier.units import show",
    )
    assert violations(src) == []
    assert module_cycle(src) == []


def test_a_planted_ring_is_found(tmp_path: Path) -> None:
    src = plant(tmp_path, arch__a="from luthier.arch.b import x", arch__b="from luthier.arch import a")
    assert {"luthier.arch.a", "luthier.arch.b"} <= set(module_cycle(src))


def test_a_lazy_import_makes_no_ring(tmp_path: Path) -> None:
    src = plant(tmp_path, arch__a="from luthier.arch.b import x", arch__b="def f():\n    from luthier.arch import a")
    assert module_cycle(src) == []
