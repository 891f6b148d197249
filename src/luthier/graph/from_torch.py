"""Any `torch.nn.Module` -> `Graph`, through torch.export.  torch is imported when a module is read, not before."""

from __future__ import annotations

import contextlib
import io
import logging
import operator
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from luthier.errors import GraphError, LuthierError, ShapeError
from luthier.graph.attrs import Unknown
from luthier.graph.canonical import canonical
from luthier.graph.draft import Const, Draft, UnsupportedError, unknown_op
from luthier.graph.op import DType, Graph
from luthier.graph.shapes import Shape
from luthier.graph.torch_ops import ALIASES, CHECKS, TABLE

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Array = NDArray[Any]
#: most elements that a weight computed from weights may have
MAX_COMPUTED = 1 << 28
#: ops that write over their input read it through `aten.name_`; these only hand it on
_HAND_ON = ALIASES | {"aten.view", "aten.chunk", "aten.split", "aten.slice", "aten.select", "aten.expand", "getitem"}


def from_torch(
    module: torch.nn.Module, input_shape: Sequence[int], *, lenient: bool = False
) -> tuple[Graph, dict[str, Array]]:
    """Trace a module in evaluation mode and read the trace.

    Args:
        module: takes one tensor; it is not changed.  On torch's meta device it has shapes and no values.
        input_shape: (N, C, H, W), or whatever the module takes.
        lenient: an op without meaning becomes one of kind `unknown` instead of an error.
    Returns:
        The graph, batch norms apart (see `fold_norm_into_conv`), and the values of its constants.  A constant is
        called by its key in the state dict; number types other than fp32, fp16 and bf16 are described as fp32.
    Raises:
        GraphError: the module raises, its control flow depends on data, or an op has no meaning here.
        ShapeError: an axis of `input_shape` is empty.
    Example:
        >>> import torch
        >>> gate = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 10))
        >>> graph, values = from_torch(gate, (1, 3, 8, 8))
        >>> [op.kind for op in graph.ops], sorted(values)
        (['conv', 'flatten', 'linear'], ['0.bias', '0.weight', '2.bias', '2.weight'])
    """
    graph, values, _ = with_calls(module, input_shape, lenient=lenient)
    return graph, values


def with_calls(
    module: torch.nn.Module, input_shape: Sequence[int], *, lenient: bool = False
) -> tuple[Graph, dict[str, Array], dict[str, tuple[str, ...]]]:
    """As `from_torch`, and which modules return which tensor.

    Returns:
        The graph, its constants, and tensor -> dotted paths of the modules inside that are called once and return it,
        from the outside in.  A module that is called twice, or returns what its caller computes, is not among them.
    Raises:
        GraphError, ShapeError: as `from_torch`.
    Example:
        >>> import torch
        >>> block = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
        >>> sorted(with_calls(torch.nn.Sequential(block), (1, 3, 8, 8))[2].items())
        [('0.0', ('0.0',)), ('0.1.relu', ('0', '0.1'))]
    """
    who = f"from_torch({type(module).__name__})"
    shape = tuple(int(size) for size in input_shape)
    if not shape or min(shape) < 1:
        raise ShapeError(f"{who}: every axis of the input needs at least 1 element, got {shape}")
    with _evaluating(module), _quiet():
        program = _traced(who, module, shape)
    reader = _Reader(who, program, module, lenient=lenient)
    reader.read()
    for node, paths in _returned(program.graph).items():
        value = reader.values.get(node)
        if isinstance(value, str):
            reader.draft.marks[value] = (*reader.draft.marks.get(value, ()), *paths)
    canonical(reader.draft)
    graph, values = reader.draft.finish(lenient=lenient)
    return graph, values, reader.draft.marked


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards every part in the mode that it had."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Tracing talks about its own insides, and modules print; what matters is in our message."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _traced(who: str, module: torch.nn.Module, shape: Shape) -> torch.export.ExportedProgram:
    import torch

    floats = [p for p in (*module.parameters(), *module.buffers()) if p.is_floating_point()]
    dtype, device = (floats[0].dtype, floats[0].device) if floats else (torch.float32, torch.device("cpu"))
    image = torch.zeros(shape, dtype=dtype, device=device)
    try:
        with torch.no_grad():
            program = torch.export.export(module, (image,), strict=False)
            return program.run_decompositions({}) if _writes_over_others(program.graph) else program
    except LuthierError:
        raise
    except Exception as error:  # whatever the module raises, and a dozen kinds of torch's own
        raise GraphError(f"{who}: {_why(error)}, at an input of {shape}: {_first_line(error)}") from None


