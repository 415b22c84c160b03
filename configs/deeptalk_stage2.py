"""DEEPTalk stage 2: trains a stage-1 generator on rendered lips and on emotion (docs/method.md, section 4.2).

python train.py --config=configs/deeptalk_stage2.py:variant=mini --workdir=outputs/deeptalk_stage2 \
        --config.upstream.deeptalk=outputs/deeptalk/model --config.upstream.lip_reader=outputs/lip_reader/model

A published lip-reading network can replace the lip reader: --config.pretrained.visual_speech=FILE.pth
"""

from ml_collections import ConfigDict

from configs import deeptalk
from configs.common import COMMON_ABLATIONS, finish, parse_arg

# docs/method.md, section 4.2: each ablation removes or changes one loss; docs/stage2.md has results. "stage1_losses"
# trains as many steps with the losses of stage 1 alone.
ABLATIONS = {
    "no_lip_reading": {"loss.lip_reading_weight": 0.0, "loss.swap_lip_reading_weight": 0.0},
    "no_emotion": {"loss.emotion_weight": 0.0},
    "no_swap": {
        "loss.swap_emotion_weight": 0.0,
        "loss.swap_lip_weight": 0.0,
        "loss.swap_lip_reading_weight": 0.0,
    },
    **COMMON_ABLATIONS,
    "motion_emotion": {"loss.motion_emotion_weight": 2.0},
    "mean_consistency": {"loss.emotion_consistency": "mean"},
    "stage1_losses": {
        "loss.lip_reading_weight": 0.0,
        "loss.emotion_weight": 0.0,
        "loss.swap_emotion_weight": 0.0,
        "loss.swap_lip_weight": 0.0,
        "loss.swap_lip_reading_weight": 0.0,
    },
}


def get_config(arg: str | None = None) -> ConfigDict:
    variant, ablation = parse_arg(arg, ABLATIONS)
    config = deeptalk.get_config(f"variant={variant}").unlock()
    config.stage = "deeptalk_stage2"
    # Model directories of stage 1, which also has fer, dee and motion_prior, and of the lip reader.
    config.upstream = ConfigDict({"deeptalk": "", "lip_reader": ""})
    # PyTorch file of a published visual speech encoder, which replaces upstream.lip_reader.
    config.pretrained = ConfigDict({"visual_speech": ""})
    # Rendering is expensive: lips are read in some consecutive frames of some windows only.
    config.loss.lip_reading_frames = 0  # frames per window, at a random place; 0 means all
    config.loss.lip_reading_every = 1  # one of this number of windows is read
    (_set_base if variant == "base" else _set_mini)(config)
    return finish(config, ABLATIONS, ablation)


def _set_base(config: ConfigDict) -> None:
    """Sets the published weights (docs/stage2.md). This repository records no run."""
    loss = config.loss
    loss.lip_reading_weight = 1e-3  # weight of 1 - cosine of lip-reading features
    loss.emotion_weight = 1e-4
    # The published config has one weight for the swap. Its lips get the weight of the motion with the own emotion.
    loss.swap_emotion_weight = 2.5e-5  # weight of the consistency of swapped motion with its emotion
    loss.swap_lip_weight = 0.0  # weight of the vertex error of the lips of swapped motion, square metres
    loss.swap_lip_reading_weight = 1e-3  # weight of 1 - cosine of lip-reading features of swapped motion
    config.num_steps = 8_400  # 3 epochs


def _set_mini(config: ConfigDict) -> None:
    """Sets a short training within `make demo`, about 1.5 s per step on one CPU core.

    On test speakers, seed 0 (in brackets: stage 1), the lip error is 4.68 mm (4.65), the closure rate 0.60 (0.58), and
    the agreement of the emotion with the speech 0.65 (0.73). docs/stage2.md has results from before stage 1 learned
    named emotions.
    """
    config.tau_start = 0.5  # the generator is trained already
    loss = config.loss
    loss.lip_reading_frames, loss.lip_reading_every = 4, 8
    loss.lip_reading_weight = 0.25
    loss.emotion_weight = 2.0
    loss.swap_emotion_weight = 1.0
    # Small, because the true lips show the emotion of the clip and not the swapped one (docs/stage2.md).
    loss.swap_lip_weight = 1e5
    loss.swap_lip_reading_weight = 0.125
    config.num_steps = 120
    config.checkpoint_every_steps = 60
    config.optimiser.learning_rate = 5e-4
    config.optimiser.warmup_steps = 10
