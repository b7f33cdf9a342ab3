"""Skeletons of people, in OpenPose's drawing (arXiv 1812.08008).

Takes a folder with two of transformers' networks: `people/`, a detector such as RT-DETR
(arXiv 2304.08069), finds the people, and `pose/`, a ViTPose (arXiv 2204.12484), the joints of each.
Gives an extractor.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from cm3leon.instructions.features.published import inputs_of, open_model

SURE = 0.5
"""Least score of a person."""
SEEN = 0.3
"""Least score of a joint."""
FROM_COCO = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""COCO's number of each of OpenPose's 18 joints; COCO has no neck, which is between the shoulders.

OpenPose's are nose, neck, right shoulder, elbow and wrist, the left ones, right hip, knee and
ankle, the left ones, right and left eye, right and left ear."""
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12),
    (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
"""Joints that OpenPose connects, in the order of its colours."""


def joint_colours() -> np.ndarray:
    """Return OpenPose's 18 colours, a turn through the hues in steps of 85 of a channel."""
    red = [255, 255, 255, 255, 170, 85, 0, 0, 0, 0, 0, 0, 0, 85, 170, 255, 255, 255]
    green = [0, 85, 170, 255, 255, 255, 255, 255, 255, 255, 170, 85, 0, 0, 0, 0, 0, 0]
    blue = [0, 0, 0, 0, 0, 0, 0, 85, 170, 255, 255, 255, 255, 255, 255, 255, 170, 85]
    return np.stack([red, green, blue], -1)


def open_pose(folder: Path, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return the extractor of a folder; errors as `open_feature` tells them."""
    finder, people = open_model("AutoModelForObjectDetection", folder / "people", device)
    reader, joints = open_model("VitPoseForPoseEstimation", folder / "pose", device)
    if "person" not in people.config.label2id:
        raise ValueError(f"people: wanted a detector of 'person', got {people.config.label2id}")
    person = people.config.label2id["person"]
    # ViTPose++ has a part for each of its data sets; the first is COCO
    several = getattr(joints.config.backbone_config, "num_experts", 1) > 1
    options = {"dataset_index": torch.zeros(1, dtype=torch.long, device=device)} if several else {}

    @torch.no_grad()
    def pose(pixels: np.ndarray) -> np.ndarray:
        size = torch.tensor([pixels.shape[:2]])
        seen = people(**inputs_of(finder, pixels, device))
        (found,) = finder.post_process_object_detection(seen, threshold=SURE, target_sizes=size)
        boxes = found["boxes"][found["labels"] == person].cpu().numpy()  # (P, 4) by corners
        if not len(boxes):
            return np.zeros_like(pixels)
        boxes[:, 2:] -= boxes[:, :2]  # corner and size
        crops = inputs_of(reader, pixels, device, boxes=[boxes])
        maps = joints(**crops, **options)
        (each,) = reader.post_process_pose_estimation(maps, boxes=[boxes])
        return draw_skeletons(pixels.shape, [_with_neck(one) for one in each])

    return pose


def draw_skeletons(shape: tuple[int, ...], people: list[np.ndarray]) -> np.ndarray:
    """Draw limbs, then joints, on black.

    Args:
        shape: (H, W, 3).
        people: (18, 3) each: x, y and score of OpenPose's joints.
    """
    drawn = np.zeros(shape, np.uint8)
    width = max(1, round(min(shape[:2]) / 128))
    colours = joint_colours()
    for joints in people:
        places, seen = np.round(joints[:, :2]).astype(int).tolist(), joints[:, 2] >= SEEN
        for (start, stop), colour in zip(LIMBS, colours, strict=False):
            if seen[start] and seen[stop]:
                dark = (colour * 0.6).astype(int).tolist()  # as OpenPose blends limbs
                cv2.line(drawn, places[start], places[stop], dark, 2 * width)
        for place, visible, colour in zip(places, seen, colours.tolist(), strict=True):
            if visible:
                cv2.circle(drawn, place, 2 * width, colour, -1)
    return drawn


def _with_neck(found: dict[str, Any]) -> np.ndarray:
    """Return OpenPose's joints (18, 3) from COCO's 17."""
    coco = np.column_stack([found["keypoints"].cpu().numpy(), found["scores"].cpu().numpy()])
    shoulders = coco[[5, 6]]
    neck = np.array([*shoulders[:, :2].mean(0), shoulders[:, 2].min()])
    return np.stack([neck if place is None else coco[place] for place in FROM_COCO])
