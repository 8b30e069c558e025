"""A network written down as a list of operations that a page can run, with its weights packed.

``trace`` watches a function of one tensor while it runs, so it takes any module or expression whose
operations are known here; anything else is refused by name. js/ops.mjs runs the same operations.
"""

from __future__ import annotations

import gzip
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: A function of one example (1, ...) that returns one tensor or several; a module is one.
Function = Callable[[Tensor], Any]

Node = dict[str, Any]

_DEPENDS = (
    "what it does depends on the values of its input (or on chance), and cannot be written down "
    "as one list of operations"
)


class CannotRunError(ValueError):
    """The page has no operation for something that this network does."""


@dataclass(frozen=True)
class Program:
    """What the page needs to run a network: JSON (``spec``) and arrays by name."""

    spec: dict[str, Any]
    arrays: dict[str, np.ndarray[Any, Any]]


def trace(function: Function, example: Tensor) -> Program:
    """Write down what ``function`` does to one example.

    ``example``: (1, ...), float32; its values do not matter. A module must be in evaluation mode.
    The outputs keep their shapes without the batch.

    Raises ``CannotRunError``, a ``ValueError``, for an operation that the page does not have,
    naming it, and for a function that chooses its path by the values of its input; ``ValueError``
    for a batch of another size or weights that are not finite.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    if example.ndim < 2 or len(example) != 1 or example.dtype != torch.float32:
        raise ValueError(
            f"example: expected float32 (1, ...), got {example.dtype} {tuple(example.shape)}"
        )
    if isinstance(function, nn.Module) and function.training:
        raise ValueError("function: expected a module in evaluation mode; call its eval() first")
    with torch.no_grad():
        try:
            graph = make_fx(lambda x: function(x))(example)  # a bound method has two arguments
        except RuntimeError as error:
            if "_local_scalar_dense" not in str(error):
                raise
            raise CannotRunError(f"function: {_DEPENDS}") from error
        _check_same_path(function, graph, example)
        return _Writer(graph).write(example)


def _check_same_path(function: Function, graph: Any, example: Tensor) -> None:
    """A trace knows one path; inputs on the other side of every threshold must take it too."""
    generator = torch.Generator().manual_seed(0)
    for scale in (1.0, -1.0):
        other = scale * torch.rand(example.shape, generator=generator)
        try:
            expected = _as_tuple(function(other))
        except (ValueError, RuntimeError):
            continue  # the function refuses such inputs itself
        for found, wanted in zip(_as_tuple(graph(other)), expected, strict=True):
            if not torch.allclose(found, wanted, rtol=1e-4, atol=1e-5, equal_nan=True):
                raise CannotRunError(f"function: {_DEPENDS}")


def _as_tuple(value: Any) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)


@dataclass
class _Value:
    """A result that depends on the input: where it is, and its shape without the batch."""

    index: int
    shape: tuple[int, ...]


class _Writer:
    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.nodes: list[Node] = []
        self.arrays: dict[str, np.ndarray[Any, Any]] = {}
        self.known: dict[Any, Any] = {}  # an fx node -> _Value, or a constant computed here

    def write(self, example: Tensor) -> Program:
        outputs: list[_Value] = []
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                self.known[node] = _Value(0, tuple(example.shape[1:]))
            elif node.op == "get_attr":
                self.known[node] = operator.attrgetter(node.target)(self.graph)
            elif node.op == "output":
                (returned,) = node.args
                found = returned if isinstance(returned, list | tuple) else [returned]
                outputs = [self.known[value] for value in found]
            else:
                self.known[node] = self._call(node)
        if not outputs or not all(isinstance(value, _Value) for value in outputs):
            raise ValueError("function: expected its result to depend on its input")
        spec = {
            "input": list(example.shape[1:]),
            "nodes": self.nodes,
            "outputs": [value.index for value in outputs],
        }
        return Program(spec, self.arrays)

    def _call(self, node: Any) -> Any:
        args = [self.resolve(argument) for argument in node.args]
        kwargs = {key: self.resolve(value) for key, value in node.kwargs.items()}
        depends = any(
            isinstance(value, _Value)
            for argument in (*args, *kwargs.values())
            for value in (argument if isinstance(argument, list | tuple) else [argument])
        )
        if not depends:
            return node.target(*args, **kwargs)
        if node.target is operator.getitem:
            # Beside the result, batch norm and pooling return what only training uses.
            return args[0][args[1]] if args[1] < len(args[0]) else None
        name = str(node.target).removeprefix("aten.").split(".")[0]
        handler = _HANDLERS.get(name)
        if handler is None:
            raise CannotRunError(
                f"function: uses the operation aten.{name}, which a page cannot run; "
                f"known are {', '.join(sorted(_HANDLERS))}"
            )
        value = node.meta["val"]
        shape = tuple((value[0] if isinstance(value, list | tuple) else value).shape)
        return handler(_Call(self, node, name, shape), *args, **kwargs)

    def resolve(self, argument: Any) -> Any:
        """Replace what stands for earlier results by those results."""
        if isinstance(argument, list | tuple):
            return [self.resolve(value) for value in argument]
        return self.known[argument] if isinstance(argument, torch.fx.Node) else argument

    def emit(
        self,
        op: str,
        inputs: list[_Value],
        shape: tuple[int, ...],
        arrays: dict[str, Tensor | None] | None = None,
        **attributes: Any,
    ) -> _Value:
        """Add an operation; ``shape`` is its result's with the batch of 1 in front."""
        if not shape or shape[0] != 1:
            raise CannotRunError(
                f"function: mixes or drops the batch (a result of shape {shape} in {op}), "
                f"which a page cannot run"
            )
        names = {}
        for role, tensor in (arrays or {}).items():
            if tensor is not None:
                name = f"{len(self.nodes)}.{role}"
                self.arrays[name] = tensor.detach().float().cpu().contiguous().numpy()
                if not np.isfinite(self.arrays[name]).all():
                    raise ValueError(f"function: weights of {op} that are not finite")
                names[role] = name
        node = {"op": op, "from": [value.index for value in inputs], "shape": list(shape[1:])}
        self.nodes.append({**node, **({"arrays": names} if names else {}), **attributes})
        return _Value(len(self.nodes), shape[1:])


