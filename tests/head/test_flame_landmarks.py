"""FLAME landmarks: parity with smplx, the sliding contour, and errors for damaged files."""

import pickle

import jax
import numpy as np
import pytest

from deeptalk_jax.errors import UserError
from deeptalk_jax.head.flame_landmarks import flame_landmarks, load_flame_landmarks
from deeptalk_jax.head.lbs import head_vertices


@pytest.fixture
def files(tmp_path, synthetic_flame_arrays):
    """Both files in FLAME's formats: a pickled dictionary, and a dictionary inside an object array."""
    static, dynamic = tmp_path / "flame_static_embedding.pkl", tmp_path / "flame_dynamic_embedding.npy"
    entries = {
        kind: {
            "lmk_face_idx": synthetic_flame_arrays[f"{kind}_lmk_face_idx"],
            "lmk_b_coords": synthetic_flame_arrays[f"{kind}_lmk_b_coords"],
        }
        for kind in ("static", "dynamic")
    }
    static.write_bytes(pickle.dumps(entries["static"], protocol=2))
    np.save(dynamic, np.array(entries["dynamic"], dtype=object), allow_pickle=True)
    return static, dynamic


def test_landmarks_equal_smplx(files, golden, synthetic_flame_head):
    """The third row turns the head to the right and the fourth to the left, which covers both halves of the table."""
    landmarks = load_flame_landmarks(*files, synthetic_flame_head.faces)
    root, neck = golden["pose_global_jaw"][:, :3], golden["neck"]

    @jax.jit
    def points(head, landmarks):
        vertices = head_vertices(
            head,
            golden["expression"],
            golden["pose_global_jaw"][:, 3:],
            shape=golden["shape"],
            global_rotation=root,
            neck_pose=neck,
            eye_pose=golden["eyes"],
            translation=golden["transl"],
        )
        return flame_landmarks(landmarks, vertices, global_rotation=root, neck_pose=neck)

    np.testing.assert_allclose(
        points(synthetic_flame_head, landmarks), golden["landmarks"], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("degrees, row", [(-60.0, 39), (-7.4, 7), (0.2, 0), (7.4, 46), (60.0, 78)])
def test_contour_follows_the_yaw(files, synthetic_flame_head, degrees, row):
    """A turn to the speaker's right is a negative rotation about y; beyond 39 degrees the last contour is used."""
    landmarks = load_flame_landmarks(*files, synthetic_flame_head.faces)
    vertices = np.asarray(synthetic_flame_head.template)
    turn = np.array([0.0, np.deg2rad(degrees), 0.0], np.float32)
    points = flame_landmarks(landmarks, vertices, global_rotation=turn, neck_pose=np.zeros(3, np.float32))
    expected = np.einsum("lkc,lk->lc", vertices[landmarks.contour[row]], landmarks.contour_weights[row])
    np.testing.assert_allclose(points[:17], expected, rtol=0, atol=1e-6)


def test_unusable_landmark_files_raise_user_error(files, tmp_path, synthetic_flame_head):
    static, dynamic = files
    faces = synthetic_flame_head.faces
    with pytest.raises(UserError, match=r"refers to faces .* the head has 10 faces"):
        load_flame_landmarks(static, dynamic, faces[:10])
    with pytest.raises(UserError, match=r"shape \(51,\), found shape \(79, 17\)"):
        load_flame_landmarks(dynamic, dynamic, faces)
    with pytest.raises(UserError, match="no such file"):
        load_flame_landmarks(tmp_path / "absent.pkl", dynamic, faces)
    whole = dynamic.read_bytes()
    np.save(dynamic, np.array([{}], dtype=object), allow_pickle=True)
    wrong_shape = dynamic.read_bytes().replace(b"K\x01\x85", b"K\x02\x85")  # shape (2,) instead of (1,)
    dynamic.write_bytes(wrong_shape)
    with pytest.raises(UserError, match=r"array of shape \(2,\) from a list of 1"):
        load_flame_landmarks(static, dynamic, faces)
    dynamic.write_bytes(whole[:400])
    with pytest.raises(UserError, match=r"flame_dynamic_embedding\.npy: not a readable pickle"):
        load_flame_landmarks(static, dynamic, faces)
    dynamic.write_text("not an array")
    with pytest.raises(UserError, match=r"flame_dynamic_embedding\.npy: not a readable npy"):
        load_flame_landmarks(static, dynamic, faces)
