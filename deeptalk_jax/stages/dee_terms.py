"""Terms of DEE's contrastive loss and the pairs that count as matches (docs/method.md, section 2).

`losses.pair_logits` has the logits of each kind of loss; this module chooses terms and weights by `config.loss`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import einops
import jax
from jaxtyping import Array as KeyArray
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from deeptalk_jax.collectives import global_rows, row_numbers
from deeptalk_jax.errors import ConfigError
from deeptalk_jax.losses.contrastive import info_nce, match_loss, pseudo_match_loss, standard_normal_kl
from deeptalk_jax.losses.pair_logits import pair_inputs, pair_logits
from deeptalk_jax.losses.reduce import masked_mean
from deeptalk_jax.losses.row_blocks import over_row_blocks
from deeptalk_jax.types import Array, Gaussian

PyTree = Any

MATCHINGS = ("diagonal", "same_emotion")


def match_labels(kind: str, emotion: Int[Array, " b"]) -> Int[Array, " b"]:
    """Returns labels that are equal for a speech and a motion that match.

    Args:
        kind: "diagonal" matches a speech with its own motion only, "same_emotion" with every motion of its emotion.
        emotion: emotion label of each clip.

    Raises:
        ConfigError: an unknown kind.
    """
    if kind not in MATCHINGS:
        raise ConfigError(f"loss.matching={kind!r}: expected one of {', '.join(MATCHINGS)}")
    return row_numbers(emotion.shape[0]) if kind == "diagonal" else emotion


def matching_pairs(kind: str, emotion: Int[Array, " b"]) -> Bool[Array, "b b"]:
    """Returns whether each speech-motion pair of a batch is a match; see `match_labels`."""
    labels = match_labels(kind, emotion)
    return labels[:, None] == labels[None, :]


def contrastive_terms(
    loss: ConfigDict,
    audio: Gaussian,
    motion: Gaussian,
    labels: Int[Array, " b"],
    scale: Float[Array, ""],
    shift: Float[Array, ""],
    key: KeyArray,
) -> tuple[dict[str, Array], dict[str, float]]:
    """Computes the loss terms of a batch and their weights.

    Args:
        loss: `config.loss`.
        audio: mixtures of the speech, `[b, k, d]`.
        motion: mixtures of the motion, `[b, k, d]`.
        labels: labels of the matches, see `match_labels`.
        scale: scale of the logits, DEE's parameter; for kind "info_nce" its logarithm.
        shift: shift of the logits, DEE's parameter.
        key: random key of the samples, for kind "mc_soft_contrastive".

    Returns:
        Scalar terms and weights, both by name.

    Raises:
        ConfigError: an unknown kind of loss or distance, several components or smoothing with a kind that does not
            support it, or `chunk_rows` that does not divide the batch.
    """
    if loss.kind == "info_nce" and loss.smoothing:
        raise ConfigError(
            f"loss.smoothing={loss.smoothing}: expected 0 with loss.kind='info_nce', which has no pseudo-positives"
        )
    sides = pair_inputs(loss.kind, audio, motion, num_samples=loss.num_samples, key=key)
    pair_means = partial(_pair_means, loss, labels=labels, parameters=(scale, shift))
    if loss.kind == "info_nce":
        means = [pair_means(*pair, functions={"match": info_nce}) for pair in (sides, sides[::-1])]
        return {"match": (means[0]["match"] + means[1]["match"]) / 2.0}, {"match": 1.0}
    functions = {"match": match_loss}
    weights = {"match": 1.0, "kl_audio": loss.kl_weight, "kl_motion": loss.kl_weight}
    if loss.smoothing:
        functions["pseudo_match"] = pseudo_match_loss
        weights["pseudo_match"] = loss.smoothing
    terms = pair_means(*sides, functions=functions)
    terms["kl_audio"] = masked_mean(standard_normal_kl(audio))
    terms["kl_motion"] = masked_mean(standard_normal_kl(motion))
    if loss.smoothing:
        # The loss finds the pseudo-positives of each row; those of each column are a second sum (PCME++, section 3.3).
        of_columns = pair_means(*sides[::-1], functions={"pseudo_match": pseudo_match_loss})
        terms["pseudo_match"] += of_columns["pseudo_match"]
    return terms, weights


def _pair_means(
    loss: ConfigDict,
    rows: PyTree,
    columns: PyTree,
    *,
    labels: Int[Array, " b"],
    parameters: tuple[Array, Array],
    functions: Mapping[str, Callable[[Array, Array], Array]],
) -> dict[str, Float[Array, ""]]:
    """Averages functions of (logits, matches) over all pairs, in blocks of `loss.chunk_rows` rows.

    The columns are those of the global batch; they are gathered once.
    """
    columns, column_labels = jax.tree.map(global_rows, (columns, labels))

    def row_losses(block):
        side, block_labels = block
        logits = pair_logits(loss.kind, loss.distance, side, columns, *parameters)  # [b, c]
        matches = block_labels[:, None] == column_labels[None, :]
        return {
            name: einops.reduce(function(logits, matches), "b ... -> b", "mean")
            for name, function in functions.items()
        }

    return jax.tree.map(masked_mean, over_row_blocks(row_losses, (rows, labels), loss.chunk_rows))
