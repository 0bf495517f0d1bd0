"""Real handwritten digits, each with a difficulty: how close a linear model comes to mistaking it."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict, train_test_split


class Digits(NamedTuple):
    """A split: ``images`` float32[n, 64] in 0..1, ``labels`` int64[n], ``scores`` float64[n], higher is harder."""

    images: torch.Tensor
    labels: torch.Tensor
    scores: NDArray[np.float64]


def load_scored_digits() -> tuple[Digits, Digits]:
    """Return the training and the held-out split of the 1,797 digits that scikit-learn ships.

    The score is the negative margin of a linear model: the best wrong class's logit minus the true one's. For
    the training split every score comes from a model that has not seen the sample (5-fold cross-validation); the
    held-out split is scored by a model of the training split, so no held-out label touches training.
    """
    pixels, labels = load_digits(return_X_y=True)
    pixels = (pixels / 16).astype(np.float32)
    train_x, held_x, train_y, held_y = train_test_split(
        pixels, labels, test_size=0.3, random_state=0, stratify=labels
    )
    linear = LogisticRegression(C=0.1, max_iter=1000)
    train_logits = cross_val_predict(linear, train_x, train_y, cv=5, method="decision_function")
    held_logits = linear.fit(train_x, train_y).decision_function(held_x)
    return _split(train_x, train_y, train_logits), _split(held_x, held_y, held_logits)


def _split(pixels: NDArray[np.float32], labels: NDArray[np.int64], logits: NDArray[np.float64]) -> Digits:
    at = np.arange(len(labels))
    true = logits[at, labels]
    wrong = logits.copy()
    wrong[at, labels] = -np.inf
    return Digits(torch.from_numpy(pixels), torch.from_numpy(labels), wrong.max(axis=1) - true)


def cut(scores: NDArray[np.float64], shares: Mapping[str, float]) -> NDArray[np.str_]:
    """Return each sample's bucket name by the rule of ``MixtureSampler.from_scores``: shares of the ranking.

    >>> cut(np.array([0.9, 0.1, 0.5, 0.2]), {"easy": 0.5, "hard": 0.5}).tolist()
    ['hard', 'easy', 'hard', 'easy']
    """
    edges = np.cumsum(list(shares.values())) / sum(shares.values()) * len(scores)
    names = np.repeat(list(shares), np.diff(np.rint(edges).astype(int), prepend=0))
    found = np.empty_like(names)
    found[np.argsort(scores, kind="stable")] = names
    return found
