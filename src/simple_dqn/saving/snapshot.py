"""Snapshots in the format of Neon 2.6, so that the original, Neon itself and this program read each other's.

A snapshot is a pickle (protocol 2). It is written without the pickle module, as bytes that Python 2 and every NumPy
read, and read by an unpickler that knows four names and runs no code, whatever the file says.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import math
import pickle
import struct
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simple_dqn.errors import SnapshotError, reason
from simple_dqn.learning.layers import NATURE, Conv, Layers, Shape, shapes_in_files
from simple_dqn.saving.files import replace_file
from simple_dqn.saving.names import SNAPSHOT_KINDS, prefix_of, trainings_in
from simple_dqn.wording import count

Array = NDArray[Any]
_FACTS = "simple_dqn"  # Neon ignores a key that it does not know


class Layer(NamedTuple):
    """A layer with weights, as Neon keeps it: Convolution W (C·R·S, K), Linear W (out, in), BatchNorm (n, 1) each."""

    type: str  # Convolution, BatchNorm, Linear, or a kind of ours that Neon does not know
    config: dict[str, Any]  # Convolution: fshape (R, S, K), strides; Linear: nout
    params: dict[str, Array]  # W, or beta, gamma, gmean, gvar
    states: list[Any]  # the optimizer's arrays; of several parameters a list for each: for BatchNorm beta, gamma


class Snapshot(NamedTuple):
    """The content of a snapshot."""

    layers: list[Layer]
    input_shape: tuple[int, ...]  # (history, height, width)
    facts: dict[str, Any]  # such as options and scores; empty in files of other programs


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write `snapshot` completely or not at all.

    Raises:
        OutputError: it could not be written.
    """
    description = {
        "neon_version": "2.6.0",
        "epoch_index": int(snapshot.facts.get("epoch", 0)),
        "train_input_shape": tuple(snapshot.input_shape),
        "cost": {
            "type": "neon.layers.layer.GeneralizedCost",
            "config": {
                "name": "GeneralizedCost_0",
                "costfunc": {"type": "neon.transforms.cost.SumSquared", "config": {}},
            },
        },
        "model": {
            "type": "neon.layers.container.Sequential",
            "container": True,
            "config": {"name": "Sequential_0", "layers": list(_neon_layers(snapshot.layers))},
        },
        _FACTS: snapshot.facts,
    }
    replace_file(path, plain_bytes(description))


