"""Measures the face of a generator on the clips of a split."""

from typing import Any

from deeptalk_jax.assembly.model_dir import load_part
from deeptalk_jax.head.load import load_head
from deeptalk_jax.head.subset import head_subset
from deeptalk_jax.metrics.face_points import FacePoints
from deeptalk_jax.metrics.motion import Correlation, MotionErrors, jaw_opening
from deeptalk_jax.stages.run import exported_stage


def score_model(directory: str, data_dir: str | None, split: str, num_clips: int) -> dict[str, Any]:
    """Returns the report of a model directory as JSON can hold it: `gains` and `motions` of `evaluation.face`.

    The motions have `lip_error_mm` and `jaw_correlation` besides.

    Raises:
        UserError: see `stages.run.exported_stage` and `data_pipeline.records.open_split`.
    """
    config = load_part(directory, "deeptalk").config.copy_and_resolve_references()
    config.data.eval_clips = num_clips
    if data_dir:
        config.data.data_dir = data_dir
    stage, variables = exported_stage(config, directory)
    head = load_head(stage.config.head)
    clips = stage.predict(variables, split, num_samples=0)
    faces, report = stage.measure_faces(variables, split, clips, FacePoints(head))
    errors = MotionErrors(head_subset(head, head.masks["lips"]))
    jaws = {name: Correlation() for name in faces[0].motions}
    for clip in faces:
        truth = clip.motions["truth"]
        errors.add(truth, **clip.motions)
        for name, motion in clip.motions.items():
            jaws[name].add(jaw_opening(motion), jaw_opening(truth))
    for name, measures in report.motions.items():
        measures |= {"lip_error_mm": errors.lip_error_mm(name), "jaw_correlation": jaws[name].value}
    return {"gain": report.gains, "motions": report.motions, "num_clips": len(faces)}
