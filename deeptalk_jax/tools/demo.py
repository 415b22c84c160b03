"""The whole of it in one run: corpus, all stages, evaluation on unseen speakers, and a talking head.

    python -m deeptalk_jax.tools.demo --out=outputs/demo [--audio=speech.wav | --text="Say this."]

What is there already (corpus, checkpoints, metrics of the same model) is not made again.
"""

import json
import shutil
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile
from absl import flags
from ml_collections import ConfigDict

from data_pipeline.prepare import prepare
from data_pipeline.synthetic_talk.say import say
from deeptalk_jax.assembly.stage_table import STAGES
from deeptalk_jax.cli import run_tool
from deeptalk_jax.errors import UserError
from deeptalk_jax.files import replace_when_whole
from deeptalk_jax.inference.api import DeepTalk
from deeptalk_jax.inference.audio import duration_s
from deeptalk_jax.inference.motion import Motion
from deeptalk_jax.metrics.motion import jaw_opening
from deeptalk_jax.rendering.contact_sheet import write_contact_sheet
from deeptalk_jax.rendering.emotion_strip import draw_emotion_strip
from deeptalk_jax.rendering.render import render_frames
from deeptalk_jax.stages.run import evaluate, train
from deeptalk_jax.tools.demo_report import KEYS, read_report, table
from deeptalk_jax.types import AUDIO_RATE_HZ, EMOTIONS, NUM_INTENSITIES

_OUT = flags.DEFINE_string("out", "outputs/demo", "Directory for everything that the demo makes.")
_AUDIO = flags.DEFINE_string("audio", None, "Sound file to animate; by default a sentence is spoken.")
_TEXT = flags.DEFINE_string(
    "text", "I can hardly believe that you came all this way to see me!", "What to speak."
)
_EMOTION = flags.DEFINE_enum("emotion", "happy", EMOTIONS, "How to speak it.")
_NUM_CLIPS = flags.DEFINE_integer("num_clips", 1600, "Size of the embedded corpus.")

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")
_SHEET_FRAMES = 10
_STRIP_FRAMES = 8
_STRIP_EMOTIONS = ("neutral", "happy", "surprised", "angry")
_FACE_ROWS, _FACE_COLUMNS = slice(80, 330), slice(80, 280)  # of 360 pixels


def stage_configs(out: Path, data_dir: Path) -> list[ConfigDict]:
    """Mini configs of all stages in order, each reading the models of those before."""
    configs = []
    for row in STAGES.values():
        config = row.config_module.get_config("variant=mini")
        with config.unlocked():
            config.data.data_dir = str(data_dir)
            for name in config.upstream:
                config.upstream[name] = str(out / name / "model")
        configs.append(config)
    return configs


def train_and_evaluate(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Trains a stage unless it is done; metrics on the test split, from disk where they are of this model."""
    model, metrics = workdir / "model" / "model.json", workdir / "metrics.json"
    train(config, workdir)
    if metrics.exists() and metrics.stat().st_mtime > model.stat().st_mtime:
        return json.loads(metrics.read_text())
    return evaluate(config, workdir, "test")


def real_time_factor(model: DeepTalk, audio: np.ndarray) -> float:
    """Seconds of work per second of sound, warm: median of three."""
    model.animate(audio)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        model.animate(audio)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) / duration_s(len(audio))


def write_sheet(path: Path, motion: Motion) -> None:
    """Frames at even times, the waveform and the opening of the jaw in one picture."""
    indices = np.linspace(0, len(motion) - 1, min(_SHEET_FRAMES, len(motion))).round().astype(int)
    frames = list(render_frames(motion.head, motion.vertices()[indices], size=320))
    jaw = jaw_opening(motion.frames())
    write_contact_sheet(
        path,
        frames,
        (indices + 0.5) / motion.fps,
        motion.waveform,
        AUDIO_RATE_HZ,
        traces={"jaw opening (rad)": jaw},
    )


def write_strip(path: Path, model: DeepTalk, speech: Path) -> None:
    """The same speech in four strong emotions, close to the face."""
    rows, times_s = {}, []
    for emotion in _STRIP_EMOTIONS:
        motion = model.animate(speech, emotion=f"{emotion}@{NUM_INTENSITIES}")
        indices = np.linspace(0, len(motion) - 1, min(_STRIP_FRAMES, len(motion))).round().astype(int)
        frames = render_frames(motion.head, motion.vertices()[indices], size=360)
        rows[emotion] = [frame[_FACE_ROWS, _FACE_COLUMNS] for frame in frames]
        times_s = (indices + 0.5) / motion.fps
    with replace_when_whole(path) as temporary:
        temporary.write_bytes(draw_emotion_strip(rows, times_s))


def _speech_file(out: Path) -> Path:
    """The person's own file, or the text spoken by a voice that no model has heard."""
    if _AUDIO.value:
        return Path(_AUDIO.value)
    path = out / "speech.wav"
    soundfile.write(path, say(_TEXT.value, emotion=_EMOTION.value), AUDIO_RATE_HZ)
    return path


def _demo() -> int:
    start = time.perf_counter()
    out = Path(_OUT.value)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be made ({error.strerror})") from error
    speech = _speech_file(out)
    data_dir = out / "data"
    prepare("synthetic_talk", str(data_dir), num_clips=_NUM_CLIPS.value)
    metrics = {}
    for config in stage_configs(out, data_dir):
        metrics[config.stage] = train_and_evaluate(config, out / config.stage)
    shutil.copytree(out / "deeptalk_stage2" / "model", out / "model", dirs_exist_ok=True)

    model = DeepTalk.load(out / "model")
    motion = model.animate(speech)
    motion.save(out / "talking_head.npz")
    motion.save(out / "talking_head.mp4")
    write_sheet(out / "contact_sheet.png", motion)
    write_strip(out / "emotions.png", model, speech)
    parts = {
        "motion_prior": "motion_prior",
        "dee": "dee",
        "generator": "deeptalk",
        "stage2": "deeptalk_stage2",
    }
    report = {
        **{part: {key: metrics[stage][key] for key in KEYS[part]} for part, stage in parts.items()},
        "real_time_factor": real_time_factor(model, motion.waveform),
        "wall_s": time.perf_counter() - start,
        "versions": {name: version(name) for name in _PACKAGES},
    }
    with replace_when_whole(out / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    print(table(read_report(out / "report.json")))
    print(
        f"\nwatch {out / 'talking_head.mp4'}, or look at {out / 'contact_sheet.png'} and {out / 'emotions.png'}"
    )
    return 0


if __name__ == "__main__":
    run_tool(_demo)
