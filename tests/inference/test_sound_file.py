"""Sound files whose headers lie, are cut, joined or damaged: the true sound or one line, never foreign memory."""

import io
import re
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.sound_file import read_sound_file

RATE_HZ = 16_000
POISON = np.float32(0.777)
MP3 = {"format": "MP3", "subtype": "MPEG_LAYER_III"}
FORMATS = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "rf64": {"format": "RF64", "subtype": "PCM_16"},
    "w64": {"format": "W64", "subtype": "PCM_16"},
    "aiff": {"format": "AIFF", "subtype": "PCM_16"},
    "au": {"format": "AU", "subtype": "PCM_16"},
    "caf": {"format": "CAF", "subtype": "ALAC_16"},
    "nist": {"format": "NIST", "subtype": "PCM_16"},
    "voc": {"format": "VOC", "subtype": "PCM_16"},
    "svx": {"format": "SVX", "subtype": "PCM_16"},
    "gsm.wav": {"format": "WAV", "subtype": "GSM610"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": MP3,
}


def voice(seconds=2.0):
    """`[s]` harmonics of a gliding pitch whose loudness changes as in speech."""
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * time_s)) / RATE_HZ
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 16))
    return (0.08 * harmonics * np.clip(np.sin(2 * np.pi * 3.1 * time_s), 0, 1)).astype(np.float32)


VOICE = voice()


def encoded(samples=VOICE, **kind):
    stream = io.BytesIO()
    soundfile.write(stream, samples, RATE_HZ, **kind)
    return stream.getvalue()


