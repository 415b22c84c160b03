"""`DeepTalk` and `Motion` on a tiny untrained model: lengths, randomness, arguments, files and errors."""

import dataclasses
import inspect
import json
import os
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from deeptalk_jax.assembly.model_dir import Part, save_model
from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.api import DeepTalk
from deeptalk_jax.inference.options import Sampling
from deeptalk_jax.types import EMOTIONS

TEMPERATURE_1 = {"temperature_top": 1.0, "temperature_bottom": 1.0}


def differs(a, b):
    """Returns whether two motions differ by more than rounding."""
    return np.abs(a.frames() - b.frames()).max() > 1e-3


def assert_same(a, b):
    np.testing.assert_array_equal(a.indices_top, b.indices_top)
    np.testing.assert_array_equal(a.indices_bottom, b.indices_bottom)
    np.testing.assert_array_equal(a.frames(), b.frames())


@pytest.fixture(scope="module")
def clip(babble):
    return babble(1.9)


@pytest.fixture(scope="module")
def motion(model, clip):
    return model.animate(clip)


@pytest.mark.parametrize(
    ("num_samples", "num_frames"),
    [
        (1, 1),
        (480, 1),  # 0.03 s
        (641, 2),
        (16_000, 25),
        (53_280, 84),  # 3.33 s
        (400_000, 625),  # 25 s
    ],
)
def test_frames_are_seconds_times_25_rounded_up(model, babble, num_samples, num_frames):
    waveform = babble(num_samples / 16_000)
    assert len(waveform) == num_samples
    motion = model.animate(waveform)
    assert len(motion) == num_frames and motion.fps == 25
    assert motion.expression.shape == (num_frames, 50) and motion.jaw_pose.shape == (num_frames, 3)
    assert motion.indices_top.shape == (-(-num_frames // 4),)
    assert motion.indices_bottom.shape == (-(-num_frames // 2),)
    assert motion.frames().dtype == np.float32 and np.isfinite(motion.frames()).all()
    np.testing.assert_array_equal(motion.waveform, waveform)


def test_ninety_seconds_move_throughout(model, babble):
    motion = model.animate(babble(90.0))
    frames = motion.frames()
    assert frames.shape == (2_250, 53) and np.isfinite(frames).all()
    # Every second moves, also the last one, so no window was left out or at rest.
    assert (frames.reshape(90, 25, 53).std(axis=1).max(axis=-1) > 1e-3).all()
    assert len(np.unique(motion.indices_top)) > 1 and motion.indices_top.max() < 16
    assert len(np.unique(motion.indices_bottom)) > 1 and motion.indices_bottom.max() < 17


def test_equal_windows_of_a_long_clip_move_alike(model, babble):
    # A period of 128 frames divides the stride of the windows, so all windows hold the same audio.
    period = babble(128 / 25)
    short, long = np.tile(period, 4), np.tile(period, 10)
    lone = model.animate(short, emotion_audio=period)
    joined = model.animate(long, emotion_audio=period)
    assert len(lone) == 512 and len(joined) == 1_280
    # Seams lie at 448 and 832; the cross-fade reaches 8 frames to either side.
    for first, last, start in ((0, 440, 0), (456, 824, 384), (840, 1_280, 768)):
        np.testing.assert_allclose(
            joined.frames()[first:last], lone.frames()[first - start : last - start], rtol=1e-4, atol=1e-5
        )
    tops = np.concatenate([lone.indices_top[:112], lone.indices_top[16:112], lone.indices_top[16:]])
    np.testing.assert_array_equal(joined.indices_top, tops)


def test_the_noise_of_a_code_depends_on_its_place_in_the_clip(model, babble):
    period = babble(128 / 25)
    settings = {"emotion_audio": period, "seed": 3, **TEMPERATURE_1}
    lone = model.animate(np.tile(period, 4), **settings)
    joined = model.animate(np.tile(period, 10), **settings)
    np.testing.assert_array_equal(joined.indices_top[:112], lone.indices_top[:112])
    np.testing.assert_array_equal(joined.indices_bottom[:224], lone.indices_bottom[:224])
    # All windows hold the same audio, but draw different noise.
    assert (joined.indices_top[112:208] != lone.indices_top[16:112]).mean() > 0.2


def test_temperatures_and_seeds_decide_the_codes(model, clip, motion):
    assert_same(model.animate(clip, seed=7), motion)  # at temperature 0 the seed has no effect
    for name, indices in (("temperature_top", "indices_top"), ("temperature_bottom", "indices_bottom")):
        drawn = model.animate(clip, seed=1, **{name: 1.0})
        assert_same(model.animate(clip, seed=1, **{name: 1.0}), drawn)
        other = model.animate(clip, seed=2, **{name: 1.0})
        assert (getattr(other, indices) != getattr(drawn, indices)).any() and differs(other, drawn)
    # The top codes are drawn first, so the bottom temperature does not affect them.
    np.testing.assert_array_equal(drawn.indices_top, motion.indices_top)


def test_alpha_spreads_the_emotion(model, clip, motion):
    assert_same(model.animate(clip, alpha=0.0, seed=9), motion)
    spread = [model.animate(clip, alpha=3.0, seed=seed) for seed in range(4)]
    assert any(differs(one, motion) for one in spread)
    assert any(differs(one, spread[0]) for one in spread[1:])


def test_the_emotion_of_another_sound_changes_the_motion(model, clip, motion, babble):
    assert_same(model.animate(clip, emotion_audio=clip), motion)
    others = [
        model.animate(clip, emotion_audio=sound)
        for sound in (np.zeros(9_000, np.float32), babble(2.5, seed=3), babble(0.6, seed=2)[::-1])
    ]
    assert all(len(other) == len(motion) for other in others)
    assert any(differs(other, motion) for other in others)


def test_identities_move_differently(model, clip, motion):
    assert model.num_identities == 3
    styles = [model.animate(clip, identity=identity) for identity in range(3)]
    assert all(differs(style, motion) for style in styles)
    assert differs(styles[0], styles[1]) and differs(styles[1], styles[2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"identity": 3}, "identity 3 is not one of the trained identities 0 to 2"),
        ({"identity": -1}, "identity -1 is not one of the trained identities 0 to 2"),
        ({"temperature_top": -0.5}, "temperature_top=-0.5 must be a finite number, 0 or above"),
        ({"temperature_bottom": float("nan")}, "temperature_bottom=nan must be a finite number"),
        ({"alpha": float("inf")}, "alpha=inf must be a finite number"),
        ({"top_p": 1.01}, "top_p=1.01 must lie between 0 and 1"),
        ({"top_p": float("nan")}, "top_p=nan must lie between 0 and 1"),
        ({"seed": -1}, r"seed=-1 must lie between 0 and 2\^32 - 1"),
        ({"seed": 2**32}, r"seed=4294967296 must lie between 0 and 2\^32 - 1"),
        ({"batch_size": 0}, "batch_size=0 must be 1 or above"),
        ({"num_samples": 0}, "num_samples=0 must be 1 or above"),
        (
            {"num_samples": 2},
            "num_samples=2 would give equal motions: temperature_top, temperature_bottom and",
        ),
        ({"num_samples": 2, "seed": 2**32 - 1, "alpha": 1.0}, r"the last seed must not exceed 2\^32 - 1"),
    ],
)
def test_arguments_out_of_range_are_rejected_before_a_sound_is_read(model, clip, settings, message):
    with pytest.raises(UserError, match=message):
        model.animate(clip, **settings)
    with pytest.raises(UserError, match=message):
        model.animate_each([], **settings)


def test_a_list_gives_a_list_and_num_samples_gives_lists(model, clip, motion):
    assert_same(motion, model.animate([clip])[0])
    first, second = model.animate([clip, tuple(clip.tolist())])
    assert_same(first, motion)
    assert_same(second, motion)  # a tuple is a single sound, as an array is
    (sample,) = model.animate(clip, num_samples=1)
    assert_same(sample, motion)
    ((sample,),) = model.animate([clip], num_samples=1)
    assert_same(sample, motion)
    ((index, each),) = model.animate_each([clip])
    assert index == 0
    assert_same(each, motion)
    ((_, (each,)),) = model.animate_each([clip], num_samples=1)
    assert_same(each, motion)


@pytest.mark.parametrize("sound", ["a.wav", Path("a.wav"), np.zeros(9_000, np.float32)])
def test_animate_each_rejects_a_single_sound(model, sound):
    with pytest.raises(
        UserError, match=r"animate_each expects a list of sounds, got a single .*; use animate"
    ):
        model.animate_each(sound)


def test_both_methods_spell_out_the_same_arguments():
    parameters = [
        {
            name: (parameter.kind, parameter.default)
            for name, parameter in inspect.signature(method).parameters.items()
            if name not in ("self", "audio")
        }
        for method in (DeepTalk.animate, DeepTalk.animate_each)
    ]
    assert parameters[0] == parameters[1]
    assert {kind for kind, _ in parameters[0].values()} == {inspect.Parameter.KEYWORD_ONLY}
    chosen = {field.name: field.default for field in dataclasses.fields(Sampling)}
    assert chosen.pop("num_samples") == 1  # None in the methods, which gives no list
    assert chosen.items() <= {name: default for name, (_, default) in parameters[0].items()}.items()


def test_silence_is_finite_and_loudness_has_no_effect(model, clip, motion):
    for sound in (np.zeros(8_000, np.float32), np.full(8_000, 0.7, np.float32), np.zeros(1, np.float32)):
        assert np.isfinite(model.animate(sound).frames()).all()
    # Normalisation removes loudness, exactly for powers of two.
    for gain in (16.0, 2.0**100):
        louder = model.animate(clip * np.float32(gain))
        np.testing.assert_array_equal(louder.indices_bottom, motion.indices_bottom)
        np.testing.assert_allclose(louder.frames(), motion.frames(), rtol=1e-4, atol=1e-4)


def test_sounds_may_be_files_or_arrays_of_other_rates(model, clip, motion, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([clip, clip], axis=1), 16_000, subtype="FLOAT")
    assert_same(model.animate(tmp_path / "a.wav"), motion)
    assert_same(model.animate(str(tmp_path / "a.wav"), emotion_audio=str(tmp_path / "a.wav")), motion)
    assert len(model.animate(np.repeat(clip, 3), rate_hz=48_000)) == len(motion)
    with pytest.raises(UserError, match=r"none.wav: no such file"):
        model.animate(clip, emotion_audio=tmp_path / "none.wav")
    integers = (clip * 32_767).astype(np.int16)
    assert_same(model.animate(integers), model.animate(integers / np.float32(2**15)))
    with pytest.raises(UserError, match="expected float or integer samples, got bool"):
        model.animate(clip > 0)


def test_the_model_tells_its_names_and_rates(model, model_directory):
    assert model.emotions == EMOTIONS and (model.sample_rate_hz, model.fps) == (16_000, 25)
    assert repr(model) == f"DeepTalk({model_directory}, 3 identities, head procedural)"


def test_mp4_has_a_picture_for_every_frame(model, babble, tmp_path):
    motion = model.animate(babble(0.3))
    motion.save(tmp_path / "a.MP4")
    assert os.listdir(tmp_path) == ["a.MP4"]
    with av.open(str(tmp_path / "a.MP4")) as file:
        assert float(file.streams.video[0].average_rate) == 25.0
        assert sum(1 for _ in file.decode(video=0)) == 8
    with av.open(str(tmp_path / "a.MP4")) as file:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    assert np.abs(sound).max() > 0.1


@pytest.mark.parametrize("name", ["a.csv", "a", ".npz"])
def test_unknown_extensions_are_rejected(motion, tmp_path, name):
    with pytest.raises(UserError, match=f"{name}: motion is saved as .npz or .mp4"):
        motion.save(tmp_path / name)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("ending", ["npz", "mp4"])
def test_unwritable_paths_are_rejected(motion, tmp_path, ending):
    (tmp_path / "file").write_text("")
    (tmp_path / f"taken.{ending}").mkdir()
    for place in (
        tmp_path / "missing" / f"a.{ending}",
        tmp_path / "file" / f"a.{ending}",
        tmp_path / f"taken.{ending}",
    ):
        with pytest.raises(UserError, match=str(place)):
            motion.save(place)
    assert sorted(os.listdir(tmp_path)) == ["file", f"taken.{ending}"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory_is_rejected(motion, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"a.npz: cannot be written \(Permission denied\)"):
        motion.save(tmp_path / "a.npz")


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize(
    ("ending", "where"),
    [
        ("npz", "numpy.savez_compressed"),
        ("mp4", "deeptalk_jax.rendering.video.write_video"),
    ],
)
def test_old_file_survives_a_failed_save(motion, tmp_path, monkeypatch, ending, where, failure):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b"the old one")

    def fail(file, *_, **__):
        if ending == "npz":
            file.write(b"half of the new one")
        raise failure

    monkeypatch.setattr(where, fail)
    wanted = UserError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(wanted):
        motion.save(path)
    assert os.listdir(tmp_path) == [path.name] and path.read_bytes() == b"the old one"


def test_vertices_are_those_of_the_head(model, motion):
    vertices = motion.vertices()
    assert vertices.shape == (48, *model.head.template.shape) and np.isfinite(vertices).all()
    # Vertices are computed in blocks of 64 frames; the same frames in another block give the same.
    alone = type(motion)(
        **{**vars(motion), "expression": motion.expression[40:], "jaw_pose": motion.jaw_pose[40:]}
    )
    np.testing.assert_allclose(alone.vertices(), vertices[40:], atol=1e-7)


def test_arrays_of_a_motion_are_writeable(model, motion, babble):
    assert motion.expression.flags.writeable and model.animate(babble(25.0)).jaw_pose.flags.writeable


def damaged(model_parts, directory, change):
    parts = dict(model_parts)
    change(parts)
    save_model(directory, parts, head="procedural")
    return directory


def test_a_damaged_model_directory_is_rejected(model_parts, model_directory, tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no model directory"):
        DeepTalk.load(tmp_path / "nowhere")

    shutil.copytree(model_directory, tmp_path / "file")
    (tmp_path / "file" / "dee.safetensors").unlink()
    with pytest.raises(UserError, match=r"dee.safetensors: weights missing or damaged"):
        DeepTalk.load(tmp_path / "file")

    for name in model_parts.keys() - {"fer"}:
        directory = damaged(model_parts, tmp_path / f"no_{name}", lambda parts, name=name: parts.pop(name))
        with pytest.raises(UserError, match=f"holds no part '{name}'"):
            DeepTalk.load(directory)

    # FER embeds motion, not speech, so a model without it animates.
    DeepTalk.load(damaged(model_parts, tmp_path / "no_fer", lambda parts: parts.pop("fer")))

    with pytest.raises(UserError, match=r"no_head.npz: no such file"):
        DeepTalk.load(model_directory, head="no_head.npz")


@pytest.mark.parametrize(
    ("name", "module", "leaf"),
    [
        ("dee", "motion_map", "bias"),
        ("motion_prior", "output", "bias"),
        ("deeptalk", "emotion_map", "bias"),
    ],
)
def test_a_tensor_of_another_shape_is_rejected(model_parts, tmp_path, name, module, leaf):
    def change(parts):
        variables = parts[name].variables
        params = dict(variables["params"])
        params[module] = {**params[module], leaf: np.zeros(3, np.float32)}
        parts[name] = Part(parts[name].config, {**variables, "params": params})

    message = rf"part '{name}': tensor params/{module}/{leaf} has shape \(3,\), expected"
    with pytest.raises(UserError, match=message):
        DeepTalk.load(damaged(model_parts, tmp_path / "model", change))


def test_a_config_that_describes_no_model_is_rejected(model_directory, tmp_path):
    directory = tmp_path / "model"
    shutil.copytree(model_directory, directory)
    index = json.loads((directory / "model.json").read_text())
    for change in ({"pooling": None, "speech": {"kind": "cassette", "rate_hz": 25}}, {}):
        index["parts"]["dee"]["config"]["model"] = change
        (directory / "model.json").write_text(json.dumps(index))
        with pytest.raises(UserError, match="a config in its index describes no model"):
            DeepTalk.load(directory)
