"""Images: as training consumes them, one file, and whole folders."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from faltung.data import Arrays, Data, Images, batches, read_folder, read_image, write_idx
from faltung.errors import DataError, SettingError

RNG = np.random.default_rng(20140911)


def some_images(count=7, height=3, width=4, channels=2):
    pixels = RNG.integers(0, 256, (count, height, width, channels), np.uint8)
    return Images(pixels, np.arange(count) % 3, ("a", "b", "c"))


# What training consumes


def test_images_become_numbers_from_0_to_1_only_when_asked_for():
    images = some_images()
    x, labels = images[np.array([6, 0, 6])]
    assert x.dtype == np.float32
    assert labels.dtype == np.int64
    assert np.array_equal(x, images.pixels[[6, 0, 6]].astype(np.float32) / np.float32(255))
    assert labels.tolist() == [0, 0, 0]
    assert images.pixels.dtype == np.uint8
    assert repr(images) == "Images(7 of 3 x 4 x 2, 3 classes)"


def test_every_byte_is_scaled_to_the_nearest_float32():
    pixels = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    x, _ = Images(pixels, np.zeros(256, np.uint8), ("a", "b"))[:]
    assert np.array_equal(x.ravel(), (np.arange(256) / 255).astype(np.float32))


def test_arrays_keep_their_dtype():
    data: Data = Arrays(np.arange(6.0).reshape(3, 2), np.array([[1], [2], [3]], np.int8))
    x, target = data[1:]
    assert (len(data), x.dtype, target.dtype) == (3, np.float64, np.int8)
    assert (x.tolist(), target.tolist()) == ([[2.0, 3.0], [4.0, 5.0]], [[2], [3]])


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 20), size=st.integers(1, 25), drop_last=st.booleans(), seed=st.integers(0, 9))
def test_batches_give_each_example_once_in_the_order_asked_for(count, size, drop_last, seed):
    data = Arrays(np.arange(count) * 10, np.arange(count))
    order = np.random.default_rng(seed).permutation(count)
    if drop_last and count < size:
        with pytest.raises(DataError, match=f"{count} examples do not fill one batch of {size}; use a smaller batch"):
            batches(data, size, order=order, drop_last=True)
        return
    got = list(batches(data, size, order=order, drop_last=drop_last))
    kept = count // size * size if drop_last else count
    assert np.array_equal(np.concatenate([target for _, target in got]), order[:kept])
    assert np.array_equal(np.concatenate([x for x, _ in got]), order[:kept] * 10)
    assert all(len(x) == size for x, _ in got[:-1])


def test_batches_without_an_order_take_the_examples_as_they_lie():
    assert [target.tolist() for _, target in batches(Arrays(np.arange(3), np.arange(3)), 2)] == [[0, 1], [2]]


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_that_is_not_positive(size):
    with pytest.raises(SettingError, match=f"the batch size is {size}, expected at least 1"):
        batches(some_images(), size)


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (np.zeros((60, 2, 2, 1), np.uint8), np.zeros(59, int), "60 images but 59 labels; give one for each"),
        (np.zeros((0, 2, 2, 1), np.uint8), np.zeros(0, int), "there are no images; give at least one"),
        (np.zeros((6, 2, 2), np.uint8), np.zeros(6, int), r"pixels are uint8 \(6, 2, 2\), expected uint8 \(n, height"),
        (np.zeros((6, 2, 2, 1)), np.zeros(6, int), r"pixels are float64 .* use Arrays for other inputs"),
        (np.zeros((6, 2, 2, 1), np.uint8), np.zeros(6), r"labels are float64 \(6,\), expected integers \(n,\)"),
        (np.zeros((6, 2, 2, 1), np.uint8), np.zeros((6, 2), int), r"labels are int64 \(6, 2\), expected integers"),
        (np.zeros((2, 2, 2, 1), np.uint8), np.array([0, 2]), "labels go from 0 to 2, expected 0 to 1"),
        (np.zeros((2, 2, 2, 1), np.uint8), np.array([-1, 1]), "labels go from -1 to 1, expected 0 to 1"),
    ],
)
def test_images_that_do_not_fit_their_labels(pixels, labels, message):
    with pytest.raises(DataError, match=message):
        Images(pixels, labels, ("a", "b"))


def test_arrays_that_do_not_fit_each_other():
    with pytest.raises(DataError, match="3 examples but 2 targets; give one for each"):
        Arrays(np.zeros(3), np.zeros(2))


# One file


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "ppm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_come_as_they_were_saved(tmp_path, ending, channels):
    pixels = RNG.integers(0, 256, (5, 3, channels), np.uint8)
    path = save(tmp_path / f"image.{ending}", pixels.squeeze(2) if channels == 1 else pixels)
    assert np.array_equal(read_image(path, channels), pixels)


@pytest.mark.parametrize("ending", ["jpg", "gif", "webp"])
def test_lossy_kinds_come_close(tmp_path, ending):
    pixels = np.broadcast_to(np.linspace(40, 200, 16).astype(np.uint8)[:, None, None], (16, 16, 3))
    read = read_image(save(tmp_path / f"image.{ending}", pixels), 3)
    assert np.abs(read.astype(int) - pixels).max() <= 8


def test_grey_becomes_colour_by_repetition_and_colour_grey_by_its_luma(tmp_path):
    grey = RNG.integers(0, 256, (4, 5), np.uint8)
    assert np.array_equal(read_image(save(tmp_path / "grey.png", grey), 3), np.repeat(grey[..., None], 3, axis=2))
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]], np.uint8)
    assert read_image(save(tmp_path / "colours.png", colours), 1).ravel().tolist() == [76, 150, 29, 9]


def test_16_bits_are_scaled_not_cut_off(tmp_path):
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    expected = [0, 0, 1, 1, 128, 255]
    assert read_image(save(tmp_path / "deep.png", deep), 1).ravel().tolist() == expected
    assert read_image(save(tmp_path / "deep.tif", deep), 3)[0, :, 0].tolist() == expected


def test_transparent_parts_are_laid_over_white(tmp_path):
    rgba = np.array([[[10, 20, 30, 255], [0, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)
    assert read_image(save(tmp_path / "a.png", rgba), 3).tolist() == [[[10, 20, 30], [255] * 3, [204] * 3]]
    shade = np.array([[[7, 255], [0, 0]]], np.uint8)
    assert read_image(save(tmp_path / "b.png", shade), 1).ravel().tolist() == [7, 255]


def test_a_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter: the first row is the right side
    path = save(tmp_path / "photo.png", np.array([[1, 2, 3], [4, 5, 6]], np.uint8), exif=exif)
    assert read_image(path, 1)[..., 0].tolist() == [[4, 1], [5, 2], [6, 3]]


def test_resizing_averages_over_all_pixels(tmp_path):
    stripes = np.tile(np.array([0, 200], np.uint8), (64, 32))
    small = read_image(save(tmp_path / "stripes.png", stripes), 1, size=(5, 8))
    assert small.shape == (5, 8, 1)
    assert np.abs(small[:, 1:-1].astype(int) - 100).max() <= 8  # a sample of every eighth pixel would give 0 or 200
    colour = np.broadcast_to(np.array([10, 20, 30], np.uint8), (6, 4, 3))
    assert np.array_equal(
        read_image(save(tmp_path / "colour.png", colour), 3, size=(3, 9)), np.broadcast_to(colour[0, 0], (3, 9, 3))
    )


def test_an_image_of_the_wanted_size_is_left_alone(tmp_path):
    pixels = RNG.integers(0, 256, (4, 5, 3), np.uint8)
    assert np.array_equal(read_image(save(tmp_path / "a.png", pixels), 3, size=(4, 5)), pixels)


def spoil(path, how):
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"no image", "cut": content[: len(content) // 2]}[how])


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "bmp"])
@pytest.mark.parametrize("how", ["empty", "text", "cut"])
def test_a_file_that_is_no_image(tmp_path, ending, how):
    path = save(tmp_path / f"image.{ending}", RNG.integers(0, 256, (40, 40, 3), np.uint8))
    spoil(path, how)
    with pytest.raises(DataError, match=rf"cannot read .*image\.{ending}: .+; (convert|replace)") as caught:
        read_image(path, 3)
    assert "\n" not in str(caught.value)


def test_a_missing_image(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*a\.png: No such file or directory; replace or remove the file"):
        read_image(tmp_path / "a.png", 1)


def test_pixels_that_do_not_fit_into_a_byte(tmp_path):
    with pytest.raises(DataError, match="its pixels are floating-point numbers, expected 8 or 16 bits"):
        read_image(save(tmp_path / "float.tif", np.zeros((2, 2), np.float32)), 1)
    with pytest.raises(DataError, match="its pixels go from -1 to 70000, expected 0 to 65535"):
        read_image(save(tmp_path / "deep.tif", np.array([[-1, 70000]], np.int32)), 1)


def test_arguments_out_of_range(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(SettingError, match=r"got channels=4, expected 1 \(grey\) or 3 \(colour\); choose one"):
        read_image(path, 4)
    with pytest.raises(SettingError, match="the size of images is 0 x 5, expected at least 1 x 1"):
        read_image(path, 1, size=(0, 5))


# Folders of images


def grey(value):
    return np.full((2, 3), value, np.uint8)


def test_every_tenth_image_of_a_class_is_for_the_test(tmp_path):
    for value in RNG.permutation(23):  # the order of writing must not matter
        save(tmp_path / "dogs" / f"{value:02}.png", grey(value))
    for value in RNG.permutation(12):
        save(tmp_path / "cats" / f"{value:02}.bmp", grey(100 + value))
    train, test = read_folder(tmp_path)
    assert train.classes == test.classes == ("cats", "dogs")
    assert test.pixels[:, 0, 0, 0].tolist() == [109, 9, 19]
    assert test.labels.tolist() == [0, 1, 1]
    cats, dogs = [v for v in range(12) if v != 9], [v for v in range(23) if v not in (9, 19)]
    assert train.pixels[:, 0, 0, 0].tolist() == [100 + v for v in cats] + dogs
    assert train.labels.tolist() == [0] * 11 + [1] * 21
    assert train.pixels.shape == (32, 2, 3, 1)


def test_train_and_test_folders_are_kept_apart(tmp_path):
    for part, name, value in ("train", "a", 1), ("train", "b", 2), ("train", "c", 3), ("test", "b", 4):
        save(tmp_path / part / name / "0.png", grey(value))
    train, test = read_folder(str(tmp_path))
    assert train.classes == test.classes == ("a", "b", "c")
    assert train.pixels[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert (test.pixels[:, 0, 0, 0].tolist(), test.labels.tolist()) == ([4], [1])


def two_classes(folder, count=10):
    for name, value in ("a", 10), ("b", 20):
        for i in range(count):
            save(folder / name / f"{i}.png", grey(value))
    return folder


def test_hidden_and_other_files_are_passed_over(tmp_path):
    two_classes(tmp_path)
    for name in (".DS_Store", "notes.txt", "a/.hidden.png", "a/Thumbs.db"):
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / ".git").mkdir()
    save(tmp_path / "a" / "10.PNG", grey(30))
    train, test = read_folder(tmp_path)
    assert (train.classes, len(train), len(test)) == (("a", "b"), 19, 2)


@pytest.mark.parametrize(
    ("name", "picture", "channels"),
    [
        ("grey.png", Image.new("L", (3, 2)), 1),
        ("deep.png", Image.fromarray(np.zeros((2, 3), np.uint16)), 1),
        ("bits.png", Image.new("1", (3, 2)), 1),
        ("alpha.png", Image.new("LA", (3, 2)), 1),
        ("grey_palette.png", Image.new("L", (3, 2), 7).quantize(), 1),
        ("colour_palette.png", Image.new("RGB", (3, 2), "red").quantize(), 3),
        ("colour.png", Image.new("RGB", (3, 2)), 3),
        ("colour.jpg", Image.new("CMYK", (3, 2)), 3),
    ],
)
def test_images_are_grey_only_if_all_are(tmp_path, name, picture, channels):
    picture.save(two_classes(tmp_path) / "b" / name)
    train, test = read_folder(tmp_path)
    assert train.pixels.shape[1:] == test.pixels.shape[1:] == (2, 3, channels)


def test_images_of_another_size(tmp_path):
    save(two_classes(tmp_path) / "b" / "5.png", np.zeros((4, 3), np.uint8))
    save(tmp_path / "b" / "6.png", np.zeros((7, 7), np.uint8))
    message = r"b.5\.png is 4 x 3, but .*a.0\.png is 2 x 3, expected one size; resize all images, as size=\(2, 3\)"
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path)
    train, test = read_folder(tmp_path, size=(5, 4))
    assert train.pixels.shape == (18, 5, 4, 1)
    assert test.pixels.shape == (2, 5, 4, 1)


def test_an_unreadable_image_is_named(tmp_path):
    (two_classes(tmp_path) / "b" / "7.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cannot read .*b.7\.png: no known kind of image; convert it to PNG or JPEG"):
        read_folder(tmp_path)


def refused(folder, message):
    with pytest.raises(DataError, match=message) as caught:
        read_folder(folder)
    assert "\n" not in str(caught.value)


def test_folders_without_a_data_set(tmp_path):
    refused(tmp_path / "nowhere", r"cannot read the folder .*nowhere: No such file or directory; check the path")
    (tmp_path / "file").touch()
    refused(tmp_path / "file", r"cannot read the folder .*file: Not a directory")
    refused(tmp_path, r"no folders \(0 loose images\), expected one folder of images a class, or four IDX files")
    save(tmp_path / "loose.png", grey(0))
    refused(tmp_path, r"no folders \(1 loose images\), .*; put the images of each class into its own folder")
    save(tmp_path / "a" / "0.png", grey(0))
    refused(tmp_path, "got one class, 'a', expected two or more; put the images of each class")
    (tmp_path / "b").mkdir()
    refused(tmp_path, r"b: this class has no image \(\.bmp .* \.webp\); add some or remove it")
    save(tmp_path / "b" / "0.png", grey(0))
    refused(tmp_path, r"no class has ten images, .*; add images, or make the folders train and test")
    save(tmp_path / "b" / "inner" / "0.png", grey(0))
    refused(tmp_path, "inner: got a folder in the folder of a class, expected images; put the images")


def test_a_training_folder_alone(tmp_path):
    two_classes(tmp_path / "train")
    refused(
        tmp_path, "train.a: got a folder in the folder of a class, .* directly in the data folder or in its folders"
    )


def test_a_class_that_was_never_trained(tmp_path):
    two_classes(tmp_path / "train")
    save(two_classes(tmp_path / "test") / "c" / "0.png", grey(0))
    with pytest.raises(DataError, match="class 'c' has test images but no training images; rename or remove it"):
        read_folder(tmp_path)


# The files of MNIST


def mnist(folder, train=12, test=4, end="", size=(3, 4)):
    for part, count in ("train", train), ("t10k", test):
        write_idx(folder / f"{part}-images-idx3-ubyte{end}", RNG.integers(0, 256, (count, *size), np.uint8))
        write_idx(folder / f"{part}-labels-idx1-ubyte{end}", np.arange(count, dtype=np.uint8) % 5)
    return folder


@pytest.mark.parametrize("end", ["", ".gz"])
def test_the_four_files_of_mnist(tmp_path, end):
    train, test = read_folder(mnist(tmp_path, end=end))
    assert (train.pixels.shape, test.pixels.shape) == ((12, 3, 4, 1), (4, 3, 4, 1))
    assert train.classes == test.classes == ("0", "1", "2", "3", "4")
    assert test.labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("end", ["", ".gz"])
def test_the_names_that_kaggle_gives_them(tmp_path, end):
    expected, _ = read_folder(mnist(tmp_path, end=end))
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / path.name.replace("-idx", ".idx"))
    assert (tmp_path / f"t10k-labels.idx1-ubyte{end}").is_file()
    train, _ = read_folder(tmp_path)
    assert np.array_equal(train.pixels, expected.pixels)


def test_the_files_of_mnist_resized(tmp_path):
    mnist(tmp_path)
    before, _ = read_folder(tmp_path)
    train, test = read_folder(tmp_path, size=(1, 1))
    assert (train.pixels.shape, test.pixels.shape) == ((12, 1, 1, 1), (4, 1, 1, 1))
    assert np.abs(train.pixels.ravel() - before.pixels.mean(axis=(1, 2, 3))).max() < 60  # a weighted mean


def test_a_missing_file_of_mnist(tmp_path):
    (mnist(tmp_path) / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(
        DataError, match=r"train-labels-idx1-ubyte is missing, with or without \.gz; fetch all four files"
    ):
        read_folder(tmp_path)


def test_counts_that_differ(tmp_path):
    write_idx(mnist(tmp_path) / "train-labels-idx1-ubyte", np.zeros(11, np.uint8))
    message = "train-images-idx3-ubyte: 12 images but 11 labels in train-labels-idx1-ubyte; fetch the files again"
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path)


@pytest.mark.parametrize("array", [np.zeros((12, 3), np.uint8), np.zeros(12, np.int32), np.zeros(0, np.uint8)])
def test_files_that_hold_something_else(tmp_path, array):
    write_idx(mnist(tmp_path) / "train-labels-idx1-ubyte", array)
    message = rf"labels-idx1-ubyte: got {array.dtype} \(.*\), expected uint8, rank 1, not empty; are the files swapped"
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path)


def test_test_images_of_another_size(tmp_path):
    write_idx(mnist(tmp_path) / "t10k-images-idx3-ubyte", np.zeros((4, 5, 5), np.uint8))
    with pytest.raises(
        DataError,
        match=r"training images are 3 x 4, test images 5 x 5, expected one size; .*size=\(3, 4\) .* --size 3x4",
    ):
        read_folder(tmp_path)


@pytest.mark.slow
def test_the_full_mnist(full_data):
    train, test = read_folder(full_data / "mnist")
    assert (repr(train), repr(test)) == (
        "Images(60000 of 28 x 28 x 1, 10 classes)",
        "Images(10000 of 28 x 28 x 1, 10 classes)",
    )
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
