"""Feature pictures: edges against known shapes, networks of the published layouts made tiny."""

import cv2
import numpy as np
import pytest
import torch

from cm3leon.instructions.features import NAMES, WANTED, features, open_feature
from cm3leon.instructions.features.depth import normals_of
from cm3leon.instructions.features.hed import HED
from cm3leon.instructions.features.pose import LIMBS, draw_skeletons, joint_colours
from cm3leon.instructions.features.segmentation import palette

SIZE = (72, 96)


@pytest.fixture
def picture():
    """A textured ground, a dark disc and a bright bar."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    pixels = 120 + rng.integers(-40, 40, (*SIZE, 3))
    pixels[(y - 36) ** 2 + (x - 30) ** 2 < 20**2] = (20, 30, 40)
    pixels[10:60, 65:85] = (250, 240, 200)
    return pixels.clip(0, 255).astype(np.uint8)


def square(side=40):
    pixels = np.full((80, 80, 3), 255, np.uint8)
    pixels[20 : 20 + side, 20 : 20 + side] = (200, 0, 0)
    return pixels


def components(lines):
    return cv2.connectedComponents((lines[:, :, 0] < 128).astype(np.uint8), connectivity=8)[0] - 1


def test_cannys_edges_of_a_square_lie_on_its_border():
    lines = open_feature("canny")(square())[:, :, 0]
    assert set(np.unique(lines)) == {0, 255}
    y, x = np.mgrid[:80, :80]
    inside = np.maximum(abs(x - 39.5), abs(y - 39.5))  # 19.5 is the outermost ring of the square
    assert (abs(inside[lines < 128] - 20) <= 1).all()
    for line in (lines[40], lines[:, 40]):  # a line across meets two edges, each a pixel wide
        assert (line < 128).sum() == 2
    assert components(lines[:, :, None]) == 1


def test_a_plain_picture_has_no_edges():
    for name in ("canny", "scribble"):
        assert (open_feature(name)(np.full((50, 70, 3), 90, np.uint8)) == 255).all()


def test_scribbles_are_few_connected_strokes_where_canny_has_texture(picture):
    edges, strokes = (open_feature(name)(picture) for name in ("canny", "scribble"))
    assert 0 < (strokes < 128).sum() < (edges < 128).sum()
    assert 0 < components(strokes) < components(edges) / 4
    shape = (strokes[:, :, 0] < 128).astype(np.uint8)
    *_, stats, _ = cv2.connectedComponentsWithStats(shape, connectivity=8)
    assert (stats[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(1) >= 8).all()


def test_scribbles_grow_with_the_picture():
    large = cv2.resize(square(), (640, 640), interpolation=cv2.INTER_NEAREST)
    strokes = open_feature("scribble")(large)[:, :, 0]
    assert 2 * 5 <= (strokes[320] < 128).sum() <= 2 * 30  # across two strokes
    y, x = np.nonzero(strokes < 128)
    ring = np.maximum(abs(x - 319.5), abs(y - 319.5))
    assert (abs(ring - 160) < 20).all()


def dpt(folder):
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    config = DPTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=24, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8, is_hybrid=False, reassemble_factors=[4, 2, 1, 0.5],
    )  # fmt: skip
    DPTForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def segformer(folder):
    from transformers import (
        SegformerConfig,
        SegformerForSemanticSegmentation,
        SegformerImageProcessor,
    )

    config = SegformerConfig(
        hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8, num_labels=5,
    )  # fmt: skip
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


def vitpose(folder):
    from transformers import (
        VitPoseBackboneConfig,
        VitPoseConfig,
        VitPoseForPoseEstimation,
        VitPoseImageProcessor,
        YolosConfig,
        YolosForObjectDetection,
        YolosImageProcessor,
    )

    config = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        image_size=[32, 32], patch_size=16, num_detection_tokens=3,
        id2label={0: "dog", 1: "person"}, label2id={"dog": 0, "person": 1},
    )  # fmt: skip
    people = YolosForObjectDetection(config)
    with torch.no_grad():
        people.class_labels_classifier.layers[-1].bias[1] = 20.0  # it sees people everywhere
    people.save_pretrained(folder / "people")
    YolosImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "people")
    backbone = VitPoseBackboneConfig(
        image_size=(64, 48), patch_size=(16, 16), hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, out_indices=[1],
    )  # fmt: skip
    joints = VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, num_labels=17))
    with torch.no_grad():
        for name, bias in joints.head.named_parameters():
            if name.endswith("bias"):
                bias += 1.0  # and is sure of all joints
    joints.save_pretrained(folder / "pose")
    VitPoseImageProcessor(size={"height": 64, "width": 48}).save_pretrained(folder / "pose")


def hed(folder):
    torch.save(HED((4, 6, 8, 8, 8)).state_dict(), folder)


MAKERS = {"hed": hed, "depth": dpt, "normals": dpt, "openpose": vitpose, "segmentation": segformer}


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Random weights in the layouts in which trained ones are published."""
    torch.manual_seed(0)
    folder, paths = tmp_path_factory.mktemp("weights"), {}
    for name, make in MAKERS.items():
        paths[name] = folder / name
        make(paths[name])
    return paths


