"""Reads a pickle without running it: containers, numbers and text become plain data.

Weights files of PyTorch are pickles, and unpickling would run any function that a file names. This reader only
interprets the opcodes: objects of known harmless classes become `PickledObject`s, tensors become `TensorNote`s, and any
other call is an error.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ls3dw.errors import ModelError

MOST_OPERATIONS: Final = 1_000_000
"""Largest number of opcodes; a state dict of a thousand tensors has 50,000."""

ADVICE: Final = "save the network's state_dict() alone and import that"

PLAIN: Final = frozenset(
    {
        *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "frozenset", "complex")),
        *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("slice", "bytearray", "range")),
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
        *("numpy.dtype", "numpy.ndarray", "_codecs.encode", "argparse.Namespace", "collections.Counter"),
        *(
            "torch.Size",
            "torch.device",
            "torch.torch_version.TorchVersion",
            "pathlib.PosixPath",
            "pathlib.PurePosixPath",
        ),
    }
)
"""Classes and functions of training checkpoints that only make plain data. They are recorded, not called."""

SCRIPT: Final = ("__torch__.", "torch.jit._pickle.")
"""Prefixes of class names in TorchScript archives."""


class Source(Protocol):
    """A readable stream, such as an `mmap` or `BytesIO`."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...


@dataclass(frozen=True)
class Global:
    """The name of a class or function, which is never imported."""

    name: str


@dataclass(eq=False)
class PickledObject:
    """A recorded call: name of the class or function, its arguments, and the object's state."""

    of: str
    arguments: Any
    state: Any = None


@dataclass(frozen=True, eq=False)
class StorageNote:
    """A reference to a tensor's numbers. dtype: name of the storage class; view: start and length in elements."""

    dtype: str
    key: str
    count: int
    view: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class TensorNote:
    """A tensor's view of its storage; offset, size and stride in elements."""

    storage: StorageNote
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class PickleContents:
    """A pickle's object, and the storages that it refers to by key."""

    root: Any
    storages: dict[str, StorageNote]


_MARK: Final = object()


def read_pickle(source: Source, where: str, script: bool = False) -> PickleContents:
    """Read one pickle from the source's position to its end. script: allow objects of a TorchScript archive.

    Raises ModelError if the pickle is damaged or calls anything that is not plain data.
    """
    machine = _Machine(script)
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(source)):  # type: ignore[arg-type]
            if count > MOST_OPERATIONS:
                raise ModelError(f"more than {MOST_OPERATIONS} pickle operations")
            machine.step(operation.name, argument)
        return PickleContents(machine.stack.pop(), machine.storages)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, MemoryError, EOFError) as error:
        raise ModelError(f"{where}: damaged, its pickle cannot be read ({error!s:.100})") from error


class _Machine:
    """The pickle machine: stack and memo."""

    def __init__(self, script: bool) -> None:
        self.stack: list[Any] = []
        self.storages: dict[str, StorageNote] = {}
        self._memo: dict[int, Any] = {}
        self._script = script

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, argument)
        elif name not in _NOTHING:
            raise ModelError(f"the pickle operation {name}, which weights do not need")

    def since_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise ValueError("a mark is missing")

    def put(self, place: Any) -> None:
        self._memo[len(self._memo) if place is None else int(place)] = self.stack[-1]

    def get(self, place: Any) -> None:
        self.stack.append(self._memo[int(place)])

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a class without a name")
        self.stack.append(Global(f"{module}.{name}"))

    def reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(self._call(function, arguments))

    def new_with_keywords(self, _: Any) -> None:
        self.stack.pop()
        self.reduce(None)

    def instance(self, argument: str) -> None:
        arguments = tuple(self.since_mark())
        self.stack.append(self._call(Global(argument.replace(" ", ".")), arguments))

    def object_(self, _: Any) -> None:
        function, *arguments = self.since_mark()
        self.stack.append(self._call(function, tuple(arguments)))

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, PickledObject):
            target.state = state
        elif not isinstance(target, dict):
            raise ValueError("a state for what has none")

    def persistent(self, argument: Any) -> None:
        identity = self.stack.pop() if argument is None else argument
        note = _storage(identity)
        first = self.storages.setdefault(note.key, note)
        if (first.dtype, first.count) != (note.dtype, note.count):
            raise ValueError("a storage of two lengths or types")
        self.stack.append(note)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a tuple of a million levels would overflow the C stack.
            if not isinstance(key, str | int | float | bytes | None):
                raise ValueError("a dictionary key that is neither text nor a number")
            if isinstance(target, dict):
                target[key] = value
            elif not isinstance(target, PickledObject):
                raise ValueError("items for what is no dictionary")

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, PickledObject):
            raise ValueError("items for what is no list")

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise ValueError("a call of what is no function")
        if function.name in _REBUILT:
            return _REBUILT[function.name](*arguments)
        if function.name in PLAIN or (self._script and function.name.startswith(SCRIPT)):
            return PickledObject(function.name, arguments)
        raise ModelError(f"it calls {function.name[:80]!r} when it is unpickled, which could run any code; {ADVICE}")


