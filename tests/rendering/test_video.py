"""Videos and contact sheets, written and read back."""

import os

import av
import numpy as np
import pytest
from PIL import Image

from deeptalk_jax.errors import UserError
from deeptalk_jax.rendering.contact_sheet import write_contact_sheet
from deeptalk_jax.rendering.video import write_video


def pictures(count, height=64, width=48):
    for index in range(count):
        picture = np.full((height, width, 3), 90, np.uint8)
        picture[:, : width // 2] = (250, 10, 10) if index % 2 else (10, 10, 250)
        yield picture


def tone(seconds, rate_hz=16000):
    return 0.4 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate_hz)) / rate_hz).astype(np.float32)


@pytest.mark.parametrize("audio_s", [0.5, 1.2, 3.0])
def test_written_video_has_its_frames_and_sound_of_equal_duration(tmp_path, audio_s):
    path = tmp_path / "clip.mp4"
    assert write_video(path, pictures(30), fps=25, audio=tone(audio_s)) == 30
    assert os.listdir(tmp_path) == ["clip.mp4"]
    with av.open(str(path)) as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert audio.codec_context.name == "aac" and audio.codec_context.sample_rate == 16000
        assert float(video.average_rate) == 25.0
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video)]
        assert len(frames) == 30
        assert frames[0][32, 10, 2] > 180 > 90 > frames[0][32, 10, 0]
        assert frames[1][32, 10, 0] > 180 > 90 > frames[1][32, 10, 2]
        assert float(video.duration * video.time_base) == pytest.approx(1.2, abs=1e-3)
        # AAC has blocks of 1024 samples, which are 64 ms at 16 kHz.
        assert float(audio.duration * audio.time_base) == pytest.approx(1.2, abs=0.066)
    with av.open(str(path)) as file:
        sound = np.concatenate([f.to_ndarray()[0] for f in file.decode(audio=0)])
    assert np.abs(sound[2000:6000]).max() == pytest.approx(0.4, abs=0.1)
    if audio_s == 0.5:  # The rest is padded with silence.
        assert np.abs(sound[12000:18000]).max() < 0.02


@pytest.mark.parametrize(
    ("rate_hz", "channels", "written"),
    [(44_100, 2, (44_100, 2)), (22_254, 1, (48_000, 1)), (48_000, 6, (48_000, 6)), (16_000, 7, (16_000, 1))],
)
def test_sound_keeps_its_rate_and_channels_where_aac_has_them(tmp_path, rate_hz, channels, written):
    path = tmp_path / "clip.mp4"
    quiet = np.zeros((rate_hz, channels - 1), np.float32)
    audio = np.hstack([tone(1.0, rate_hz)[:, None], quiet])
    write_video(path, pictures(25), audio=audio, audio_rate_hz=rate_hz)
    with av.open(str(path)) as file:
        context = file.streams.audio[0].codec_context
        assert (context.sample_rate, context.channels) == written
        sound = np.hstack([frame.to_ndarray() for frame in file.decode(audio=0)])
    peaks = np.abs(sound[:, 3000:12_000]).max(axis=1)
    assert peaks[0] == pytest.approx(0.4 / (7 if channels == 7 else 1), rel=0.1)
    assert (peaks[1:] < 0.02).all()


def test_sound_and_pictures_of_one_moment_are_close_in_the_file(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, pictures(25 * 30), audio=tone(30.0))
    with av.open(str(path)) as file:
        packets = [(p.pos, p.stream.type, float(p.pts * p.time_base)) for p in file.demux() if p.size]
    times_s, worst_s = {"video": 0.0, "audio": 0.0}, 0.0
    for _, kind, time_s in sorted(packets):
        times_s[kind] = time_s
        worst_s = max(worst_s, abs(times_s["video"] - times_s["audio"]))
    # x264 buffers pictures before it returns the first one.
    assert worst_s < 1.0 and min(times_s.values()) > 29.0


def test_video_without_sound_has_no_audio_stream(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, pictures(3), fps=30)
    with av.open(str(path)) as file:
        assert not file.streams.audio and sum(1 for _ in file.decode(video=0)) == 3


def test_failed_video_keeps_the_old_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old file")

    def broken():
        yield from pictures(3)
        raise RuntimeError("renderer failed")

    with pytest.raises(RuntimeError, match=r"renderer failed"):
        write_video(path, broken())
    assert path.read_bytes() == b"old file" and os.listdir(tmp_path) == ["clip.mp4"]


def test_invalid_video_arguments_raise(tmp_path):
    with pytest.raises(UserError, match=r"videos are written as .mp4"):
        write_video(tmp_path / "clip.avi", pictures(2))
    with pytest.raises(UserError, match=r"absent does not exist"):
        write_video(tmp_path / "absent" / "clip.mp4", pictures(2))
    with pytest.raises(UserError, match=r"no frames to write"):
        write_video(tmp_path / "clip.mp4", [])
    with pytest.raises(ValueError, match=r"65 x 48 pixels; yuv420p needs even sides"):
        write_video(tmp_path / "clip.mp4", pictures(2, height=65))
    with pytest.raises(ValueError, match=r"audio has shape \(2, 5, 1\)"):
        write_video(tmp_path / "clip.mp4", pictures(2), audio=np.zeros((2, 5, 1)))
    assert os.listdir(tmp_path) == []


def test_contact_sheet_shows_every_frame(tmp_path):
    path = tmp_path / "sheet.png"
    frames = list(pictures(4, 80, 80))
    write_contact_sheet(
        path,
        frames,
        [0.1, 0.5, 0.9, 1.3],
        tone(1.5),
        16000,
        title="A clip",
        traces={"jaw (rad)": np.arange(37.0)},
    )
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    blue = (np.abs(image - [10, 10, 250]).max(axis=-1) < 12).sum()
    red = (np.abs(image - [250, 10, 10]).max(axis=-1) < 12).sum()
    assert blue > 5000 and red == pytest.approx(blue, rel=0.05)
    assert os.listdir(tmp_path) == ["sheet.png"]


def test_invalid_contact_sheet_arguments_raise(tmp_path):
    with pytest.raises(ValueError, match=r"1 frames with 2 times"):
        write_contact_sheet(tmp_path / "s.png", list(pictures(1)), [0.0, 1.0], tone(1.0), 16000)
    with pytest.raises(UserError, match=r"contact sheets are written as .png"):
        write_contact_sheet(tmp_path / "s.jpg", list(pictures(1)), [0.0], tone(1.0), 16000)