def _why(error: Exception) -> str:
    from torch._dynamo.exc import UserError, UserErrorType
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    dynamic = isinstance(error, GuardOnDataDependentSymNode) or (
        isinstance(error, UserError) and error.error_type is UserErrorType.DYNAMIC_CONTROL_FLOW
    )
    return "its control flow depends on the data" if dynamic else "the module cannot be traced"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _writes_over_others(graph: torch.fx.Graph) -> bool:
    """Whether an op writes over a tensor that something else still reads, or that is part of another tensor."""
    seen: set[torch.fx.Node] = set()
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.is_mutable and _kind(node) not in ALIASES:
            (target, *_) = node.all_input_nodes
            if target.op != "call_function" or _kind(target) in _HAND_ON:
                return True
            if any(user is not node and (user not in seen or _kind(user) in _HAND_ON) for user in target.users):
                return True
        seen.add(node)
    return False


def _returned(graph: torch.fx.Graph) -> dict[torch.fx.Node, tuple[str, ...]]:
    """Nodes and the modules that return them: the only node of a call that something outside of the call reads."""
    calls: dict[str, list[torch.fx.Node]] = {}
    paths: dict[str, str] = {}
    for node in graph.nodes:
        for call, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
            calls.setdefault(call, []).append(node)
            paths[call] = _dotted(path)
    found: dict[torch.fx.Node, tuple[str, ...]] = {}
    times = Counter(paths.values())
    for call, nodes in calls.items():  # outer calls begin first
        inside, path = set(nodes), paths[call]
        read = [node for node in nodes if not inside.issuperset(node.users)]
        if path and len(read) == 1 and times[path] == 1:
            found[read[0]] = (*found.get(read[0], ()), path)
    return found


def _kind(node: torch.fx.Node) -> str:
    """`aten.conv2d` for `aten.conv2d.default`; writing over the input is the same op."""
    if node.target is operator.getitem:
        return "getitem"
    packet = getattr(node.target, "overloadpacket", None)
    if packet is None:
        return str(getattr(node.target, "__name__", node.target))
    name = str(packet)
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


