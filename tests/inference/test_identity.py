"""Speaker identities: training speakers, their mean, blends, vectors and files."""

import json
import re

import numpy as np
import pytest

from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.identity import read_identity, write_identity

MEAN = np.float32([1 / 3, 1 / 3, 1 / 3, 0, 0])  # of three trained identities, in vectors of five


@pytest.fixture
def config(model_parts):
    return model_parts["deeptalk"].config


@pytest.mark.parametrize(
    ("source", "vector"),
    [
        (None, MEAN),
        (2, [0, 0, 1, 0, 0]),
        (np.int64(1), [0, 1, 0, 0, 0]),
        ("2", [0, 0, 1, 0, 0]),
        ("0:0.25, 2:0.75", [0.25, 0, 0.75, 0, 0]),
        ("0:1,2:3", [0.25, 0, 0.75, 0, 0]),  # in proportion
        ("0,1", [0.5, 0.5, 0, 0, 0]),
        ("1:0.25", 0.75 * MEAN + [0, 0.25, 0, 0, 0]),  # the rest is the mean
        (np.float64([0.1, -2, 0.3, 4, 0]), [0.1, -2, 0.3, 4, 0]),
    ],
)
def test_identity_vectors_by_hand(config, source, vector):
    found = read_identity(config, source)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, vector, rtol=1e-6)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "identity 3 is not one of the trained identities 0 to 2"),
        ("1:0.5,3", "identity 3 is not one of the trained identities 0 to 2"),
        ("-1", "identity -1 is not one of the trained identities 0 to 2"),
        ("1:0.5:2", "'1:0.5:2' is not NUMBER[:WEIGHT]"),
        ("anna", "identity 'anna': 'anna' is not NUMBER[:WEIGHT] or a .json file of fit_identity"),
        ("1.5", "'1.5' is not NUMBER[:WEIGHT]"),
        (
            "1:-1",
            "identity '1:-1': weight '-1' is not a number 0 or above; the trained identities are 0 to 2",
        ),
        ("1:nan", "weight 'nan' is not a number 0 or above"),
        ("1:0", "no weight is above 0"),
        (np.zeros(4), "identity vector of shape (4,); this model expects (5,)"),
        (np.float32([0, np.nan, 0, 0, 0]), "identity vector with values that are not finite"),
        ("gone.json", "gone.json: cannot be read (No such file or directory)"),
    ],
)
def test_unusable_identities_raise_one_line(config, source, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read_identity(config, source)


def test_identity_files_are_read_back_and_checked(config, tmp_path):
    path, vector = tmp_path / "anna.json", np.float32([0.5, -0.25, 1 / 3, 0, 0])
    write_identity(path, vector, {"who": "Anna"})
    for source in (path, str(path)):
        np.testing.assert_allclose(read_identity(config, source), vector, atol=1e-7)
    whole = json.loads(path.read_text())
    assert whole["who"] == "Anna"
    for contents, message in (
        (json.dumps(whole | {"identity": [1, 2]}), "identity vector of shape (2,); this model expects (5,)"),
        (json.dumps(whole | {"identity": [float("nan")] * 5}), "values that are not finite"),
        (json.dumps(whole | {"identity": ["a"] * 5}), "not an identity file of fit_identity"),
        (
            json.dumps(whole | {"format": "other"}),
            "not an identity file of fit_identity (format 'other')",
        ),
        ("[1, 2]", "not an identity file of fit_identity"),
        ("{", "not an identity file of fit_identity"),
    ):
        path.write_text(contents)
        with pytest.raises(UserError, match=re.escape(message)) as raised:
            read_identity(config, path)
        assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)
    with pytest.raises(UserError, match="cannot be written"):
        write_identity(tmp_path / "none" / "a.json", vector, {})


def test_blend_file_and_vector_of_an_identity_animate_alike(model, babble, tmp_path):
    sound = babble(1.9)
    blend = model.animate(sound, identity="0:0.5,2:0.5")
    write_identity(tmp_path / "a.json", np.float32([0.5, 0, 0.5, 0, 0]), {})
    for source in (tmp_path / "a.json", np.float32([0.5, 0, 0.5, 0, 0])):
        np.testing.assert_array_equal(model.animate(sound, identity=source).frames(), blend.frames())
    others = [model.animate(sound, identity=identity).frames() for identity in (None, 0, 1, 2)]
    assert sum(np.abs(frames - blend.frames()).max() > 1e-3 for frames in others) >= 2