def read_snapshot(path: Path) -> Snapshot:
    """Read a snapshot that this program, the original or Neon wrote.

    Raises:
        SnapshotError: the file is missing, no snapshot, damaged or hostile.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise SnapshotError(f"there is no snapshot {path}{other_snapshots_hint(path)}") from None
    except IsADirectoryError:
        raise SnapshotError(f"{path} is a folder, not a snapshot{other_snapshots_hint(path)}") from None
    except OSError as error:
        raise SnapshotError(f"cannot read snapshot {path}: {reason(error)}") from error
    kind = _kind(path, content)
    if kind:
        raise SnapshotError(f"{path} is not a snapshot: it is {kind}")
    try:
        description = plain_value(content)
    except SnapshotError as error:
        raise SnapshotError(f"{path} is not a snapshot, and was not loaded: {error}") from None
    except Exception:  # a damaged pickle can raise any exception
        raise SnapshotError(
            f"{path} is not a snapshot, or a damaged one: it ends early, or its content was changed"
        ) from None
    try:
        input_shape, facts = tuple(description.get("train_input_shape", ())), dict(description.get(_FACTS, {}))
        return Snapshot(_layers_of(description), input_shape, facts)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError):
        raise SnapshotError(f"{path} is not a snapshot: it holds no Neon model") from None


_KINDS = {
    b"simple_dqn checkpoint ": "a checkpoint",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": "a file of PyTorch",
    b"PK": "a zip archive",
    b"\x1f\x8b": "compressed: unpack it with gunzip",
    b"BZh": "compressed: unpack it with bunzip2",
    b"\xfd7zXZ": "compressed: unpack it with unxz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd, as parts of replay memories are",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file with git lfs pull",
}


def _kind(path: Path, content: bytes) -> str:
    """Return what a file is that cannot be a snapshot. Empty if it may be one."""
    if not content:
        return "empty"
    kind = next((kind for beginning, kind in _KINDS.items() if content.startswith(beginning)), "")
    if kind == "a checkpoint":
        kind += f", and the weights are in {path.with_suffix('.pkl').name}"
    if kind == "a zip archive":
        names = _names_in_zip(content)
        if any(name.startswith("_stable_baselines3") or name == "policy.pth" for name in names):
            return "a model of Stable-Baselines3, whose networks do not fit"
        if any(name.endswith("data.pkl") for name in names):
            return "a file of PyTorch"
    if kind or content[:1] == pickle.PROTO:
        return kind
    if content[:1] not in b"(]}" and _is_text(content[:1000]):  # because a pickle of protocol 0 may begin with these
        first = content.partition(b"\n")[0]
        return "a file of statistics" if b"epoch" in first and b"phase" in first else "text"
    return "a ROM" if _is_rom(path) else ""


def _names_in_zip(content: bytes) -> list[str]:
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.namelist()
    return []


def _is_text(content: bytes) -> bool:
    text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "ignore")
    return len(text) > 0.4 * len(content) and all(letter.isprintable() or letter.isspace() for letter in text)


def _is_rom(path: Path) -> bool:
    from ale_py import ALEInterface

    return bool(ALEInterface.isSupportedROM(path))


def require_fit(found: Sequence[Layer], layers: Layers, state_shape: Shape, name: str) -> None:
    """Check that the layers `found` in the snapshot `name` fit a network's `layers`.

    Raises:
        SnapshotError: they belong to another network (the message says what differs), or a weight is not finite.
    """
    differences = _differences(found, shapes_in_files(layers, state_shape), state_shape)
    if differences:
        raise SnapshotError(f"{name} does not fit: {'; '.join(differences)}")
    if not all(np.isfinite(array).all() for layer in found for array in layer.params.values()):
        raise SnapshotError(f"{name} is damaged: it holds weights that are NaN or infinite")


def _differences(
    found: Sequence[Layer], wanted: list[tuple[str, dict[str, tuple[int, ...]]]], state_shape: Shape
) -> list[str]:
    """Return in the user's words how the layers of a snapshot differ from the types and shapes that a network needs."""
    has = [layer.params["W"].shape for layer in found if "W" in layer.params]
    needs = [shapes["W"] for _, shapes in wanted if "W" in shapes]
    if len(has) != len(needs):
        return [f"it has {count(len(has), 'layer')} with weights, the network {len(needs)}"]
    words = []
    batch_norm = any(kind == "BatchNorm" for kind, _ in wanted)
    if any(layer.type == "BatchNorm" for layer in found) != batch_norm:
        words.append("it was made " + ("without" if batch_norm else "with") + " --batch_norm true")
    if has[-1][0] != needs[-1][0]:
        words.append(f"it has {count(has[-1][0], 'action')}, the game {needs[-1][0]}")
    convolutions = sum(kind == "Convolution" for kind, _ in wanted)
    if convolutions and has[0] != needs[0]:
        words.append(f"its states have {state_shape[0] * has[0][0] / needs[0][0]:g} screens, here {state_shape[0]}")
    hidden, has_hidden, needs_hidden = NATURE[-1].outputs, has[convolutions], needs[convolutions]
    if {has_hidden[0], needs_hidden[0]} == {hidden, 2 * hidden}:
        words.append("it was made " + ("with" if has_hidden[0] > hidden else "without") + " --dueling true")
    elif has_hidden[0] == needs_hidden[0] and has_hidden != needs_hidden:
        words.append(f"its screens are not {state_shape[2]}x{state_shape[1]}")
    if not words and has != needs:
        words.append(f"its weights have shapes {has}, not {needs}")
    names = [(set(layer.params), set(shapes)) for layer, (_, shapes) in zip(found, wanted, strict=False)]
    if not words and (len(found) != len(wanted) or not all(wants <= holds for holds, wants in names)):
        kinds, needed = [layer.type for layer in found], [kind for kind, _ in wanted]
        words.append(f"its layers are {', '.join(kinds)}, not {', '.join(needed)}")
    return words