@pytest.mark.parametrize("name", NAMES)
def test_every_extractor_gives_a_picture_of_the_same_size_each_time_the_same(
    weights, picture, name
):
    extract = open_feature(name, weights.get(name))
    before, first = picture.copy(), extract(picture)
    assert first.shape == picture.shape and first.dtype == np.uint8
    assert np.array_equal(first, extract(picture)) and np.array_equal(before, picture)
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 1
    again = open_feature(name, weights.get(name))
    assert np.array_equal(first, again(picture))


def test_hed_is_the_published_networks_mean_of_sides(weights, picture):
    """By the arithmetic of the authors' detector, from the file's tensors alone."""
    state = torch.load(weights["hed"], weights_only=True)
    x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() - state["norm"]
    sides = []
    for block in range(1, 6):
        if block > 1:
            x = torch.nn.functional.max_pool2d(x, 2, 2)
        layer = 0
        while (name := f"block{block}.convs.{layer}") + ".weight" in state:
            x = torch.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1).relu()
            layer += 1
        name = f"block{block}.projection"
        side = torch.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"])[0, 0].numpy()
        sides.append(cv2.resize(side, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR))
    wanted = 255 - 255 / (1 + np.exp(-np.mean(sides, axis=0)))  # black on white, theirs is not
    got = open_feature("hed", weights["hed"])(picture)
    assert abs(got[:, :, 0] - wanted).max() <= 1


def test_normals_of_a_wall_and_of_slopes():
    wall = np.full((9, 9), 0.5, np.float32)
    assert (normals_of(wall) == (128, 128, 255)).all()
    ramp = np.tile(np.linspace(0, 1, 9, dtype=np.float32), (9, 1))  # nearer to the right
    right, down = (normals_of(one)[4, 4].astype(int) for one in (ramp, ramp.T.copy()))
    assert right[0] < 128 and right[1] == 128 and down[1] < 128 and down[0] == 128
    length = np.linalg.norm(right / 255 * 2 - 1)
    assert length == pytest.approx(1, abs=0.01)


def test_a_class_has_one_colour(weights, picture):
    colours = palette(256)
    assert len(np.unique(colours, axis=0)) == 256
    assert colours[:5].tolist() == [  # PASCAL VOC's own
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128],
    ]  # fmt: skip
    found = open_feature("segmentation", weights["segmentation"])(picture).reshape(-1, 3)
    assert {tuple(colour) for colour in found} <= {tuple(colour) for colour in colours[1:6]}


def test_skeletons_have_openposes_joints_and_leave_out_what_is_not_seen():
    joints = np.column_stack([np.linspace(8, 88, 18), np.linspace(8, 60, 18), np.ones(18)])
    drawn = draw_skeletons((*SIZE, 3), [joints])
    for (x, y, _), colour in zip(np.round(joints).astype(int), joint_colours(), strict=True):
        assert drawn[y, x].tolist() == colour.tolist()
    assert len({tuple(colour) for colour in joint_colours().tolist()}) == 18 and len(LIMBS) == 17
    joints[:, 2] = 0.1
    assert not draw_skeletons((*SIZE, 3), [joints]).any()


@pytest.mark.parametrize("name", MAKERS)
def test_missing_weights_are_described(name, tmp_path):
    with pytest.raises(ValueError, match="--feature-weights: wanted .*; got none") as error:
        open_feature(name)
    assert WANTED[name] in str(error.value)
    with pytest.raises(ValueError, match="; got .*nowhere, which is not there"):
        open_feature(name, tmp_path / "nowhere")


@pytest.mark.parametrize("name", MAKERS)
def test_other_files_are_no_weights(name, tmp_path):
    path = tmp_path / "other"
    if name == "hed":
        torch.save({"conv.weight": torch.zeros(1)}, path)
    else:
        path.mkdir()
        (path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=f"--feature-weights: wanted .*{name}=.*; got .*other: "):
        open_feature(name, path)


def test_pickled_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"norm": Evil()}, tmp_path / "hed.pth")
    with pytest.raises(ValueError, match="--feature-weights: wanted ControlNetHED.pth"):
        open_feature("hed", tmp_path / "hed.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [None, torch.zeros(3), [1], {"block1.projection.weight": 3}])
def test_a_file_of_other_things_than_weights_is_refused(tmp_path, content):
    (tmp_path / "hed.pth").touch()
    if content is not None:
        torch.save(content, tmp_path / "hed.pth")
    with pytest.raises(ValueError, match="--feature-weights: wanted ControlNetHED.pth"):
        open_feature("hed", tmp_path / "hed.pth")


def test_a_folder_that_lacks_a_tensor_is_refused(weights, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "depth"
    shutil.copytree(weights["depth"], folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["head.head.0.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="wanted head.head.0.weight among them, got none"):
        open_feature("depth", folder)


def test_what_cannot_be_opened_is_left_out_with_the_reason(weights):
    given = {"hed": weights["hed"]}
    opened, left_out = features(["canny", "hed", "depth", "mlsd"], given)
    assert list(opened) == ["canny", "hed"] and list(left_out) == ["depth", "mlsd"]
    assert "depth=FOLDER" in left_out["depth"]
    assert "feature: wanted one of canny, " in left_out["mlsd"]
