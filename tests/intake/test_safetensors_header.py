import io
import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from app.domain.errors import MalformedSafetensors, PickleRefused, Refused, TensorRefused
from app.intake.limits import CHECKPOINT_LIMITS, UPLOAD_LIMITS, Limits
from app.intake.safetensors_header import DTYPE_BITS, Header, read_header
from tests.intake.files import GOOD_WEIGHTS, field, frame, pair, weights


def read(raw: bytes, limits: Limits = UPLOAD_LIMITS) -> Header:
    return read_header(io.BytesIO(raw), len(raw), file_name="w.safetensors", limits=limits)


def test_offsets_are_absolute_and_tensors_come_in_the_order_of_their_bytes() -> None:
    raw = frame({"b": field("U8", [3], 4, 7), "a": field("F32", [1], 0, 4)}, b"\0\1\2\3xyz")
    header = read(raw)
    assert [tensor.name for tensor in header.tensors] == ["a", "b"]
    last = header.tensors[1]
    assert raw[last.begin : last.end] == b"xyz"
    assert last.size_bytes == 3
    assert header.header_bytes == len(raw) - 7


def test_what_safetensors_saves_is_read_with_the_same_names_shapes_and_bytes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "w.safetensors"
    tensors = {
        "x.weight": torch.arange(6.0).reshape(2, 3),
        "y": torch.ones(4, dtype=torch.bfloat16),
    }
    save_file(tensors, path, metadata={"format": "pt"})
    raw = path.read_bytes()
    header = read(raw)
    assert header.metadata == {"format": "pt"}
    for entry in header.tensors:
        tensor = tensors[entry.name]
        assert entry.shape == tuple(tensor.shape)
        assert raw[entry.begin : entry.end] == tensor.view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", DTYPE_BITS)
def test_every_dtype_has_the_size_that_safetensors_gives_it(dtype: str, tmp_path: Path) -> None:
    size = DTYPE_BITS[dtype]  # 8 elements have as many bytes as one has bits
    raw = frame({"a": field(dtype, [8], 0, size)}, bytes(size))
    assert read(raw).tensors[0].size_bytes == size
    path = tmp_path / "w.safetensors"
    path.write_bytes(raw)
    with safe_open(path, "np") as file:
        assert list(file.keys()) == ["a"]


def test_a_header_of_640_bytes_is_not_taken_for_a_pickle() -> None:
    header = json.dumps({"a": field("U8", [1], 0, 1)}).encode().ljust(640)
    raw = frame(header, b"\0")
    assert raw.startswith(b"\x80\x02")
    assert read(raw).tensors[0].name == "a"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_under_another_name_is_called_a_pickle(protocol: int) -> None:
    import pickle

    with pytest.raises(PickleRefused, match=r"w\.safetensors"):
        read(pickle.dumps({"weights": list(range(100))}, protocol=protocol))


def test_a_torch_file_under_another_name_is_called_a_pickle() -> None:
    out = io.BytesIO()
    torch.save({"a": torch.ones(2)}, out)
    with pytest.raises(PickleRefused):
        read(out.getvalue())


def test_zero_size_tensors_are_refused_in_uploads_and_taken_in_checkpoints() -> None:
    raw = frame({"a": field("F32", [0, 10**9], 0, 0), "b": field("U8", [1], 0, 1)}, b"\0")
    with pytest.raises(TensorRefused, match="tensor a"):
        read(raw)
    assert read(raw, CHECKPOINT_LIMITS).tensors[0].shape == (0, 10**9)


def test_a_cut_file_and_a_padded_file_are_told_apart() -> None:
    with pytest.raises(MalformedSafetensors, match="cut short"):
        read(GOOD_WEIGHTS[:-1])
    with pytest.raises(MalformedSafetensors, match="padded"):
        read(GOOD_WEIGHTS + b"\0")


def test_no_tensor_byte_is_read() -> None:
    raw = frame({"a": field("U8", [1000], 0, 1000)}, bytes(1000))
    file = io.BytesIO(raw)
    read_header(file, len(raw), file_name="w", limits=UPLOAD_LIMITS)
    assert file.tell() == len(raw) - 1000


def test_more_tensors_than_allowed_are_refused() -> None:
    raw = weights([(f"t{n}", [1]) for n in range(11)], "U8")
    with pytest.raises(MalformedSafetensors, match="11 tensors"):
        read(raw, Limits(tensors=10))


def opens_with_the_same_content(raw: bytes, path: Path) -> None:
    """Refused, or accepted and then opened by safetensors with the same names and shapes."""
    try:
        header = read(raw)
    except Refused:
        return
    path.write_bytes(raw)
    with safe_open(path, "np") as file:
        assert set(file.keys()) == {tensor.name for tensor in header.tensors}
        for tensor in header.tensors:
            part = file.get_slice(tensor.name)
            assert tuple(part.get_shape()) == tensor.shape
            assert part.get_dtype() == tensor.dtype
        assert (file.metadata() or {}) == header.metadata


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("header") / "w.safetensors"


@settings(deadline=None)  # because the machine is shared
@given(raw=st.binary(max_size=200))
@example(raw=b"")
@example(raw=struct.pack("<Q", 2) + b"{}")
def test_random_bytes_raise_nothing_but_a_refusal(raw: bytes, scratch: Path) -> None:
    opens_with_the_same_content(raw, scratch)


@settings(deadline=None)  # because the machine is shared
@given(text=st.binary(max_size=80), data=st.binary(max_size=8))
def test_random_headers_raise_nothing_but_a_refusal(
    text: bytes, data: bytes, scratch: Path
) -> None:
    opens_with_the_same_content(frame(b"{" + text + b"}", data), scratch)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
FIELDS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPE_BITS, "f32", ""]),
        "shape": st.lists(st.integers(0, 4), max_size=3) | JSON_VALUES,
        "data_offsets": st.lists(st.integers(0, 32), min_size=2, max_size=2) | JSON_VALUES,
    }
)


@settings(deadline=None)  # because the machine is shared
@given(
    header=st.dictionaries(
        st.text(max_size=5) | st.just("__metadata__"), FIELDS | JSON_VALUES, max_size=3
    ),
    data=st.binary(max_size=64),
)
def test_odd_headers_raise_nothing_but_a_refusal(
    header: dict[str, object], data: bytes, scratch: Path
) -> None:
    opens_with_the_same_content(frame(header, data), scratch)


@settings(deadline=None)  # because the machine is shared
@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(GOOD_WEIGHTS) - 1), st.integers(0, 255)), max_size=3
    ),
    keep=st.integers(0, len(GOOD_WEIGHTS)) | st.just(len(GOOD_WEIGHTS)),
    more=st.binary(max_size=3),
)
def test_damaged_files_raise_nothing_but_a_refusal(
    edits: list[tuple[int, int]], keep: int, more: bytes, scratch: Path
) -> None:
    raw = bytearray(GOOD_WEIGHTS)
    for at, value in edits:
        raw[at] = value
    opens_with_the_same_content(bytes(raw[:keep]) + more, scratch)


@settings(deadline=None)  # because the machine is shared
@given(
    ranks=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    dtype=st.sampled_from(["F64", "F32", "F16", "BF16"]),
)
def test_sound_files_are_accepted_and_open(ranks: list[int], dtype: str, scratch: Path) -> None:
    shapes = [tensor for n, rank in enumerate(ranks) for tensor in pair(f"m.{n}", rank)]
    raw = weights(shapes, dtype, {"format": "pt"})
    assert len(read(raw).tensors) == 2 * len(ranks)
    opens_with_the_same_content(raw, scratch)
