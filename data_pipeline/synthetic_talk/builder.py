"""TFDS builder of the synthetic corpus.

It needs no TensorFlow, no download and no accelerator, so that the demo and the tests run anywhere.
"""

import concurrent.futures
import dataclasses
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from tqdm import tqdm

from data_pipeline.features import BasisMetadata, clip_features
from data_pipeline.synthetic_talk import speakers, workers
from data_pipeline.synthetic_talk.clip import ClipPlan, plan_split
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.basis import EMBEDDED
from deeptalk_jax.progress import progress_bar
from deeptalk_jax.types import AUDIO_RATE_HZ, EMOTIONS

MIN_CLIPS = 8
_HELD_OUT_FRACTION = 1 / 8  # 4 of 32 speakers each for validation and test


@dataclasses.dataclass(kw_only=True)
class SyntheticTalkConfig(tfds.core.BuilderConfig):
    """Size and seed of a corpus; both are part of its name, so each combination has its own directory.

    Attributes:
        num_clips: Number of clips, summed over all splits.
        seed: Seed of the corpus. A clip depends only on the seed, its split and its index in the split.
    """

    num_clips: int
    seed: int


def _config_name(num_clips: int, seed: int) -> str:
    """Returns the name of a configuration, such as `clips2000_seed0`."""
    return f"clips{num_clips}_seed{seed}"


def _split_sizes(num_clips: int) -> dict[str, int]:
    """Returns the number of clips per split: an eighth each for validation and test, the rest for training."""
    held_out = round(num_clips * _HELD_OUT_FRACTION)
    return {"train": num_clips - 2 * held_out, "validation": held_out, "test": held_out}


def make_builder(*, data_dir: str, num_clips: int, seed: int, num_workers: int) -> "SyntheticTalk":
    """Creates the builder; this is the entry in `registry.BUILDERS`.

    Args:
        data_dir: Root directory of all datasets.
        num_clips: Number of clips, summed over all splits.
        seed: Seed of the corpus.
        num_workers: Number of processes that generate clips.

    Raises:
        UserError: There are too few clips for three splits.
    """
    if num_clips < MIN_CLIPS:
        raise UserError(
            f"--num_clips={num_clips}: expected at least {MIN_CLIPS}, so that every split has a clip"
        )
    return SyntheticTalk(data_dir=data_dir, num_clips=num_clips, seed=seed, num_workers=num_workers)


class SyntheticTalk(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Emotional speech by 32 synthetic speakers with known facial motion."""

    name = "synthetic_talk"
    # The version must increase whenever a record changes, so that an old corpus is not taken for a new one.
    VERSION = tfds.core.Version("1.4.0")
    # TFDS copies these notes into dataset_info.json: a change of their text changes the corpus.
    RELEASE_NOTES = {  # noqa: RUF012 (TFDS reads this attribute)
        "1.0.0": "32 speakers, 8 emotions, 3 intensities.",
        "1.4.0": "Long silences before some speech; hum, rumble, noise, music and breath behind some clips.",
        "1.3.0": "Records say the viseme class of every frame; speech and motion as in 1.2.0.",
        "1.2.0": "Slower speech, softer coarticulation, stronger expressions.",
        "1.1.0": "Happy, surprised and angry voices further apart; lips rest in short pauses at the ends.",
    }
    # Without a path TFDS skips the search for download checksums, which needs a package that TFDS does not require.
    code_path = None

    def __init__(self, *, data_dir: str, num_clips: int, seed: int, num_workers: int, progress: bool = True):
        """Initialises the builder, for building or for reading.

        Args:
            data_dir: Root directory of all datasets.
            num_clips: Number of clips, summed over all splits; at least `MIN_CLIPS`.
            seed: Seed of the corpus.
            num_workers: Number of processes that generate clips; the corpus does not depend on it.
            progress: Whether to show a progress bar.
        """
        config = SyntheticTalkConfig(
            name=_config_name(num_clips, seed),
            description=f"{num_clips} clips from seed {seed}",
            num_clips=num_clips,
            seed=seed,
        )
        self._num_workers = num_workers
        self._progress = progress
        self._num_samples = 0
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=clip_features(),
            metadata=BasisMetadata(EMBEDDED),
            description="Synthetic emotional speech with known facial motion.",
            homepage="https://github.com/espeak-ng/espeak-ng",
            disable_shuffling=True,  # keeps the order of the plans for any number of shards
        )

    def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        with workers.worker_pool(self._num_workers) as self._pool:
            super()._download_and_prepare(*args, **kwargs)

    @property
    def smallest_split_clips(self) -> int:
        """Number of clips of the smallest split, which is the largest possible number of shards."""
        return min(_split_sizes(self.builder_config.num_clips).values())

    @property
    def speech_s(self) -> float:
        """Seconds of speech that this object has generated; 0 before a build."""
        return self._num_samples / AUDIO_RATE_HZ

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # there is nothing to download
        config = self.builder_config
        sizes = _split_sizes(config.num_clips)
        bar = progress_bar(total=config.num_clips, desc=self.name, unit="clip", disable=not self._progress)
        return {
            split: self._generate_examples(plan_split(split, size, config.seed), self._pool, bar)
            for split, size in sizes.items()
        }

    def _generate_examples(
        self, plans: list[ClipPlan], pool: concurrent.futures.Executor, bar: tqdm
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for plan, clip in workers.make_clips(plans, pool, self._num_workers):
            yield (
                plan.index,
                {
                    "audio": clip.audio,
                    "motion": clip.motion,
                    "visemes": clip.visemes,
                    "emotion": EMOTIONS[plan.emotion],
                    "intensity": plan.intensity,
                    "speaker": plan.speaker,
                    "identity": speakers.identity_of(plan.speaker),
                    "clip_name": plan.name,
                    "text": clip.text,
                },
            )
            self._num_samples += len(clip.audio)
            bar.update()