class _Reader:
    """Walks the exported graph once and fills a draft."""

    def __init__(
        self, who: str, program: torch.export.ExportedProgram, module: torch.nn.Module, *, lenient: bool
    ) -> None:
        self.who, self.program, self.lenient = who, program, lenient
        self.values: dict[Any, Any] = {}
        self.weights: dict[Any, torch.Tensor] = {}  # what weights are computed from
        image = next(n for n in program.graph.nodes if n.name in program.graph_signature.user_inputs)
        self.draft = Draft(who, _dtype(image.meta["val"].dtype))
        self.trained = {name for name, _ in module.named_parameters(remove_duplicate=False)}

    def read(self) -> None:
        """Every node in order."""
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                self._outputs(node)
            elif node.op == "get_attr":
                self.values[node] = None  # a graph of its own, for an op that runs it
            else:
                raise unknown_op(self.who, node.name, node.op)

    def _placeholder(self, node: torch.fx.Node) -> None:
        signature = self.program.graph_signature
        key = signature.inputs_to_parameters.get(node.name) or signature.inputs_to_buffers.get(node.name)
        constant = signature.inputs_to_lifted_tensor_constants.get(node.name)
        if key is None and constant is None:
            self.values[node] = self.draft.input(node.name, tuple(node.meta["val"].shape))
            return
        name = str(key or constant)
        stored = self.program.state_dict.get(name)
        self._weight(node, name, stored if stored is not None else self.program.constants[name])

    def _weight(self, node: torch.fx.Node, name: str, value: torch.Tensor) -> None:
        self.weights[node] = value
        array = None if value.is_meta else _array(value)
        self.values[node] = Const(name, tuple(value.shape), array, _dtype(value.dtype), name in self.trained)

    def _call(self, node: torch.fx.Node) -> None:
        kind = _kind(node)
        if kind in CHECKS:
            return
        if kind == "getitem":
            source, index = node.args
            self.values[node] = self.values[source][index]
            return
        if all(argument in self.weights for argument in node.all_input_nodes):
            return self._compute(node, kind)
        path = _path(node)
        own = [self.values[a].name for a in node.all_input_nodes if isinstance(self.values.get(a), Const)]
        name = own[0].rpartition(".")[0] if own and own[0].rpartition(".")[0] else _joined(path, kind)
        self.draft.at(name, kind)
        self.values[node] = self._translated(node, kind, name)
        self._check(node, kind, name)
        return None

    def _translated(self, node: torch.fx.Node, kind: str, name: str) -> Any:
        import torch.fx

        arguments = torch.fx.map_arg((node.args, node.kwargs), lambda n: self.values[n])
        handler: Callable[..., Any] | None = TABLE.get(kind)
        try:
            if handler is None:
                raise UnsupportedError
            return handler(self.draft, *arguments[0], **arguments[1])
        except (UnsupportedError, ShapeError, TypeError, ValueError, IndexError) as error:
            # the last three: an overload or an argument that no handler foresaw
            if not self.lenient:
                raise unknown_op(self.who, name, kind, str(error)) from None
            return self._unknown(node, kind)

    def _unknown(self, node: torch.fx.Node, kind: str) -> Any:
        given = [self.values[argument] for argument in node.all_input_nodes]
        tensors = [value for value in given if isinstance(value, str)]
        roles = {str(i): value for i, value in enumerate(given) if isinstance(value, Const)}
        outs: Any = node.meta["val"]
        made = [
            self.draft.add(Unknown(kind, tuple(out.shape)), *tensors, **roles) if hasattr(out, "shape") else None
            for out in (outs if isinstance(outs, tuple | list) else [outs])
        ]
        return made if isinstance(outs, tuple | list) else made[0]

    def _compute(self, node: torch.fx.Node, kind: str) -> None:
        """An op on weights alone (weight standardisation, reparametrisation) is carried out now."""
        import torch

        out = node.meta.get("val")
        if not isinstance(out, torch.Tensor) or out.numel() > MAX_COMPUTED or _is_random(node):
            raise unknown_op(self.who, node.name, kind, "it makes its output from no activation")
        arguments = torch.fx.map_arg((node.args, node.kwargs), lambda n: self.weights[n])
        with torch.no_grad():
            target: Any = node.target
            self._weight(node, _joined(_path(node), node.name), target(*arguments[0], **arguments[1]))

    def _check(self, node: torch.fx.Node, kind: str, name: str) -> None:
        """`shapes.infer` and torch must agree."""
        said: Any = node.meta.get("val")
        got = self.values[node]
        pairs = zip(said, got, strict=False) if isinstance(said, tuple | list) else [(said, got)]
        for theirs, ours in pairs:
            if isinstance(ours, str) and tuple(theirs.shape) != self.draft.shape(ours):
                raise GraphError(
                    f"{self.who}: {name}: {kind} writes {tuple(theirs.shape)} in torch, but {self.draft.shape(ours)} "
                    "by luthier.graph.shapes; please report it with the module"
                )

    def _outputs(self, node: torch.fx.Node) -> None:
        nodes = {argument.name: argument for argument in node.all_input_nodes}
        for name in self.program.graph_signature.user_outputs:
            value = self.values.get(nodes.get(name))
            if isinstance(value, str):
                self.draft.outputs[value] = value
        if not self.draft.outputs:
            raise GraphError(f"{self.who}: returns no tensor that depends on its input")


def _is_random(node: torch.fx.Node) -> bool:
    import torch

    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _array(value: torch.Tensor) -> Array:
    import torch

    plain = value.detach().cpu()
    array: Array = (plain.float() if plain.dtype is torch.bfloat16 else plain).numpy()
    return array


def _dtype(dtype: torch.dtype) -> DType:
    names: dict[str, DType] = {"torch.float16": "fp16", "torch.bfloat16": "bf16"}
    return names.get(str(dtype), "fp32")


def _path(node: torch.fx.Node) -> str:
    """The module that the op was called in."""
    stack = node.meta.get("nn_module_stack") or {}
    return _dotted(next(reversed(stack.values()))[0]) if stack else ""


def _dotted(path: object) -> str:
    return str(path).removeprefix("L['self'].").removeprefix("L__self___")


def _joined(path: str, kind: str) -> str:
    word = kind.removeprefix("aten.").lstrip("_")
    return f"{path}.{word}" if path else word
