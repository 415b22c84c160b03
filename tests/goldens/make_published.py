"""Writes published.npz and published.json from the reference arrays and their manifest (see README.md).

The tests do not run this script, because it needs the reference, which is too large for the repository.

    python tests/goldens/make_published.py REFERENCE_DIR
"""

import json
import sys
from pathlib import Path

import numpy as np

OUT = Path(__file__).parent
PARTS = ("fer", "vqvae", "gpo", "dee", "deeptalk", "masks", "losses", "train")
# Arrays with up to this many numbers are stored completely. Of larger arrays, every n-th number is stored.
MOST = 300
# Inputs that pseudo_weights.py cannot generate; they are stored completely.
INPUTS = {
    "vqvae": ("code_idx_t", "code_idx_b"),
    "deeptalk": ("condition", "gumbel_t", "gumbel_b", "sample_eps", "demo_padded_len"),
    "losses": (
        *("exp_mean", "exp_logvar", "audio_mean", "audio_logvar", "csd_label_matched"),
        *("st_logits", "st_gumbel", "st_weights", "ema1_z", "ema2_z", "ema_loss_weights_for_grad"),
    ),
    "train": ("s1_condition", "s1_gumbel_t", "s1_gumbel_b"),
}
# Arrays of options that this project does not have, and arrays of wrong variants (TRAP_).
LEFT_OUT = ("TRAP_", "pad_table", "actor_id")
LEFT_OUT += (
    "alibi_causal",
    "emotion2vec_alibi",
    "emotion2vec_bias",
    "long12s_audio_head",
    "exp50_x",
    "x_L",
    "exp251",
)


def stride_for(size):
    """Returns n such that every n-th number is stored.

    n is odd, so that the stored numbers do not always fall on the same position of an axis with even size.
    """
    return max(1, -(-size // MOST)) | 1


def main(reference):
    tolerances = json.loads((reference / "tolerances.json").read_text())
    arrays, index = {}, {}
    for part in PARTS:
        name = f"golden_{part}.npz"
        index[part] = {}
        with np.load(reference / name) as stored:
            for key in stored.files:
                if key.startswith(LEFT_OUT) or key.endswith("_if_audio_cut_before_emotion2vec"):
                    continue
                array = stored[key]
                if key in INPUTS.get(part, ()):
                    arrays[f"{part}/{key}"] = array
                    continue
                stride = stride_for(array.size)
                arrays[f"{part}/{key}"] = array.reshape(-1)[::stride]
                index[part][key] = [list(array.shape), stride, tolerances[name][key][0]]
    norms = json.loads((reference / "golden_train_gradnorms.json").read_text())
    norms = {name: norms[name] for name in ("vq_step1", "vq_step2", "dee", "stage1")}
    manifest = json.loads((reference / "manifest.json").read_text())
    # The dtype is not stored, because all tensors except counters are float32.
    tensors = {
        file: {name: shape for name, shape, _ in entries}
        for file, entries in manifest.items()
        if file != "emotion2vec_base.pt"
    }
    np.savez_compressed(OUT / "published.npz", **arrays)
    rows = {"arrays": index, "gradient_norms": norms, "tensors": tensors}
    (OUT / "published.json").write_text(
        json.dumps(rows, separators=(",", ":")).replace('],"', '],\n"') + "\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
