"""What makes a try-on picture hard, as numbers in [0, 1], and the three levels drawn from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

LEVELS: dict[str, tuple[float, float]] = {"easy": (0.0, 0.25), "medium": (0.3, 0.6), "hard": (0.65, 1.0)}
"""Range from which every factor of a level is drawn; the gaps keep the levels apart."""

CATEGORIES = ("upper_body", "lower_body", "dresses")
"""Kinds of garment; the position is the integer that a model sees."""

_CATEGORY_WEIGHTS = {"easy": (1.0, 0.0, 0.0), "medium": (0.85, 0.15, 0.0), "hard": (0.7, 0.1, 0.2)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """How hard a picture is, and in what way. Each number lies in [0, 1]; higher is harder.

    Attributes:
        pose: Lean, turn and spread of the arms.
        occlusion: How much of the garment lies behind forearms and hair.
        texture: From one plain colour to fine checks with a logo.
        clutter: Things in the background.
        lighting: Strength of shadow, folds and colour cast.
        looseness: How far the mask reaches beyond the garment; says nothing about difficulty.
        category: One of ``CATEGORIES``.

    >>> Factors(pose=1.0, occlusion=0.5, texture=0.0, clutter=0.5, lighting=0.0).difficulty
    0.4
    """

    pose: float
    occlusion: float
    texture: float
    clutter: float
    lighting: float
    looseness: float = 0.5
    category: str = "upper_body"

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "category" and not 0.0 <= value <= 1.0:
                raise ValueError(f"Factors: got {name}={value!r}, but a factor lies in [0, 1].")
        if self.category not in CATEGORIES:
            raise ValueError(
                f"Factors: got category={self.category!r}; choose one of {', '.join(CATEGORIES)}."
            )

    @property
    def difficulty(self) -> float:
        """Mean of the five factors that make a picture hard."""
        return (self.pose + self.occlusion + self.texture + self.clutter + self.lighting) / 5


def draw_factors(level: str, rng: np.random.Generator, category: str | None = None) -> Factors:
    """Draw the factors of one picture of a level, each independently.

    Args:
        level: A key of ``LEVELS``.
        rng: Where the numbers come from.
        category: Fix the kind of garment; by default upper bodies prevail and dresses are only hard.

    Raises:
        ValueError: If the level is unknown.

    >>> drawn = draw_factors("hard", np.random.default_rng(0))
    >>> all(0.65 <= value <= 1.0 for value in (drawn.pose, drawn.occlusion, drawn.texture))
    True
    """
    if level not in LEVELS:
        raise ValueError(f"draw_factors: got level={level!r}; the levels are {', '.join(LEVELS)}.")
    low, high = LEVELS[level]
    pose, occlusion, texture, clutter, lighting = rng.uniform(low, high, 5).tolist()
    looseness = rng.uniform(0.0, 1.0)
    drawn_category = CATEGORIES[int(rng.choice(len(CATEGORIES), p=_CATEGORY_WEIGHTS[level]))]
    return Factors(
        pose=pose,
        occlusion=occlusion,
        texture=texture,
        clutter=clutter,
        lighting=lighting,
        looseness=looseness,
        category=category or drawn_category,
    )