@dataclass
class _Call:
    """One operation of the trace: its name and the shape of its result, with the batch."""

    writer: _Writer
    node: Any
    name: str
    shape: tuple[int, ...]

    def emit(self, op: str, *inputs: _Value, **attributes: Any) -> _Value:
        return self.writer.emit(op, list(inputs), self.shape, **attributes)

    def refuse(self, why: str) -> CannotRunError:
        return CannotRunError(f"function: aten.{self.name} {why}, which a page cannot run")


def _convolution(
    call: _Call,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> _Value:
    if weight.ndim != 4 or any(d != 1 for d in dilation) or groups != 1:
        raise call.refuse(
            f"in {weight.ndim - 2} dimensions with dilation {list(dilation)} and {groups} groups"
        )
    small, big = (x.shape, call.shape[1:]) if transposed else (call.shape[1:], x.shape)
    return call.emit(
        "convtranspose" if transposed else "conv",
        x,
        arrays={"w": weight, "b": bias},
        small=list(small),
        big=list(big),
        kernel=list(weight.shape[2:]),
        stride=list(stride),
        padding=list(padding),
    )


def _batch_norm(
    call: _Call,
    x: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    training: bool,
    momentum: float,
    eps: float,
) -> list[_Value]:
    if training:
        raise call.refuse("in training mode")
    scale = (torch.ones_like(mean) if weight is None else weight).double()
    scale = scale / (variance.double() + eps).sqrt()
    shift = (0 if bias is None else bias.double()) - mean.double() * scale
    return [call.emit("affine", x, arrays={"w": scale, "b": shift})]


def _dense(call: _Call, x: Any, weight: Any, bias: Any = None) -> _Value:
    if not isinstance(weight, Tensor) or not isinstance(x, _Value):
        raise call.refuse("of two results")
    return call.emit("dense", x, arrays={"w": weight.T, "b": bias})


def _addmm(call: _Call, bias: Any, x: Any, weight: Any) -> _Value:
    if not isinstance(bias, Tensor):
        raise call.refuse("of two results")
    return _dense(call, x, weight, bias.expand(call.shape[1]))


def _arithmetic(op: str) -> Callable[..., _Value]:
    def handle(call: _Call, a: Any, b: Any, alpha: float = 1) -> _Value:
        if alpha != 1:
            raise call.refuse(f"with alpha {alpha}")
        if isinstance(a, _Value) and isinstance(b, _Value):
            return call.emit(op, _widened(call, a), _widened(call, b))
        if isinstance(a, _Value):
            return _with_constant(call, op, a, b)
        # A page has x op constant; constant - x is (-x) + constant.
        if op == "subtract":
            negative = call.writer.emit("multiply", [b], (1, *b.shape), value=-1.0)
            return _with_constant(call, "add", negative, a)
        if op == "divide":
            raise call.refuse("of a constant by a result")
        return _with_constant(call, op, b, a)

    return handle


def _with_constant(call: _Call, op: str, x: _Value, constant: Any) -> _Value:
    if not isinstance(constant, Tensor):
        return call.emit(op, x, value=float(constant))
    x = _widened(call, x)
    if constant.numel() == 1:
        return call.emit(op, x, value=float(constant))
    return call.emit(op, x, arrays={"c": constant.expand(call.shape)[0]})


def _widened(call: _Call, x: _Value) -> _Value:
    """Repeat a result as broadcasting does, where the other operand is larger."""
    if call.shape == (1, *x.shape):
        return x
    places = torch.arange(math.prod(x.shape)).reshape(1, *x.shape)
    return _taken(call, x, places.expand(call.shape))


def _unary(op: str, **names: tuple[int, Any]) -> Callable[..., _Value]:
    """``names``: attribute = (its place among the arguments after x, its default)."""

    def handle(call: _Call, x: Any, *args: Any, **kwargs: Any) -> _Value:
        found = {
            name: float(args[place]) if len(args) > place and args[place] is not None else default
            for name, (place, default) in names.items()
        }
        return call.emit(op, x, **found)

    return handle


def _gelu(call: _Call, x: Any, approximate: str = "none") -> _Value:
    if approximate != "none":
        raise call.refuse(f"approximated by {approximate}")
    return call.emit("gelu", x)


def _softmax(call: _Call, x: Any, dim: int, *_: Any) -> _Value:
    if len(x.shape) != 1 or dim not in (1, -1):
        raise call.refuse(f"over dimension {dim} of {len(x.shape) + 1}")
    return call.emit("softmax", x)


def _reshape(call: _Call, x: Any, *_: Any, **__: Any) -> _Value:
    return call.emit("reshape", x)


def _take(call: _Call, *_: Any, **__: Any) -> Any:
    """Any operation that only moves numbers about: follow the places of the numbers through it."""
    node = call.node
    x = call.writer.known[node.args[0]]
    places = torch.arange(math.prod(x.shape)).reshape(1, *x.shape)
    arguments = [call.writer.resolve(argument) for argument in node.args[1:]]
    keywords = {key: call.writer.resolve(value) for key, value in node.kwargs.items()}
    moved = node.target(places, *arguments, **keywords)
    if isinstance(moved, list | tuple):
        return [_taken(call, x, part) for part in moved]
    return _taken(call, x, moved)


def _taken(call: _Call, x: _Value, places: Tensor) -> _Value:
    return call.writer.emit("take", [x], tuple(places.shape), index=places.flatten().tolist())


def _power(call: _Call, x: Any, exponent: Any) -> _Value:
    if not isinstance(exponent, int | float):
        raise call.refuse("with an exponent that is no number")
    return call.emit("power", x, exponent=float(exponent))


def _concatenate(call: _Call, values: Any, dim: int = 0) -> _Value:
    if dim != 1 or not all(isinstance(value, _Value) for value in values):
        raise call.refuse(f"along dimension {dim}, or with a constant")
    return call.emit("concatenate", *values)


def _mean(call: _Call, x: Any, dims: Any, keepdim: bool = False, **_: Any) -> _Value:
    n = len(x.shape) + 1
    if n < 3 or sorted(d % n for d in dims) != [n - 2, n - 1]:
        raise call.refuse(f"over dimensions {list(dims)} of {n}")
    return call.emit("spatialmean", x)


def _pool(op: str) -> Callable[..., Any]:
    def handle(
        call: _Call, x: Any, kernel: Any, stride: Any = (), padding: Any = (0, 0), *rest: Any
    ) -> Any:
        plain = {"maxpool": ([1, 1], False), "averagepool": (False, True, None)}[op]
        if any(value != usual for value, usual in zip(rest, plain, strict=False)):
            raise call.refuse(f"with the options {list(rest)}")
        value = call.emit(
            op,
            x,
            small=list(call.shape[1:]),
            big=list(x.shape),
            kernel=_pair(kernel),
            stride=_pair(stride or kernel),
            padding=_pair(padding),
        )
        return [value] if op == "maxpool" else value

    return handle


def _pair(value: Any) -> list[int]:
    both = [value] * 2 if isinstance(value, int) else list(value)
    return both * 2 if len(both) == 1 else both


def _upsample(call: _Call, x: Any, *_: Any) -> _Value:
    if any(big % small for big, small in zip(call.shape[2:], x.shape[1:], strict=True)):
        raise call.refuse(f"from {x.shape} to {call.shape[1:]}, no whole factor")
    return call.emit("upsample", x, small=list(x.shape), big=list(call.shape[1:]))


#: What the trace calls an operation, and how it is written down for the page.
_HANDLERS: dict[str, Callable[..., Any]] = {
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "mm": _dense,
    "addmm": _addmm,
    "add": _arithmetic("add"),
    "sub": _arithmetic("subtract"),
    "rsub": lambda call, x, c, alpha=1: _arithmetic("subtract")(call, c, x, alpha),
    "mul": _arithmetic("multiply"),
    "div": _arithmetic("divide"),
    "neg": lambda call, x: call.emit("multiply", x, value=-1.0),
    "relu": _unary("relu"),
    "leaky_relu": _unary("leakyrelu", slope=(0, 0.01)),
    "elu": _unary("elu", alpha=(0, 1.0)),
    "sigmoid": _unary("sigmoid"),
    "tanh": _unary("tanh"),
    "softplus": _unary("softplus"),
    "silu": _unary("silu"),
    "gelu": _gelu,
    "exp": _unary("exp"),
    "log": _unary("log"),
    "sin": _unary("sin"),
    "cos": _unary("cos"),
    "abs": _unary("abs"),
    "sqrt": lambda call, x: _power(call, x, 0.5),
    "reciprocal": lambda call, x: _power(call, x, -1.0),
    "pow": _power,
    "clamp": _unary("clamp", low=(0, -1e30), high=(1, 1e30)),
    "hardtanh": _unary("clamp", low=(0, -1.0), high=(1, 1.0)),
    "_softmax": _softmax,
    "view": _reshape,
    "_unsafe_view": _reshape,
    "reshape": _reshape,
    "unsqueeze": _reshape,
    "squeeze": _reshape,
    "clone": _reshape,
    "detach": _reshape,
    "alias": _reshape,
    **dict.fromkeys(("select", "slice", "split", "expand", "repeat", "flip"), _take),
    **dict.fromkeys(("transpose", "permute", "t", "roll"), _take),
    "cat": _concatenate,
    "mean": _mean,
    "max_pool2d_with_indices": _pool("maxpool"),
    "avg_pool2d": _pool("averagepool"),
    "upsample_nearest2d": _upsample,
}


def pack(arrays: dict[str, np.ndarray[Any, Any]], dtype: str) -> tuple[list[dict[str, Any]], bytes]:
    """Put arrays one after the other and squeeze them: a table of contents, and the bytes (gzip).

    ``dtype``: ``float16``, ``float32`` or ``uint8``, little-endian.

    Raises ``ValueError`` for values that do not fit the type.
    """
    contents, parts = [], []
    for name, array in arrays.items():
        with np.errstate(over="ignore"):
            stored = array.astype(np.dtype(dtype).newbyteorder("<"))
        if dtype == "float16" and not np.isfinite(stored).all():
            raise ValueError(
                f"{name}: values up to {np.abs(array).max():.3g} do not fit float16; ask for float32"
            )
        contents.append({"name": name, "dtype": dtype, "shape": list(array.shape)})
        parts.append(stored.tobytes())
    # No time stamp: the same weights are the same file.
    return contents, gzip.compress(b"".join(parts), compresslevel=9, mtime=0)
