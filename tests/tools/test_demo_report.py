import json

import pytest

from deeptalk_jax.errors import UserError
from deeptalk_jax.tools.demo_report import FIGURES, check_report
from tests.support.commands import run_command

_FACE = dict.fromkeys(
    (
        "gain_named_mean",
        "gain_named_min",
        "cosine_named_min",
        "gain_named_rising_min",
        "gain_heard_mean",
        "gain_heard_min",
        "closure_rate",
        "closure_auc",
        "rounding_auc",
        "closed_share",
        "blinks_per_minute",
        "brow_jitter",
        "lid_jitter",
    ),
    0.6,
)
GOOD = {
    "motion_prior": {
        "vertex_error_mm": 0.5,
        "clip_mean_error_mm": 1.5,
        "global_mean_error_mm": 2.0,
        "perplexity_top": 40.0,
        "perplexity_bottom": 50.0,
        "gain_reconstruction_min": 0.7,
        "closure_rate": 0.9,
        "closure_rate_truth": 0.99,
        "closed_share": 0.02,
        "closed_share_truth": 0.026,
        "brow_jitter": 8.0,
        "lid_jitter": 8.0,
    },
    "dee": {"speech_to_motion_r1": 0.5, "motion_to_speech_r1": 0.4, "chance": 0.125},
    "generator": {
        "jaw_correlation": 0.8,
        "lip_error_mm": 2.0,
        "mean_pose_lip_error_mm": 4.0,
        "shuffled_audio_jaw_correlation": 0.1,
        "shuffled_audio_lip_error_mm": 5.0,
        "emotion_accuracy": 0.5,
        "heard_emotion_agreement": 0.5,
        "named_emotion_accuracy": 0.7,
        **_FACE,
    },
    "stage2": {
        "lip_error_mm": 2.1,
        "emotion_accuracy": 0.5,
        "heard_emotion_agreement": 0.6,
        "named_emotion_accuracy": 0.8,
        **_FACE,
    },
    "real_time_factor": 0.1,
    "wall_s": 600.0,
    "versions": {"jax": "1"},
}
# For each figure, in order: a key, and a value of it that misses the bound.
BREAKING = (
    ("motion_prior", "vertex_error_mm", 0.7),
    ("motion_prior", "closure_rate", 0.84),
    ("motion_prior", "closed_share", 0.012),
    ("dee", "speech_to_motion_r1", 0.3),
    ("dee", "motion_to_speech_r1", 0.3),
    ("generator", "jaw_correlation", 0.59),
    ("generator", "lip_error_mm", 3.1),
    ("generator", "shuffled_audio_jaw_correlation", 0.6),
    ("generator", "shuffled_audio_lip_error_mm", 2.1),
    ("stage2", "lip_error_mm", 2.3),
    ("stage2", "heard_emotion_agreement", 0.4),
    ("stage2", "gain_named_mean", 0.44),
    ("stage2", "closure_rate", 0.49),
)


def check(tmp_path, report):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    return check_report([str(path)])


def test_good_report_passes(tmp_path, capsys):
    assert check(tmp_path, GOOD) == 0
    table = capsys.readouterr().out
    assert table.count(" ok") == len(FIGURES)


@pytest.mark.parametrize(("figure", "breaking"), list(zip(FIGURES, BREAKING, strict=True)))
def test_each_figure_can_fail(tmp_path, capsys, figure, breaking):
    part, key, value = breaking
    report = {**GOOD, part: {**GOOD[part], key: value}}
    assert check(tmp_path, report) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.endswith("FAILED")]
    assert any(line.startswith(figure.name) for line in failed)


def test_reports_that_cannot_be_read_raise(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.json: cannot be read"):
        check_report([str(tmp_path / "nothing.json")])
    with pytest.raises(UserError, match="0 arguments; expected one"):
        check_report([])
    incomplete = {**GOOD, "dee": {"chance": 0.1}}
    with pytest.raises(UserError, match=r"dee\.speech_to_motion_r1 is None, expected a finite number"):
        check(tmp_path, incomplete)
    with pytest.raises(UserError, match="wall_s is nan"):
        check(tmp_path, {**GOOD, "wall_s": float("nan")})
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(UserError, match=r"text\.json: not JSON"):
        check_report([str(tmp_path / "text.json")])


def test_command_prints_its_help_and_errors_in_one_line():
    helped = run_command("-m", "deeptalk_jax.tools.demo_report", "--help")
    assert "against the bounds that every figure must keep" in helped.stdout
    failed = run_command("-m", "deeptalk_jax.tools.demo_report", "nothing.json")
    assert failed == (2, "", "error: nothing.json: cannot be read (No such file or directory)\n")