def muxed(container, codec, rate_hz, samples=VOICE):
    """Encodes with FFmpeg: containers that libsndfile cannot write."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as output:
        track = output.add_stream(codec, rate=rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            (samples * 32767).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
        output.mux(track.encode(frame))
        output.mux(track.encode())
    return stream.getvalue()


def read(contents, name="x"):
    return read_sound_file(io.BytesIO(contents), name)


def seconds(contents):
    samples, rate_hz = read(contents)
    return len(samples) / rate_hz


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
def test_whole_files_are_read_with_their_length_and_sound(kind):
    samples, rate_hz = read(encoded(**kind))
    if rate_hz == RATE_HZ:
        assert len(samples) == len(VOICE)
        assert np.corrcoef(samples, VOICE)[0, 1] > 0.95
    else:
        assert len(samples) / rate_hz == pytest.approx(2.0, abs=1e-3)


@pytest.mark.parametrize(
    ("container", "codec", "rate_hz"),
    [
        ("mp4", "aac", 44_100),
        ("mov", "aac", 48_000),
        ("webm", "libopus", 48_000),
        ("matroska", "flac", 16_000),
    ],
)
def test_sound_tracks_of_videos_are_read(container, codec, rate_hz):
    samples, found_rate_hz = read(muxed(container, codec, rate_hz))
    assert found_rate_hz == rate_hz and len(samples) / rate_hz == pytest.approx(2.0, abs=0.01)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(np.sqrt(np.mean(VOICE**2)), rel=0.05)


@pytest.mark.parametrize(
    "name", ["wav", "rf64", "w64", "aiff", "au", "caf", "nist", "voc", "svx", "gsm.wav", "flac", "mp3"]
)
def test_files_cut_in_half_are_refused(name):
    contents = encoded(**FORMATS[name])
    with pytest.raises(UserError, match=r"^x: cut short, its header promises [12]\.\d\d s and it holds"):
        read(contents[: len(contents) // 2])


@pytest.mark.parametrize(
    "length", [0, 1 << 30, 1_000_000_000, 2_000_000_000, 0x7FFF_FFFF, 0xFFFF_FFFF, 0xFFFF_F000]
)
def test_placeholder_lengths_of_streamed_wavs_are_no_truncation(length):
    contents = bytearray(encoded(format="WAV", subtype="PCM_16"))
    position = contents.index(b"data") + 4
    contents[position : position + 4] = length.to_bytes(4, "little")
    np.testing.assert_array_equal(read(bytes(contents))[0], read(encoded(format="WAV", subtype="PCM_16"))[0])


def test_flac_of_unknown_or_wrong_length():
    contents = bytearray(encoded(**FORMATS["flac"]))
    whole, _ = read(bytes(contents))

    def with_total(total):
        contents[21:26] = bytes([contents[21] & 0xF0 | total >> 32]) + (total & 0xFFFF_FFFF).to_bytes(
            4, "big"
        )
        return bytes(contents)

    np.testing.assert_array_equal(read(with_total(0))[0], whole)
    with pytest.raises(UserError, match=r"promises 4\.00 s and it holds 2\.00 s"):
        read(with_total(2 * len(VOICE)))


@pytest.mark.parametrize("name", ["mp3", "ogg", "opus", "flac"])
def test_all_parts_of_joined_files_are_read(name):
    # FFmpeg drops the encoder's delay of an MP3 (0.07 s a part at this rate) only where the first frame tells it.
    assert seconds(2 * encoded(**FORMATS[name])) == pytest.approx(4.0, abs=0.15)


def test_mp3_without_length_and_with_a_cover_picture():
    contents = encoded(**MP3)
    header = int.from_bytes(contents[:4], "big")
    bitrates = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # kbit/s of MPEG 2 layer III
    size = 72_000 * bitrates[header >> 12 & 15] // RATE_HZ + (header >> 9 & 1)
    assert b"Xing" in contents[:size] or b"Info" in contents[:size]
    picture = b"APIC" + (600_000).to_bytes(4, "big") + b"\0\0" + b"\x55" * 600_000
    tag = b"ID3\3\0\0" + bytes(len(picture) >> shift & 127 for shift in (21, 14, 7, 0)) + picture
    for bare in (contents[size:], tag + contents[size:]):
        assert seconds(bare) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"<!DOCTYPE html><html><body>404", "not sound but an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "a picture"),
        (b"PK\x03\x04" + bytes(60), "an archive; unpack it"),
        (b"%PDF-1.7" + bytes(60), "a PDF document"),
        (bytes(4_000), "not a sound file that can be read"),
    ],
)
def test_other_files_are_named(contents, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read(contents)


def test_a_video_without_sound_is_named(tmp_path):
    with av.open(str(tmp_path / "silent.mp4"), "w") as output:
        track = output.add_stream("mpeg4", rate=25)
        track.width = track.height = 64
        track.pix_fmt = "yuv420p"
        for _ in range(5):
            output.mux(
                track.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24"))
            )
        output.mux(track.encode())
    with pytest.raises(UserError, match="holds no sound track"):
        read((tmp_path / "silent.mp4").read_bytes())


def _mutated(contents, generator):
    """Cuts, overwrites, deletes or inserts bytes."""
    contents, size = bytearray(contents), len(contents)
    kind = generator.integers(5)
    if kind == 0:
        del contents[generator.integers(1, size) :]
    elif kind in (1, 2):
        for _ in range(generator.integers(1, 20)):
            contents[generator.integers(min(size, 200) if kind == 1 else size)] = generator.integers(256)
    else:
        start = generator.integers(size)
        inserted = generator.integers(0, 256, generator.integers(1, 500), dtype=np.uint8).tobytes()
        contents[start : start + (generator.integers(1, 2_000) if kind == 3 else 0)] = (
            b"" if kind == 3 else inserted
        )
    return bytes(contents)


def test_mutated_files_give_their_own_sound_or_one_line():
    """500 files: nothing but `UserError`, the same samples twice, no freed memory among them, no invented length."""
    generator = np.random.default_rng(0)
    short = voice(0.5)
    files = [encoded(short, **kind) for kind in FORMATS.values()]
    files += [muxed("mp4", "aac", 44_100, short), muxed("webm", "libopus", 48_000, short)]
    outcomes = {"sound": 0, "error": 0}
    for number in range(500):
        contents = _mutated(files[number % len(files)], generator)
        poison = [np.full(size, POISON) for size in (1_152, 4_096, 8_000, 24_000, 65_536)]
        del poison
        try:
            samples, _ = read(contents)
        except UserError as error:
            assert "\n" not in str(error)
            outcomes["error"] += 1
            continue
        outcomes["sound"] += 1
        assert not np.any(samples == POISON)
        assert np.array_equal(samples, read(contents)[0], equal_nan=True)
        assert len(samples) <= 48_000 * 2
    assert min(outcomes.values()) > 100, outcomes
