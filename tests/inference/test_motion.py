"""`Motion` as a Python object: text, equality, slices, pickles, and its `.npz` file read again."""

import copy
import io
import pickle
from dataclasses import replace

import av
import numpy as np
import pytest
import soundfile

from deeptalk_jax.errors import UserError
from deeptalk_jax.head.actions import EXPRESSION_ACTIONS
from deeptalk_jax.head.lazy import LazyHead
from deeptalk_jax.inference.motion import Motion
from deeptalk_jax.inference.provenance import NUMBERED_CHANNELS, Provenance

PROVENANCE = Provenance(
    head="procedural",
    model_index_sha256="0" * 64,
    emotion="happy:0.8,surprised:0.2",
    identity="mean",
    seed=2**32 - 1,
    temperature_top=0.5,
    temperature_bottom=0.0,
    top_p=0.9,
    alpha=1.0,
    version="0.1.0",
)


@pytest.fixture
def motion():
    """A motion of 22 frames; the last one has sound for half of its length."""
    frames = np.random.default_rng(0).normal(size=(22, 53)).astype(np.float32)
    return Motion(
        expression=frames[:, :50],
        jaw_pose=frames[:, 50:],
        indices_top=np.arange(6, dtype=np.int32),
        indices_bottom=np.arange(11, dtype=np.int32),
        waveform=np.arange(22 * 640 - 320, dtype=np.float32),
        load_head=LazyHead("procedural"),
        provenance=PROVENANCE,
    )


def test_text_is_one_line_and_builds_no_head(motion, monkeypatch):
    monkeypatch.setattr("deeptalk_jax.head.lazy.load_head", None)
    assert repr(motion) == "Motion(22 frames, 0.88 s, 25 fps, procedural)"
    assert repr(replace(motion, load_head=None)) == "Motion(22 frames, 0.88 s, 25 fps)"
    assert motion.duration_s == 0.88 and len(motion) == 22


def test_motions_are_equal_by_contents_and_not_hashable(motion):
    assert motion == copy.deepcopy(motion)
    assert motion == replace(motion, waveform=np.zeros(0), provenance=None, load_head=None)
    changed = motion.expression.copy()
    changed[3, 4] += 1e-6
    assert motion != replace(motion, expression=changed)
    assert motion != replace(motion, indices_top=motion.indices_top[:5])
    assert motion != motion[:21] and motion != "motion" and motion not in [None, 3]
    with pytest.raises(TypeError, match="unhashable"):
        hash(motion)


def test_a_slice_at_whole_codes_cuts_frames_sound_and_codes(motion):
    part = motion[8:16]
    np.testing.assert_array_equal(part.frames(), motion.frames()[8:16])
    np.testing.assert_array_equal(part.indices_top, [2, 3])
    np.testing.assert_array_equal(part.indices_bottom, [4, 5, 6, 7])
    np.testing.assert_array_equal(part.waveform, np.arange(8 * 640, 16 * 640))
    assert part.provenance == PROVENANCE and part.duration_s == 0.32
    assert motion[:] == motion


@pytest.mark.parametrize(
    ("frames", "top", "bottom"),
    [
        (slice(3, 6), [0, 1], [1, 2]),  # one top code more than ceil(3 / 4)
        (slice(5, 7), [1], [2, 3]),  # one bottom code more than ceil(2 / 2)
        (slice(-2, None), [5], [10]),
        (slice(21, 99), [5], [10]),
    ],
)
def test_a_slice_keeps_every_code_that_covers_one_of_its_frames(motion, frames, top, bottom):
    part = motion[frames]
    np.testing.assert_array_equal(part.frames(), motion.frames()[frames])
    np.testing.assert_array_equal(part.indices_top, top)
    np.testing.assert_array_equal(part.indices_bottom, bottom)
    start = frames.indices(22)[0]
    np.testing.assert_array_equal(part.waveform, motion.waveform[start * 640 :][: len(part) * 640])


def test_a_slice_is_a_copy(motion):
    motion[4:8].expression[:] = 7.0
    assert motion.expression[4:8].max() < 7.0


@pytest.mark.parametrize("frames", [slice(5, 5), slice(30, 40), slice(9, 2)])
def test_empty_slices_are_rejected(motion, frames):
    with pytest.raises(UserError, match="holds none of the 22 frames"):
        motion[frames]


@pytest.mark.parametrize("frames", [3, slice(0, 8, 2), slice(None, None, -1)])
def test_single_frames_and_steps_are_rejected(motion, frames):
    with pytest.raises(
        UserError, match=r"expected frames first:last; single frames are in motion.frames\(\)"
    ):
        motion[frames]
    with pytest.raises(TypeError, match="not iterable"):
        iter(motion)


def test_a_pickle_holds_no_head(motion):
    motion.head  # noqa: B018, so that there is a head that could be pickled
    contents = pickle.dumps(motion)
    assert len(contents) < 100_000  # the head has megabytes
    again = pickle.loads(contents)
    assert again == motion and again.provenance == PROVENANCE
    np.testing.assert_array_equal(again.waveform, motion.waveform)
    assert again.load_head.reference == "procedural"
    assert copy.deepcopy(motion).head is motion.head


