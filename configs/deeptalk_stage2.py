"""Stage 2 of DEEPTalk: a generator of stage 1 learns to be read from the lips and to show emotion (SPEC section 4).

python train.py --config=configs/deeptalk_stage2.py:variant=mini --workdir=outputs/deeptalk_stage2 \
        --config.upstream.deeptalk=outputs/deeptalk/model --config.upstream.lip_reader=outputs/lip_reader/model

With the encoder of a published lip reader instead: --config.pretrained.visual_speech=FILE.pth
"""

from ml_collections import ConfigDict

from configs import deeptalk
from configs.common import COMMON_ABLATIONS, finish, parse_arg

# Each leaves one loss out; "stage1_losses" is as much training with those of stage 1 alone.
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
    config.upstream = ConfigDict({"deeptalk": "", "lip_reader": ""})
    # PyTorch file of a visual speech encoder to read lips with, in place of upstream.lip_reader.
    config.pretrained = ConfigDict({"visual_speech": ""})
    loss = config.loss
    # Frames of every window whose lips are read, neighbours at a random place; 0: all. Rendering is dear.
    loss.lip_reading_frames = 0
    loss.lip_reading_every = 1  # of so many windows of the batch one is read
    if variant == "base":
        loss.lip_reading_weight = 1e-3
        loss.emotion_weight = 1e-4
        # The published config has one weight for the swap; its lips count as those of the motion beside it.
        loss.swap_emotion_weight = 2.5e-5
        loss.swap_lip_weight = 0.0
        loss.swap_lip_reading_weight = 1e-3
        config.num_steps = 8_400  # 3 epochs
    else:
        config.data.window_frames = 64  # an emotion is hard to tell from less
        config.data.batch_size = 16
        config.tau_start = 0.5
        loss.lip_reading_frames, loss.lip_reading_every = 4, 8
        loss.lip_reading_weight = 0.25
        loss.emotion_weight = 2.0
        loss.swap_emotion_weight = 1.0
        loss.swap_lip_weight = 1e5
        loss.swap_lip_reading_weight = 0.125
        config.num_steps = 120  # 1.5 s each on one core
        config.checkpoint_every_steps = 60
        config.optimiser.learning_rate = 5e-4
        config.optimiser.warmup_steps = 10
    return finish(config, ABLATIONS, ablation)