def _neon_layers(layers: list[Layer]) -> Iterator[dict[str, Any]]:
    counts: dict[str, int] = {}
    batch_norm = any(layer.type == "BatchNorm" for layer in layers)
    name = ""
    for i, layer in enumerate(layers):
        config = dict(layer.config)
        last = i == len(layers) - 1
        if layer.type == "BatchNorm":
            config["name"] = f"{name}_bnorm"
        else:
            counts[layer.type] = counts.get(layer.type, 0) + 1
            name = config["name"] = f"{layer.type}_{counts[layer.type] - 1}"
            local = {} if layer.type == "Convolution" else {"local": False}
            config["init"] = {"type": "neon.initializers.initializer.Xavier", "config": local}
            config["parallelism"] = "Disabled"
            if batch_norm and not last:
                config["bsum"] = True
        weights = {"params": layer.params, "states": layer.states}
        yield {"type": f"neon.layers.layer.{layer.type}", "config": config, **weights}
        if not last and layers[i + 1].type != "BatchNorm":
            number = {"name": f"Rectlin_{sum(counts.values()) - 1}"}
            transform = {"type": "neon.transforms.activation.Rectlin", "config": number}
            config = {"name": f"{name}_Rectlin", "transform": transform}
            yield {"type": "neon.layers.layer.Activation", "config": config}


def _layers_of(description: dict[str, Any]) -> list[Layer]:
    if "model" in description:
        described = description["model"]["config"]["layers"]
        return [_layer_of(layer) for layer in described if "params" in layer]  # not those without, such as activations
    return list(_layers_of_2015(description["layer_params_states"]))


def _layers_of_2015(described: list[Any]) -> Iterator[Layer]:
    """Yield the layers of an early Neon's file, which has only arrays. They are those of the Nature paper."""
    kinds = iter(NATURE)
    for layer in described:
        layer = layer if isinstance(layer, dict) else {"params": layer}
        params, states = layer["params"], list(layer.get("states", []))
        if isinstance(params, list | tuple):
            params = dict(zip(("beta", "gamma", "gmean", "gvar"), params, strict=True))
        if not isinstance(params, dict):
            params = {"W": params}
        params = _arrays(params)
        if "W" not in params:
            yield Layer("BatchNorm", {}, params, states or [[], []])
            continue
        kind = next(kinds, None)
        if isinstance(kind, Conv):
            config = {"fshape": (kind.size, kind.size, params["W"].shape[1]), "strides": kind.stride}
            yield Layer("Convolution", config, params, states)
        else:
            yield Layer("Linear", {"nout": len(params["W"])}, params, states)


def _layer_of(described: dict[str, Any]) -> Layer:
    kind = described["type"].rsplit(".", 1)[-1]
    keep = {"Convolution": ("fshape", "strides"), "Linear": ("nout",)}.get(kind, ())
    config = {key: described["config"][key] for key in keep}
    states = list(described.get("states", []))
    return Layer(kind, config, _arrays(described["params"]), states or [[], []] if kind == "BatchNorm" else states)


def _arrays(params: dict[str, Any]) -> dict[str, Array]:
    """Return only the arrays, because Neon 1.1 also stored the layer's name."""
    return {key: value for key, value in params.items() if isinstance(value, np.ndarray)}


