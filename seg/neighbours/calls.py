"""What the pickle in a torch file would call, found without running it: few functions, with small arguments.

`weights_only` lets a pickle call `bytearray(10**12)` or a slow text codec, and hash keys that nest without
end. Here the machine that a pickle is a program for is followed with nothing but its texts, numbers, tuples
and names of functions; every other value is unknown.
"""

import pickletools
import re
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

_NUMPY = {"numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"}
_CALLED = _NUMPY | {
    "_codecs.encode",
    "collections.OrderedDict",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_sparse_tensor",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_qtensor",
    "torch._utils._rebuild_meta_tensor_no_storage",
    "torch.serialization._get_layout",
}
# types of storages and numbers, which are named and not called
_NAMED = re.compile(
    r"torch\.(\w+Storage|storage\.UntypedStorage|float\w*|bfloat16|half|double|complex\w+|u?int\d+|bool|q\w+|"
    r"per_(tensor|channel)\w+)"
)
_LARGEST = 64 * 2**20
# a thousand epochs of nnU-Net with a hundred classes have a million and a half
_MOST_STEPS = 4_000_000
# what is written to an object: metadata of a state dict, types of numpy
_MOST_STATES = 200
# bytes of a number
_LONGEST_NUMBER = 8
_LONGEST_SIZE = 64
_PUTS, _GETS = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")


@dataclass(frozen=True)
class _Function:
    name: str


def check_calls(pickled: bytes) -> None:
    """Raises UnpicklingError for a pickle that calls what no weights need, or that is too large to be some.

    A pickle that cannot be followed gives ValueError, IndexError or KeyError.
    """
    if len(pickled) > _LARGEST:
        raise UnpicklingError(f"{len(pickled):,} bytes of names and numbers, more than {_LARGEST:,}")
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    states = 0
    for step, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
        name = opcode.name
        if name in _PUTS:
            memo[argument] = stack[-1]  # type: ignore[index]
            continue
        taken = _taken(stack, opcode)
        _check_step(name, argument, taken)
        states += name == "BUILD"
        if step > _MOST_STEPS or states > _MOST_STATES:
            raise UnpicklingError(f"more than {_MOST_STEPS:,} steps, or {_MOST_STATES} objects with a state")
        if name in _GETS:
            stack.append(memo[argument])  # type: ignore[index]
        else:
            stack.extend(_made(opcode, argument, taken))


def _taken(stack: list[Any], opcode: pickletools.OpcodeInfo) -> list[Any]:
    """What an opcode takes from the stack, without the mark; all above it where there is one."""
    before = opcode.stack_before
    if pickletools.markobject not in before:
        return [stack.pop() for _ in before][::-1]
    above: list[Any] = []
    while (value := stack.pop()) is not pickletools.markobject:
        above.append(value)
    below = [stack.pop() for _ in range(before.index(pickletools.markobject))]
    return below[::-1] + above[::-1]


def _made(opcode: pickletools.OpcodeInfo, argument: Any, taken: list[Any]) -> list[Any]:
    if opcode.name == "GLOBAL":
        return [_Function(argument.replace(" ", ".", 1))]
    if "TUPLE" in opcode.name:
        return [tuple(taken)]
    if opcode.name == "MARK":
        return [pickletools.markobject]
    if len(opcode.stack_after) == 1 and not taken and isinstance(argument, str | int):
        return [argument]
    return [None] * len(opcode.stack_after)


def _check_step(name: str, argument: Any, taken: list[Any]) -> None:
    if name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX"):
        raise UnpicklingError(f"a pickle of another form than torch's ({name})")
    if name == "GLOBAL":
        function = argument.replace(" ", ".", 1)
        if function not in _CALLED and not _NAMED.fullmatch(function):
            raise UnpicklingError(f"GLOBAL {function}")
    # a tuple of tuples of tuples takes for ever to be hashed
    if name in ("SETITEM", "SETITEMS") and any(isinstance(key, tuple) for key in taken[1::2]):
        raise UnpicklingError("a key that is a tuple")
    if name in ("REDUCE", "NEWOBJ"):
        _check_call(*taken)


def _check_call(function: Any, arguments: Any) -> None:
    if not isinstance(function, _Function) or not isinstance(arguments, tuple):
        raise UnpicklingError("a call of what is no function")
    if function.name not in _CALLED:
        raise UnpicklingError(f"GLOBAL {function.name}")
    if function.name == "_codecs.encode":
        text, *codec = arguments
        small = isinstance(text, str) and len(text) <= _LONGEST_NUMBER and codec == ["latin1"]
    elif function.name == "torch.Size":
        small = all(isinstance(size, tuple) and len(size) <= _LONGEST_SIZE for size in arguments)
    else:
        small = function.name != "collections.OrderedDict" or not arguments
    if not small:
        raise UnpicklingError(f"GLOBAL {function.name} with other arguments than weights need")
