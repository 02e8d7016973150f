"""IDX files: round trips, and every way in which a file can be damaged."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from faltung.data import read_idx, write_idx
from faltung.errors import DataError, SettingError

DTYPES = [np.uint8, np.int8, np.int16, np.int32, np.float32, np.float64]
IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("idx")


@settings(max_examples=60, deadline=None)
@given(
    array=st.sampled_from(DTYPES).flatmap(
        lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    ),
    name=st.sampled_from(["plain", "zipped.gz"]),
)
def test_what_is_written_is_read(folder, array, name):
    write_idx(folder / name, array)
    read = read_idx(folder / name)
    assert read.dtype == array.dtype
    assert read.dtype.isnative
    assert read.shape == array.shape
    assert read.tobytes() == array.tobytes()  # NaN too
    assert read.flags.writeable


def test_the_bytes_are_those_of_the_format(tmp_path):
    write_idx(tmp_path / "labels", np.array([[1, -2]], np.int16))
    assert (tmp_path / "labels").read_bytes() == bytes.fromhex("00000b02 00000001 00000002 0001 fffe")


def test_a_foreign_byte_order_and_a_strided_array_are_written_alike(tmp_path):
    array = np.arange(12, dtype=">i4").reshape(3, 4).T[::2]
    write_idx(tmp_path / "a", array)
    assert np.array_equal(read_idx(tmp_path / "a"), array)


def test_content_and_not_name_tells_gzip(tmp_path):
    write_idx(tmp_path / "a.gz", IMAGES)
    (tmp_path / "a.gz").rename(tmp_path / "zipped")
    write_idx(tmp_path / "plain", IMAGES)
    (tmp_path / "plain").rename(tmp_path / "plain.gz")
    assert np.array_equal(read_idx(tmp_path / "zipped"), IMAGES)
    assert np.array_equal(read_idx(str(tmp_path / "plain.gz")), IMAGES)


def test_gzipped_bytes_depend_on_the_array_only(tmp_path, monkeypatch):
    write_idx(tmp_path / "one.gz", IMAGES)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    write_idx(tmp_path / "two.gz", IMAGES)
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()


def test_a_dtype_without_a_code(tmp_path):
    message = "an IDX file holds uint8, int8, int16, int32, float32, float64, got int64; convert with astype"
    with pytest.raises(SettingError, match=message):
        write_idx(tmp_path / "a", np.arange(3))
    assert not list(tmp_path.iterdir())


def plain(path, content):
    path.write_bytes(content)


def zipped(path, content):
    path.write_bytes(gzip.compress(content))


def header(*sizes, code=0x08):
    return struct.pack(f">BBBB{len(sizes)}I", 0, 0, code, len(sizes), *sizes)


SIZES = header(2, 3, 4)


@pytest.mark.parametrize("pack", [plain, zipped])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "it begins with nothing, expected 00 00, a type", id="empty"),
        pytest.param(b"\0\0\x08", "it begins with 00 00 08, expected 00 00, a type", id="short magic"),
        pytest.param(b"\x89PNG\r\n", "it begins with 89 50 4e 47, expected .*; is it an IDX file", id="another kind"),
        pytest.param(b"\0\0\x0a\x01" + bytes(8), "it begins with 00 00 0a 01, expected", id="unknown type"),
        pytest.param(SIZES[:-1], "its header ends after 15 of 16 bytes; fetch the file again", id="short header"),
        pytest.param(SIZES + bytes(23), r".* 24 bytes \(2 x 3 x 4 of uint8\), got only 23; fetch", id="short"),
        pytest.param(SIZES + bytes(25), r".* 24 bytes \(2 x 3 x 4 of uint8\), got more; fetch", id="long"),
        pytest.param(header(2, 3, code=0x0D), r".* 24 bytes \(2 x 3 of float32\), got only 0; fetch", id="no body"),
        pytest.param(header(*[2**32 - 1] * 3), ".* 79228162458924105385300197375 bytes .* only 0; fetch", id="huge"),
        pytest.param(header(0, *[2**32 - 1] * 3), "its header is no shape of an array", id="huge but empty"),
        pytest.param(header(*[1] * 255) + bytes(1), "its header is no shape of an array", id="rank 255"),
    ],
)
def test_a_damaged_file(tmp_path, pack, content, message):
    pack(tmp_path / "images", content)
    with pytest.raises(DataError, match=f"images: {message}") as caught:
        read_idx(tmp_path / "images")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*nothing: No such file or directory; check the path"):
        read_idx(tmp_path / "nothing")
    with pytest.raises(DataError, match="cannot read"):
        read_idx(tmp_path)


def random_zipped(tmp_path):
    """A file whose stream is long enough to be cut and spoilt in the middle, and its intact bytes."""
    path = tmp_path / "images.gz"
    write_idx(path, np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8))
    return path, path.read_bytes()


def test_a_gzip_stream_cut_short_says_how_much_it_held(tmp_path):
    path, content = random_zipped(tmp_path)
    path.write_bytes(content[:20_000])
    with pytest.raises(DataError, match=r"promises 39200 bytes .*, got only (19|20)\d{3}; fetch the file again"):
        read_idx(path)


@pytest.mark.parametrize("cut", [10, 11, -1, -8])
def test_a_gzip_stream_cut_in_its_header_or_checksum(tmp_path, cut):
    path, content = random_zipped(tmp_path)
    path.write_bytes(content[:cut])
    with pytest.raises(DataError, match=r"its gzip stream is damaged .*; fetch the file again"):
        read_idx(path)


def test_a_wrong_checksum(tmp_path):
    path, content = random_zipped(tmp_path)
    path.write_bytes(content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])
    with pytest.raises(DataError, match=r"its gzip stream is damaged .*CRC"):
        read_idx(path)


def test_bytes_behind_the_gzip_stream(tmp_path):
    path, content = random_zipped(tmp_path)
    path.write_bytes(content + b"more")
    with pytest.raises(DataError, match="its gzip stream is damaged"):
        read_idx(path)


def test_no_damaged_byte_passes_unseen(tmp_path):
    path = tmp_path / "images.gz"
    write_idx(path, IMAGES)
    content = path.read_bytes()
    unseen = set()
    for position in range(len(content)):
        for flip in 1 << np.arange(8):
            path.write_bytes(content[:position] + bytes([content[position] ^ flip]) + content[position + 1 :])
            try:
                assert np.array_equal(read_idx(path), IMAGES)
                unseen.add(position)
            except DataError:
                pass
    last = len(content) - 9  # of the packed bytes; some of its bits are only there to fill it
    assert unseen <= {*range(3, 10), last}  # 3 to 9: flags, time and system in the header of gzip


def test_an_absurd_size_takes_no_memory(tmp_path):
    plain(tmp_path / "a", header(4_000_000_000) + bytes(10))
    tracemalloc.start()
    with pytest.raises(DataError, match="promises 4000000000 bytes"):
        read_idx(tmp_path / "a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000
