"""Snapshots: read and written in Neon's format, and harmless whatever they hold."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import pickletools
import random
import re
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simple_dqn.deepqnetwork import BackendOptions, DeepQNetwork, DeepQNetworkOptions
from simple_dqn.errors import OutputError, SnapshotError
from simple_dqn.games.roms import find_rom
from simple_dqn.learning.layers import Conv, Linear
from simple_dqn.saving.snapshot import (
    Layer,
    Snapshot,
    plain_bytes,
    plain_value,
    read_snapshot,
    require_fit,
    write_snapshot,
)

NEON = Path(__file__).resolve().parents[3] / "shared" / "reference" / "neon"


def make_network(**options: Any) -> DeepQNetwork:
    return DeepQNetwork(4, (4, 36, 36), DeepQNetworkOptions(**options), BackendOptions(backend="cpu"), seed=1)


def small() -> Snapshot:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((16, 3)).astype(np.float32)
    n = rng.standard_normal((3, 1)).astype(np.float32)
    layers = [
        Layer("Convolution", {"fshape": (2, 2, 3), "strides": 1}, {"W": w}, [w + 1]),
        Layer("BatchNorm", {}, dict(beta=n, gamma=n + 1, gmean=n + 2, gvar=n + 3), [[n + 4], [n + 5]]),
        Layer("Linear", {"nout": 3}, {"W": w.T.copy()}, [w.T + 1]),
    ]
    options = {"big": 2**70, "rate": 0.1, "none": None, "on": True, "l": [1, "a"]}
    return Snapshot(layers, (4, 84, 84), {"game": "pöng", "epoch": 3, "options": options})


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "x_1.pkl"
    write_snapshot(path, small())
    read = read_snapshot(path)
    assert read.facts == small().facts
    assert read.input_shape == (4, 84, 84)
    for got, put in zip(read.layers, small().layers, strict=True):
        assert (got.type, got.config) == (put.type, put.config)
        assert got.params.keys() == put.params.keys()
        assert all(np.array_equal(got.params[key], put.params[key]) for key in put.params)
        assert np.array_equal(np.array(got.states), np.array(put.states))
    assert [p.name for p in path.parent.iterdir()] == ["x_1.pkl"]


def test_any_unpickler_reads_it_and_its_globals_are_those_of_the_format(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "x.pkl", small())
    content = (tmp_path / "x.pkl").read_bytes()
    names = {argument for opcode, argument, _ in pickletools.genops(content) if opcode.name == "GLOBAL"}
    assert names == {"numpy dtype", "numpy ndarray", "numpy.core.multiarray _reconstruct"}
    assert content[:2] == b"\x80\x02"
    plain = pickle.loads(content, encoding="latin1")
    layers = plain["model"]["config"]["layers"]
    assert [layer["type"].rsplit(".", 1)[1] for layer in layers] == ["Convolution", "BatchNorm", "Activation", "Linear"]
    assert np.array_equal(layers[0]["params"]["W"], small().layers[0].params["W"])


def test_equal_content_makes_equal_bytes(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "a.pkl", small())
    write_snapshot(tmp_path / "b.pkl", read_snapshot(tmp_path / "a.pkl"))
    assert (tmp_path / "a.pkl").read_bytes() == (tmp_path / "b.pkl").read_bytes()


def test_arrays_take_no_more_room_than_they_need(tmp_path: Path) -> None:
    snapshot = small()
    big = np.random.default_rng(0).standard_normal((512, 3136)).astype(np.float32)
    snapshot.layers[2] = Layer("Linear", {"nout": 512}, {"W": big}, [])
    write_snapshot(tmp_path / "x.pkl", snapshot)
    assert (tmp_path / "x.pkl").stat().st_size < big.nbytes + 10_000


@pytest.mark.skipif(not NEON.is_dir(), reason="the fixtures made by Neon are not here")
@pytest.mark.parametrize("name", ["s42_rmsprop_after", "s42_rmsprop_py36_after", "s42_bn_rmsprop_after"])
def test_has_the_structure_of_neons_own_files(tmp_path: Path, name: str) -> None:
    neon = pickle.loads((NEON / f"{name}.pkl").read_bytes(), encoding="latin1")
    write_snapshot(tmp_path / "x.pkl", read_snapshot(NEON / f"{name}.pkl"))
    ours = pickle.loads((tmp_path / "x.pkl").read_bytes(), encoding="latin1")
    assert outline(ours["model"]) == outline(neon["model"])
    assert outline(ours["cost"]) == outline(neon["cost"])
    assert {*neon} - {*ours} <= {"backend"}


def outline(value: Any) -> Any:
    """A value with arrays as their shape, type and sum, and without the names that Neon counts up as it runs."""
    if isinstance(value, np.ndarray):
        return value.shape, str(value.dtype), float(value.astype(np.float64).sum())
    if isinstance(value, dict):
        return {key: outline(item) for key, item in value.items() if key not in ("name", "bsum", "parallelism")}
    return [outline(item) for item in value] if isinstance(value, list | tuple) else value


# The layout of 2015


def as_python_2(content: bytes) -> bytes:
    """A pickle of ours with the strings that Python 2 wrote, bytes, in place of Unicode."""
    out, position = bytearray(), 0
    for opcode, argument, start in pickletools.genops(content):
        if opcode.name == "BINUNICODE" and isinstance(argument, str):
            text = argument.encode()
            out += content[position:start] + b"U" + bytes([len(text)]) + text
            position = (start or 0) + 5 + len(text)
    return bytes(out + content[position:])


def of_2015(rng: np.random.Generator, actions: int = 4, batch_norm: bool = False) -> list[dict[str, Any]]:
    """The layers of a network for screens of 36x36, with the state of RMSProp."""
    found: list[dict[str, Any]] = []
    for shape, units in (((256, 32), 32), ((512, 64), 64), ((576, 64), 64), ((512, 64), 512), ((actions, 512), 0)):
        w = rng.standard_normal(shape).astype(np.float32) / 20
        found.append({"params": {"W": w}, "states": [w * w]})
        if batch_norm and units:
            n = rng.random((units, 1)).astype(np.float32)
            found.append({"params": [n, n + 1, n + 2, n + 3], "states": [[n + 4], [n + 5]]})
    return found


@pytest.mark.parametrize("layout", ["params by name", "params and the layer's name", "params alone", "arrays alone"])
def test_files_of_2015_load(tmp_path: Path, layout: str) -> None:
    layers: list[Any] = of_2015(np.random.default_rng(1))
    weights = [layer["params"]["W"] for layer in layers]
    if layout == "params and the layer's name":  # as Neon 1.1 wrote them
        layers = [layer | {"params": {"name": "ConvolutionLayer"} | layer["params"]} for layer in layers]
    elif layout != "params by name":
        layers = [layer | {"params": layer["params"]["W"]} for layer in layers]
    if layout == "arrays alone":
        layers = weights
    content = as_python_2(plain_bytes({"layer_params_states": layers, "epoch_index": 142}))
    assert b"U\x13layer_params_states" in content
    (tmp_path / "pong_141.prm").write_bytes(content)
    read = read_snapshot(tmp_path / "pong_141.prm")
    assert (read.facts, read.input_shape) == ({}, ())
    assert [layer.type for layer in read.layers] == ["Convolution"] * 3 + ["Linear"] * 2
    assert [layer.config for layer in read.layers[1:4:2]] == [{"fshape": (4, 4, 64), "strides": 2}, {"nout": 512}]
    for layer, w in zip(read.layers, weights, strict=True):
        assert np.array_equal(layer.params["W"], w)
        assert np.array_equal(layer.states, [] if layout == "arrays alone" else [w * w])
    network = make_network()
    network.load_layers(read.layers, "pong_141.prm")
    for layer, w in zip(network.layers(), weights, strict=True):
        assert np.array_equal(layer.params["W"], w)


def test_files_of_2015_with_batch_norm_load(tmp_path: Path) -> None:
    layers = of_2015(np.random.default_rng(1), batch_norm=True)
    (tmp_path / "x.prm").write_bytes(as_python_2(plain_bytes({"layer_params_states": layers})))
    read = read_snapshot(tmp_path / "x.prm").layers
    assert [layer.type for layer in read] == ["Convolution", "BatchNorm"] * 3 + ["Linear", "BatchNorm", "Linear"]
    network = make_network(batch_norm=True)
    network.load_layers(read, "x.prm")
    for layer, described in zip(network.layers()[1::2], layers[1::2], strict=True):
        for name, array in zip(("beta", "gamma", "gmean", "gvar"), described["params"], strict=True):
            assert np.array_equal(layer.params[name], array)


@pytest.mark.parametrize("layers", [[], 3, [None], [{"params": [1, 2]}], {"W": 1}])
def test_damaged_files_of_2015_get_one_clear_line(tmp_path: Path, layers: Any) -> None:
    (tmp_path / "x.prm").write_bytes(plain_bytes({"layer_params_states": layers}))
    with pytest.raises(SnapshotError, match=r"x\.prm (is not a snapshot: it holds no Neon model|does not fit)"):
        make_network().load_layers(read_snapshot(tmp_path / "x.prm").layers, "x.prm")


def test_a_network_of_few_layers_fits_its_own_snapshot() -> None:
    layers, shape = (Conv(16, 8, 4), Linear(64), Linear(4)), (4, 40, 36)
    arrays = [np.zeros((4 * 64, 16)), np.zeros((64, 16 * 9 * 8)), np.zeros((4, 64))]
    found = [Layer("Linear" if n else "Convolution", {}, {"W": array}, []) for n, array in enumerate(arrays)]
    require_fit(found, layers, shape, "own.pkl")
    for k, words in ((0, "its states have 3 screens, here 4"), (1, "its screens are not 36x40")):
        other = [*found]
        other[k] = found[k]._replace(params={"W": np.zeros([(3 * 64, 16), (64, 16 * 9 * 9)][k])})
        with pytest.raises(SnapshotError, match=words):
            require_fit(other, layers, shape, "other.pkl")


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    found = plain_value(plain_bytes([np.int64(5), np.float32(0.5), np.bool_(True), np.uint8(7)]))
    assert found == [5, 0.5, True, 7]
    assert [type(value) for value in found] == [int, float, bool, int]


@pytest.mark.parametrize("shape", [(2**29, (None,)), 5, (-1, -12), (3,), (1,) * 9 + (12,)])
def test_an_array_of_a_shape_that_cannot_be(tmp_path: Path, shape: Any) -> None:
    content, its_shape = plain_bytes({"model": np.arange(12.0)}), b"(J\x0c\0\0\0t"
    assert content.count(its_shape) == 1
    (tmp_path / "evil.pkl").write_bytes(content.replace(its_shape, pickle.dumps(shape, protocol=2)[2:-1]))
    with pytest.raises(SnapshotError, match=r"an array of shape .{1,70} holds 12 numbers"):
        read_snapshot(tmp_path / "evil.pkl")


class Bomb:
    """Its pickle calls a function when it is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, Any]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("function", [os.system, subprocess.call, eval, os.mkdir], ids=lambda f: f.__name__)
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path: Path, function: Any, protocol: int) -> None:
    target = tmp_path / "pwned"
    argument: Any = {"system": f"mkdir {target}", "call": ["mkdir", str(target)]}.get(function.__name__, str(target))
    if function is eval:
        argument = f"__import__('os').mkdir({str(target)!r})"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"model": Bomb(function, argument)}, protocol=protocol))
    with pytest.raises(SnapshotError, match=r"evil\.pkl is not a snapshot, and was not loaded: it would run"):
        read_snapshot(path)
    assert not target.exists()


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def shared() -> list[Any]:
    """A list of two of a list of two and so on: it has 2^60 items, but few different ones."""
    value: list[Any] = []
    for _ in range(60):
        value = [value, value]
    return value