def _storage(identity: Any) -> StorageNote:
    """Parse the reference to a storage: ("storage", class, key, device, count[, view])."""
    if isinstance(identity, tuple) and identity[:1] == ("module",):
        raise ModelError(f"it holds a whole network with its code; {ADVICE}")
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        raise ValueError("a reference that is not to a storage")
    kind, key, count = identity[1], identity[2], identity[4]
    if not isinstance(kind, Global) or not isinstance(key, str | int) or type(count) is not int:
        raise ValueError("a storage without class, key or length")
    view = identity[5] if len(identity) > 5 else None
    if view is not None:
        view = (_whole(view[1]), _whole(view[2]))
    return StorageNote(kind.name.rpartition(".")[2], str(key), _whole(count), view)


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise ValueError(f"{type(value).__name__} where a length is expected")
    return value


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorNote:
    if not isinstance(storage, StorageNote) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise ValueError("a tensor without storage, size or strides")
    if len(size) != len(stride) or len(size) > 16:
        raise ValueError("a tensor whose size and strides differ")
    return TensorNote(storage, _whole(offset), tuple(map(_whole, size)), tuple(map(_whole, stride)))


def _parameter(data: Any, *_: Any) -> TensorNote:
    if not isinstance(data, TensorNote):
        raise ValueError("a parameter that is no tensor")
    return data


def _ordered(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    if any(len(pair) != 2 or not isinstance(pair[0], str | int) for pair in pairs):
        raise ValueError("an ordered dictionary whose keys are neither text nor numbers")
    return dict(pairs)


def _default(*_: Any) -> dict[Any, Any]:
    return {}


def _first(value: Any, *_: Any) -> Any:
    return value


_REBUILT: Final[dict[str, Callable[..., Any]]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": _default,
    "torch.jit._pickle.restore_type_tag": _first,
}

_NOTHING: Final = frozenset({"PROTO", "FRAME", "STOP"})

_LITERALS: Final = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE"),
        *("BINBYTES", "BINBYTES8", "SHORT_BINBYTES", "BYTEARRAY8"),
    }
)

_CONSTANTS: Final[dict[str, Callable[[], Any]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: PickledObject("builtins.set", ()),
    "MARK": lambda: _MARK,
}


def _forget(machine: _Machine, _: Any) -> None:
    machine.since_mark()


def _take(count: int) -> Callable[[_Machine, Any], None]:
    def tuple_of(machine: _Machine, _: Any) -> None:
        items = tuple(machine.stack[-count:])
        if len(items) < count:
            raise ValueError("the stack is empty")
        machine.stack[-count:] = [items]

    return tuple_of


def _dictionary(machine: _Machine, _: Any) -> None:
    items = machine.since_mark()
    machine.stack.append({})
    machine.set_items(items)


def _pair(machine: _Machine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.set_items([key, value])


_OPERATIONS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    "GLOBAL": lambda machine, name: machine.stack.append(Global(name.replace(" ", ".", 1))),
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_with_keywords,
    "INST": _Machine.instance,
    "OBJ": _Machine.object_,
    "BUILD": _Machine.build,
    "PERSID": _Machine.persistent,
    "BINPERSID": _Machine.persistent,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "LIST": lambda machine, _: machine.stack.append(machine.since_mark()),
    "DICT": _dictionary,
    "TUPLE1": _take(1),
    "TUPLE2": _take(2),
    "TUPLE3": _take(3),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.since_mark()),
    "SETITEM": _pair,
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": _forget,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
}
