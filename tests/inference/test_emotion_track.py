"""Emotion tracks: CSV files, their errors, and interpolation between rows."""

import numpy as np
import pytest

from deeptalk_jax.assembly.emotion_centroids import EmotionCentroids
from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.emotion_blend import EmotionTable, Moments
from deeptalk_jax.inference.emotion_track import read_track, track_of_rows


@pytest.fixture(scope="module")
def table():
    """Returns centroids where every emotion has its own axis and its own variance."""
    mean = np.broadcast_to(np.eye(8, dtype=np.float32)[:, None], (8, 3, 8))
    variance = np.broadcast_to(np.arange(1.0, 9.0, dtype=np.float32)[:, None, None], (8, 3, 8))
    return EmotionTable(EmotionCentroids(mean, np.log(variance), np.ones((8, 3), np.int32)))


@pytest.fixture
def read(tmp_path, table):
    def read(text):
        (tmp_path / "track.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_track(tmp_path / "track.csv", table)

    return read


def shares(track, second):
    """Returns the weights of the first four emotions in the frame whose middle is at `second`."""
    frame = second * 25 - 0.5
    assert abs(frame - round(frame)) < 1e-9
    gaussian = track.frames(round(frame), 1)
    np.testing.assert_allclose(np.linalg.norm(gaussian.mean), 1.0, rtol=1e-6)
    total = gaussian.mean / gaussian.mean.sum()
    # The variance is linear in the shares, 1 to 8.
    np.testing.assert_allclose(np.exp(gaussian.log_variance[:, 0]), total @ np.arange(1, 9), rtol=1e-5)
    return total[0, :4]


def test_a_file_with_a_column_of_weights_per_emotion(read):
    track = read("\ufeffseconds,happy, surprised@2\r\n0.02,0,\r\n\r\n1.02,0.5,0.5\r\n 2.02,3,1\r\n")
    np.testing.assert_allclose(shares(track, 0.02), [1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(shares(track, 0.26), [0.76, 0.12, 0, 0.12], atol=1e-6)
    np.testing.assert_allclose(shares(track, 1.02), [0, 0.5, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose(shares(track, 1.50), [0, 0.62, 0, 0.38], atol=1e-6)
    for second in (2.02, 2.06, 99.02):
        np.testing.assert_allclose(shares(track, second), [0, 0.75, 0, 0.25], atol=1e-6)


def test_a_file_with_names_and_intensities(read):
    track = read("seconds,emotion,intensity\n0.5,sad,2\n1.5,happy,0.5\n")
    np.testing.assert_allclose(shares(track, 0.02), [0, 0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(shares(track, 1.02), [0.26, 0.26, 0.48, 0], atol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffseconds;happy\r\n0,0;0,5\r\n1,04;0,8\r\n",  # spreadsheets with decimal commas
        "seconds;happy\n0.0;0.5\n1.04;0.8\n",
        "seconds,happy,\n0,0.5,\n1.04,0.8,\n,,\n",  # an empty column and an empty row
        "Seconds,Happy\n0,0.5\n1.04,0.8\n",
        "SECONDS,Joy\n0,0.5\n1.04,0.8\n",
    ],
)
def test_files_of_spreadsheets_give_the_same_track(read, text):
    track = read(text)
    np.testing.assert_allclose(shares(track, 1.06), [0.2, 0.8, 0, 0], atol=1e-6)
    np.testing.assert_allclose(shares(track, 0.26), [0.425, 0.575, 0, 0], atol=1e-6)


def test_names_and_intensities_with_decimal_commas(read):
    track = read("Seconds;Emotion;Intensity\r\n0,5;Sadness;2\r\n1,5;joy;0,5\r\n")
    np.testing.assert_allclose(shares(track, 1.02), [0.26, 0.26, 0.48, 0], atol=1e-6)


def test_a_stretch_has_the_same_frames_as_the_whole_track(read):
    track = read("seconds,happy\n0.3,0\n1.7,1\n")
    whole = track.frames(0, 60)
    assert whole.mean.shape == whole.log_variance.shape == (60, 8) and whole.mean.dtype == np.float32
    part = track.frames(24, 20)
    for array, expected in zip(part, whole, strict=True):
        np.testing.assert_array_equal(array, expected[24:44])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a header with the names of the columns, and rows below it"),
        ("seconds,happy\n", "expected a header with the names of the columns, and rows below it"),
        ("time,happy\n0,1\n", "line 1: columns ['time', 'happy'] must begin with 'seconds'"),
        ("seconds\n0\n", "line 1: columns ['seconds'] must begin with 'seconds', then emotions"),
        ("seconds,hapy\n0,1\n", "line 1: emotion 'hapy': unknown name 'hapy'; known: neutral"),
        ("seconds,happy:1\n0,1\n", "line 1: emotion 'happy:1' must not have a weight"),
        ("seconds,happy\n0,1\n1,1,1\n", "line 3: 3 cells, expected 2"),
        ("seconds,happy\n0,1\n\nsoon,1\n", "line 4: seconds 'soon' is not a number, 0 or above"),
        ("seconds,happy\n-1,1\n", "line 2: seconds '-1' is not a number, 0 or above"),
        ("seconds,happy\n0,-0.5\n", "line 2: happy '-0.5' is not a number, 0 or above"),
        ("seconds,happy\n0,nan\n", "line 2: happy 'nan' is not a number, 0 or above"),
        ("seconds,happy\n1,1\n1,0\n", "line 3: seconds '1' must be above those of the previous row"),
        ("seconds,emotion,intensity\n0,glee,1\n", "line 2: emotion 'glee@1': unknown name 'glee'"),
        ("seconds;happy\n1.000,5;1\n", "line 2: seconds '1.000.5' is not a number, 0 or above"),
        (
            "seconds,emotion,intensity\n0,happy,9\n",
            "line 2: emotion 'happy@9': intensity '9' is not a number",
        ),
        ("seconds,emotion,intensity\n0,happy,\n", "line 2: emotion 'happy@': 'happy@' is not NAME"),
        (b"seconds,happy\n0,\xff\n", "not a CSV file in UTF-8"),
    ],
)
def test_errors_name_file_line_and_value(read, text, message):
    with pytest.raises(UserError) as raised:
        read(text)
    assert "track.csv" in str(raised.value) and message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_files_and_directories_are_rejected(table, tmp_path):
    with pytest.raises(UserError, match=r"none.csv: cannot be read \(No such file"):
        read_track(tmp_path / "none.csv", table)
    with pytest.raises(UserError, match="cannot be read"):
        read_track(tmp_path, table)


@pytest.mark.parametrize("seconds", [(0.0, 0.0), (1.0, 0.5), (0.0, np.nan), (-np.inf, 0.0)])
def test_rows_must_be_increasing_in_time(seconds):
    moments = Moments(np.ones(2), np.ones(2))
    with pytest.raises(UserError, match="must be finite and increasing"):
        track_of_rows([(second, moments) for second in seconds])
    with pytest.raises(UserError, match="has no rows"):
        track_of_rows([])