NESTED = b")" + b"2\x86" * 60  # a tuple of two of the tuple before, and so on: to hash it takes 2^60 steps
WHOLE = plain_bytes({"model": {"config": {"layers": []}}, "text": "x" * 200})
ENDS_EARLY = "a damaged one: it ends early, or its content was changed"
FOREIGN = [
    *((WHOLE[:n], ENDS_EARLY) for n in (1, 2, 10, 100, len(WHOLE) // 2, len(WHOLE) - 1)),
    (bytes(len(WHOLE)), ENDS_EARLY),
    (WHOLE[:2] + b"\xff" + WHOLE[3:], ENDS_EARLY),
    (random.Random(1).randbytes(5000), ENDS_EARLY),
    (pickle.dumps([1, 2]), "it holds no Neon model"),
    (pickle.dumps({"model": 3}), "it holds no Neon model"),
    (pickle.dumps(endless()), "damaged"),
    (pickle.dumps(shared(), protocol=2), "it holds no Neon model"),
    (b"\x80\x02" + b"]" * 100000 + b"a" * 99999 + b".", "damaged"),  # deep
    (b"\x80\x02X\xff\xff\xff\xff.", "damaged"),  # a string of 4 GB
    (b"\x80\x02t.", "damaged"),  # a tuple of nothing
    (b"\x80\x02Nr\xff\xff\xff\x0f.", "it holds no Neon model"),  # a memo of 2^28 places
    (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".", "damaged"),  # an array of 2^40 bytes
    (b"\x80\x02}" + NESTED + b"Ns.", "a key that is neither a name nor a number"),
    (b"\x80\x02}(" + NESTED + b"Nu.", "a key that is neither a name nor a number"),
    (b"\x80\x02(" + NESTED + b"Nd.", "a key that is neither a name nor a number"),
    (b"\x80\x04\x8f(" + NESTED + b"\x90.", "damaged"),  # a set
    (b"\x80\x02cnumpy\ndtype\n(U\x02O8tR.", "it holds an array of 'O8', and only numbers are allowed"),
    (b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00zlbtR.", "it wants the codec 'zlb'"),
    (b"\x80\x02cbuiltins\neval\n.", "it would run builtins.eval"),
    (b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93.", "it would run builtins.exec"),
    (b"\x80\x02\x82\x01.", "damaged"),  # a registered extension
    (plain_bytes({"a": np.zeros(3)}).replace(b"\n", b"\r\n"), "its line ends were changed on the way: copy the file"),
]


@pytest.mark.parametrize(("content", "words"), FOREIGN, ids=lambda value: repr(value)[:40])
def test_damaged_foreign_and_hostile_files_get_one_clear_line(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(SnapshotError, match=rf"x\.pkl is not a snapshot.*{re.escape(words)}") as error:
        read_snapshot(tmp_path / "x.pkl")
    assert "\n" not in str(error.value)


def test_flipped_bytes_never_do_worse_than_an_error(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "whole.pkl", small())
    whole = (tmp_path / "whole.pkl").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        (tmp_path / "x.pkl").write_bytes(damaged)
        try:
            read_snapshot(tmp_path / "x.pkl")
        except SnapshotError as error:
            assert "\n" not in str(error).strip()  # noqa: PT017  (most flips fall into numbers and do no harm)


def test_a_missing_snapshot_names_those_there_are(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "pong_1.pkl", small())
    with pytest.raises(SnapshotError, match=r"there is no snapshot .*pong_2\.pkl: in .* are pong_1\.pkl"):
        read_snapshot(tmp_path / "pong_2.pkl")
    with pytest.raises(SnapshotError, match=r"is a folder, not a snapshot: in .* are pong_1\.pkl$"):
        read_snapshot(tmp_path)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.pkl"
    write_snapshot(path, small())
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*x\.pkl \(.* bytes\): No space left on device"):
        write_snapshot(path, small())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.pkl"]


def torch_file(**how: Any) -> bytes:
    import torch

    out = io.BytesIO()
    torch.save({"weights": torch.zeros(3)}, out, **how)
    return out.getvalue()


def zip_file(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"#!/bin/sh\necho hello\n", "text"),
        ("Grüße".encode("utf-16"), "text"),
        ("Grüße an alle".encode("latin1"), "text"),
        (b"epoch,phase,steps\n1,train,5\n", "a file of statistics"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "a picture"),
        (gzip.compress(b"content", mtime=0), "compressed: unpack it with gunzip"),
        (zip_file("a.txt"), "a zip archive"),
        (zip_file("data", "policy.pth", "_stable_baselines3_version"), "a model of Stable-Baselines3"),
        (b"PK\x03\x04" + bytes(50), "a zip archive"),
        (torch_file(), "a file of PyTorch"),
        (torch_file(_use_new_zipfile_serialization=False), "a file of PyTorch"),
        (find_rom("breakout").read_bytes(), "a ROM"),
        (b"simple_dqn checkpoint 2 0\n", "a checkpoint, and the weights are in x.pkl"),
    ],
)
def test_the_error_says_what_a_file_is_instead_of_a_snapshot(content: bytes, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match=rf"x\.pkl is not a snapshot: it is {kind}") as caught:
        read_snapshot(path)
    assert "Error" not in str(caught.value)