def test_channels_are_named_after_the_head_of_the_model(motion):
    assert motion.channel_names == (*EXPRESSION_ACTIONS, "jaw_x", "jaw_y", "jaw_z")
    flame = replace(motion, provenance=replace(PROVENANCE, head="flame2023.pkl"))
    assert flame.channel_names == replace(motion, provenance=None).channel_names == NUMBERED_CHANNELS
    assert len(set(flame.channel_names)) == len(set(motion.channel_names)) == 53
    assert flame.channel_names[49:] == ("expression_49", "jaw_x", "jaw_y", "jaw_z")


@pytest.mark.parametrize("name", ["a.npz", "a.NPZ"])
def test_a_saved_motion_is_read_again(motion, tmp_path, name):
    motion.save(tmp_path / name)
    again = Motion.load(tmp_path / name)
    assert again == motion and again.provenance == PROVENANCE and not len(again.waveform)
    assert again.channel_names == motion.channel_names and again.load_head.reference == "procedural"
    assert Motion.load(tmp_path / name, head="other.npz").load_head.reference == "other.npz"


def test_a_file_object_gets_the_npz_format(motion, tmp_path):
    file = io.BytesIO()
    motion.save(file)
    (tmp_path / "a.npz").write_bytes(file.getvalue())
    assert Motion.load(tmp_path / "a.npz") == motion


def test_a_file_without_origin_is_read(motion, tmp_path):
    names = ("expression", "jaw_pose", "indices_top", "indices_bottom")
    arrays = {name: getattr(motion, name) for name in names}
    np.savez_compressed(tmp_path / "old.npz", fps=np.int32(25), **arrays)
    again = Motion.load(tmp_path / "old.npz")
    assert again == motion and again.provenance is None and again.channel_names == NUMBERED_CHANNELS
    with pytest.raises(
        UserError, match=r"names no head; give one, as in .*Motion.load\(path, head=.procedural.\)"
    ):
        again.vertices()
    shown = Motion.load(tmp_path / "old.npz", head="procedural")
    np.testing.assert_allclose(shown.vertices(), motion.vertices())
    shown[:2].save(tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert not file.streams.audio  # the file holds no sound


def test_files_that_are_not_motions_are_rejected(motion, tmp_path):
    with pytest.raises(UserError, match=r"none.npz: no such file"):
        Motion.load(tmp_path / "none.npz")
    np.savez(tmp_path / "a.npz", expression=motion.expression, jaw_pose=motion.jaw_pose, fps=np.int32(25))
    with pytest.raises(UserError, match=r"a.npz: not a motion file of infer.py \(.*indices_top"):
        Motion.load(tmp_path / "a.npz")
    motion.save(tmp_path / "b.npz")
    with np.load(tmp_path / "b.npz") as file:
        np.savez(tmp_path / "b2.npz", **{**file, "seed": np.array("three")})
    with pytest.raises(UserError, match=r"b2.npz: not a motion file of infer.py \(.*three"):
        Motion.load(tmp_path / "b2.npz")
    replace(motion, indices_top=np.zeros((6, 2))).save(tmp_path / "c.npz")
    with pytest.raises(
        UserError, match=r"c.npz: indices_top is float64 of shape \(6, 2\), expected integers"
    ):
        Motion.load(tmp_path / "c.npz")


def test_a_zip_file_with_an_unknown_compression_is_rejected(motion, tmp_path):
    motion.save(tmp_path / "a.npz")
    contents = (tmp_path / "a.npz").read_bytes()
    # Method 8 (deflate) becomes 99 in the local header and in the directory at the end.
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        place = contents.index(signature) + offset
        contents = contents[:place] + b"\x63\x00" + contents[place + 2 :]
    (tmp_path / "a.npz").write_bytes(contents)
    with pytest.raises(UserError, match=r"a.npz: not a motion file of infer.py"):
        Motion.load(tmp_path / "a.npz")


def decoded_sound(path):
    with av.open(str(path)) as file:
        rate_hz = file.streams.audio[0].codec_context.sample_rate
        return np.hstack([frame.to_ndarray() for frame in file.decode(audio=0)]), rate_hz


def test_a_video_has_the_sound_of_the_file_at_its_own_rate_and_channels(model, tmp_path):
    rate_hz = 44_100
    tones = np.sin(2 * np.pi * np.arange(rate_hz // 2)[:, None] / rate_hz * [300, 700])
    # 16 bit samples that were cast to floats without being scaled.
    soundfile.write(tmp_path / "loud.wav", tones * 16_384, rate_hz, subtype="FLOAT")
    motion = model.animate(tmp_path / "loud.wav")
    motion.save(tmp_path / "file.mp4")
    sound, written_hz = decoded_sound(tmp_path / "file.mp4")
    assert written_hz == rate_hz and len(sound) == 2
    middle = slice(4_000, 18_000)
    for channel, tone in zip(sound, tones.T, strict=True):
        delay = np.argmax([channel[4_000 + d : 18_000 + d] @ tone[middle] for d in range(-100, 1100)]) - 100
        shifted = channel[4_000 + delay : 18_000 + delay]
        assert np.corrcoef(shifted, tone[middle])[0, 1] > 0.99
        assert np.abs(shifted).max() == pytest.approx(0.5, abs=0.05)

    motion[:8].save(tmp_path / "part.mp4")  # the file holds the sound of all frames
    sound, written_hz = decoded_sound(tmp_path / "part.mp4")
    assert written_hz == 16_000 and len(sound) == 1