def other_snapshots_hint(path: Path) -> str:
    """Return the end of an error: the training with a name close to `path`, or the snapshots beside or in it."""
    folder = path if path.is_dir() else path.parent
    if folder != path:
        file = path if path.suffix in SNAPSHOT_KINDS else Path(f"{path}.pkl")
        wanted, known = prefix_of(file).name, trainings_in(folder)
        close = [] if wanted in known else difflib.get_close_matches(wanted, known, n=1, cutoff=0.75)
        if close:
            return f": did you mean {folder / close[0]}?"
    names = sorted(file.name for file in folder.glob("*") if file.suffix in SNAPSHOT_KINDS)
    return f": in {folder} are {', '.join(names[:5])}{' …' if len(names) > 5 else ''}" if names else ""


# Writing. The pickle module would name numpy._core, which the original cannot load. Its arrays would be 1.5 times as
# large, because protocol 2 has no opcode for bytes. Equal content with other shared objects would give other bytes.


def plain_bytes(value: Any) -> bytes:
    """Return a pickle of None, numbers, text, lists, tuples, dictionaries and arrays. Equal values make equal bytes."""
    out = bytearray(pickle.PROTO + b"\x02")
    _put(out, value)
    return bytes(out + pickle.STOP)


def _put(out: bytearray, value: Any) -> None:
    if value is None:
        out += pickle.NONE
    elif isinstance(value, bool):
        out += pickle.NEWTRUE if value else pickle.NEWFALSE
    elif isinstance(value, int):
        if -(2**31) <= value < 2**31:
            out += pickle.BININT + struct.pack("<i", value)
        else:
            digits = pickle.encode_long(value)
            out += pickle.LONG1 + bytes([len(digits)]) + digits
    elif isinstance(value, float):
        out += pickle.BINFLOAT + struct.pack(">d", value)
    elif isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        out += pickle.BINUNICODE + struct.pack("<I", len(text)) + text
    elif isinstance(value, dict):
        out += pickle.EMPTY_DICT + pickle.MARK
        for item in (part for pair in value.items() for part in pair):
            _put(out, item)
        out += pickle.SETITEMS
    elif isinstance(value, list | tuple):
        out += pickle.MARK
        for item in value:
            _put(out, item)
        out += pickle.LIST if isinstance(value, list) else pickle.TUPLE
    elif isinstance(value, np.ndarray):
        _put_array(out, np.ascontiguousarray(value))
    elif isinstance(value, np.generic):
        _put(out, value.item())
    else:
        raise TypeError(f"a snapshot cannot hold {type(value).__name__}")


def _put_array(out: bytearray, array: Array) -> None:
    data = array.tobytes()
    out += pickle.GLOBAL + b"numpy.core.multiarray\n_reconstruct\n"
    out += pickle.MARK + pickle.GLOBAL + b"numpy\nndarray\n"
    _put(out, (0,))
    out += _string(b"b") + pickle.TUPLE + pickle.REDUCE
    out += pickle.MARK
    _put(out, 1)
    _put(out, tuple(int(n) for n in array.shape))
    out += pickle.GLOBAL + b"numpy\ndtype\n" + pickle.MARK + _string(array.dtype.str[1:].encode())
    out += pickle.NEWFALSE + pickle.NEWTRUE + pickle.TUPLE + pickle.REDUCE + pickle.MARK
    _put(out, 3)
    out += _string(array.dtype.str[:1].encode()) + pickle.NONE * 3
    for number in (-1, -1, 0):
        _put(out, number)
    out += pickle.TUPLE + pickle.BUILD + pickle.NEWFALSE
    out += pickle.BINSTRING + struct.pack("<i", len(data)) + data + pickle.TUPLE + pickle.BUILD


def _string(text: bytes) -> bytes:
    """Return the opcodes of a byte string of Python 2. Python 3 reads it as text in latin1."""
    return pickle.SHORT_BINSTRING + bytes([len(text)]) + text


