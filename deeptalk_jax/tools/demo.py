"""Demo: builds a corpus, trains and evaluates all stages, and animates a talking head.

    python -m deeptalk_jax.tools.demo --out=outputs/demo [--audio=speech.wav | --text="Say this."]

The stages are evaluated on unseen speakers. Results that exist already (the corpus, checkpoints, and metrics of the
same model) are reused.
"""

import json
import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from deeptalk_jax.cli import run_tool
from deeptalk_jax.errors import UserError
from deeptalk_jax.files import replace_when_whole
from deeptalk_jax.tools.demo_report import KEYS, read_report, table
from deeptalk_jax.types import AUDIO_RATE_HZ, EMOTIONS

if TYPE_CHECKING:  # heavy modules are imported where they are used, so that --help is fast
    import numpy as np

    from deeptalk_jax.inference.api import DeepTalk

_OUT = flags.DEFINE_string("out", "outputs/demo", "Directory for all results of the demo.")
_AUDIO = flags.DEFINE_string("audio", None, "Sound file to animate; default: a synthesised sentence.")
_TEXT = flags.DEFINE_string(
    "text", "I can hardly believe that you came all this way to see me!", "Sentence to synthesise."
)
_EMOTION = flags.DEFINE_enum(
    "emotion", "happy", EMOTIONS, "Emotion of the synthesised voice; with --audio, emotion of the face."
)
_NUM_CLIPS = flags.DEFINE_integer("num_clips", 1600, "Number of clips of the synthetic corpus.")

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")
# Stage whose metrics each part of the report holds.
_REPORTED_STAGES = {
    "motion_prior": "motion_prior",
    "dee": "dee",
    "generator": "deeptalk",
    "stage2": "deeptalk_stage2",
}


def real_time_factor(model: "DeepTalk", audio: "np.ndarray") -> float:
    """Returns the seconds of computation per second of sound after a warm-up, the median of three runs."""
    from deeptalk_jax.inference.audio import duration_s

    model.animate(audio)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        model.animate(audio)
        times.append(time.perf_counter() - start)
    return sorted(times)[1] / duration_s(len(audio))


def _speech_file(out: Path) -> Path:
    """Returns the file of --audio, or synthesises --text with a voice of the test split, unseen in training."""
    if _AUDIO.value:
        return Path(_AUDIO.value)
    import soundfile

    from data_pipeline.synthetic_talk.say import say

    path = out / "speech.wav"
    soundfile.write(path, say(_TEXT.value, emotion=_EMOTION.value), AUDIO_RATE_HZ)
    return path


def _write_report(path: Path, report: dict) -> None:
    with replace_when_whole(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    print(table(read_report(path)))


def _demo() -> int:
    start = time.perf_counter()
    if _AUDIO.value:
        from deeptalk_jax.inference.audio import read_audio

        read_audio(_AUDIO.value)  # a file that cannot be used is reported now, not after minutes of training
    out = Path(_OUT.value)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be created ({error.strerror})") from error

    from data_pipeline.prepare import prepare
    from deeptalk_jax.inference.api import DeepTalk
    from deeptalk_jax.tools.demo_pictures import write_sheet, write_strip
    from deeptalk_jax.tools.demo_stages import stage_configs, train_and_evaluate

    speech = _speech_file(out)
    data_dir = out / "data"
    prepare("synthetic_talk", str(data_dir), num_clips=_NUM_CLIPS.value)
    metrics = {}
    for config in stage_configs(out, data_dir):
        metrics[config.stage] = train_and_evaluate(config, out / config.stage)
    shutil.copytree(out / "deeptalk_stage2" / "model", out / "model", dirs_exist_ok=True)

    model = DeepTalk.load(out / "model")
    # Without --emotion, the face takes its emotion from the speech.
    motion = model.animate(speech, emotion=_EMOTION.value if _AUDIO.value and _EMOTION.present else None)
    motion.save(out / "talking_head.npz")
    motion.save(out / "talking_head.mp4")
    write_sheet(out / "contact_sheet.png", motion)
    write_strip(out / "emotions.png", model, speech)
    report = {
        part: {key: metrics[stage][key] for key in KEYS[part]} for part, stage in _REPORTED_STAGES.items()
    }
    report |= {
        "real_time_factor": real_time_factor(model, motion.waveform),
        "wall_s": time.perf_counter() - start,
        "versions": {name: version(name) for name in _PACKAGES},
    }
    _write_report(out / "report.json", report)
    print(
        f"\nwatch {out / 'talking_head.mp4'}, or look at {out / 'contact_sheet.png'} and {out / 'emotions.png'}"
    )
    return 0


if __name__ == "__main__":
    run_tool(_demo)