# Reading. Each name that a snapshot may use maps to a class or function here that only stores its arguments.


class _Dtype:
    def __init__(self, name: str, *_: Any) -> None:
        if name not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"):
            raise SnapshotError(f"it holds an array of {_short(name)}, and only numbers are allowed")
        self.name, self.order = name, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">", "|") else "<"


class _NoteOfArray:
    value: Array

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        content = data.encode("latin1") if isinstance(data, str) else bytes(data)
        flat = np.frombuffer(content, np.dtype(dtype.order + dtype.name))
        valid = isinstance(shape, tuple) and len(shape) <= 8 and all(type(n) is int and n >= 0 for n in shape)
        if not valid or math.prod(shape) != len(flat):
            words = str(shape)[:60] if valid else "nonsense"
            raise SnapshotError(f"an array of shape {words} holds {count(len(flat), 'number')}")
        self.value = flat.reshape(shape, order="F" if fortran else "C")


def _encode_latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise SnapshotError(f"it wants the codec {_short(encoding)}")
    return text.encode("latin1")


def _short(value: Any) -> str:
    """Return a value from a file of unknown origin in at most 60 characters."""
    return repr(value)[:60] if isinstance(value, str | int) else "nonsense"


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): None,
    ("numpy.core.multiarray", "_reconstruct"): _NoteOfArray,
    ("_codecs", "encode"): _encode_latin1,
}


def plain_value(content: bytes) -> Any:
    """Return the value in a pickle of `plain_bytes` or in a snapshot. No code in it runs.

    Raises:
        SnapshotError: it holds something else.
        Exception: it is damaged. The pickle module may raise any exception.
    """
    return _plain(_SafeUnpickler(io.BytesIO(content), encoding="latin1").load())


class _SafeUnpickler(pickle._Unpickler):
    """An unpickler in Python, because that in C hashes nested keys and reserves as much memory as a file asks for."""

    stack: list[Any]
    append: Any
    pop_mark: Any
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    for _opcode in (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.BYTEARRAY8):  # no snapshot needs them
        del dispatch[_opcode[0]]

    def find_class(self, module: str, name: str) -> Any:
        if module.endswith("\r"):
            raise SnapshotError("its line ends were changed on the way: copy the file again, as binary")
        if (module, name) not in _ALLOWED:
            raise SnapshotError(f"it would run {module}.{name}, which no snapshot needs")
        return _ALLOWED[module, name]

    def _dictionary(self) -> None:
        items = _with_plain_keys(self.pop_mark())  # which changes what `append` adds to
        self.append(items)

    def _set_items(self) -> None:
        items = _with_plain_keys(self.pop_mark())
        self.stack[-1].update(items)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1].update(_with_plain_keys([key, value]))

    dispatch |= {pickle.DICT[0]: _dictionary, pickle.SETITEMS[0]: _set_items, pickle.SETITEM[0]: _set_item}


def _with_plain_keys(items: list[Any]) -> dict[Any, Any]:
    """Return a dictionary of `items`: a key, its value, the next key and so on."""
    if not all(isinstance(key, str | int) for key in items[::2]):
        raise SnapshotError("it has a key that is neither a name nor a number")
    return dict(zip(items[::2], items[1::2], strict=True))


def _plain(value: Any, done: dict[int, Any] | None = None) -> Any:
    """Return `value` with the arrays that `_NoteOfArray` holds. Objects that occur twice are visited once."""
    done = {} if done is None else done
    if isinstance(value, _NoteOfArray):
        return value.value
    if isinstance(value, dict | list | tuple):
        if id(value) not in done:
            if isinstance(value, dict):
                done[id(value)] = {key: _plain(item, done) for key, item in value.items()}
            else:
                done[id(value)] = type(value)(_plain(item, done) for item in value)
        return done[id(value)]
    return value
