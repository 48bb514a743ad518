"""Heads that a transformers classifier cannot hold: modules whose arrays are all that they are, so that safetensors keep them.

Each is called with features and gives logits; those that make probabilities give their logarithms (log odds, where a row can
carry several labels). `options` are what the constructor takes.
Shape suffixes: N = training rows, B = rows, T = tokens, E = width, P = components, C = classes, K = neighbours, R = trees,
M = nodes of a tree.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHUNK_ROWS = 256
LEAST = 1e-6
"""Smallest probability that is told, and a distance between neighbours that counts as none."""


class Neighbours(nn.Module):
    """Labels of the most similar training rows, weighted as Dudani (1976, eq. 1) does, and one vote more for the classes' shares.

    A neighbour's weight falls from 1 for the nearest to 0 for the first that is not asked, so that answers do not jump when
    two rows change places. Similarity is the cosine of what is left after the mean of the training rows is taken away.
    """

    mean_E: Tensor
    unit_NE: Tensor
    targets: Tensor
    weight_N: Tensor
    share_C: Tensor

    def __init__(self, rows: int, width: int, classes: int, neighbours: int, several: bool) -> None:
        super().__init__()
        self.options = {"rows": rows, "width": width, "classes": classes, "neighbours": neighbours, "several": several}
        self.neighbours, self.several = neighbours, several
        self.register_buffer("mean_E", torch.zeros(width))
        self.register_buffer("unit_NE", torch.zeros(rows, width))
        self.register_buffer("targets", torch.zeros((rows, classes) if several else rows, dtype=torch.uint8 if several else torch.int64))
        self.register_buffer("weight_N", torch.zeros(rows))
        self.register_buffer("share_C", torch.zeros(classes))

    def forward(self, features_BE: Tensor) -> Tensor:
        """Logits (B, C)."""
        return torch.cat([self._answer(chunk) for chunk in torch.split(features_BE, CHUNK_ROWS)])

    def _answer(self, features_BE: Tensor) -> Tensor:
        unit_BE = F.normalize(features_BE.float() - self.mean_E, dim=-1)
        asked = min(self.neighbours + 1, len(self.unit_NE))
        cosine_BK, place_BK = (unit_BE @ self.unit_NE.T).topk(asked)
        weight_BK = dudani(1 - cosine_BK) * self.weight_N[place_BK]
        if self.several:
            votes_BC = torch.einsum("bk,bkc->bc", weight_BK, self.targets[place_BK].float())
        else:
            votes_BC = weight_BK.new_zeros(len(unit_BE), len(self.share_C)).scatter_add_(1, self.targets[place_BK], weight_BK)
        share_BC = (votes_BC + self.share_C) / (weight_BK.sum(1, keepdim=True) + 1)
        return log_odds(share_BC) if self.several else share_BC.clamp_min(LEAST).log()


def fit_neighbours(features_NE: Tensor, targets: Any, classes: int, neighbours: int, weights_N: Any = None) -> Neighbours:
    """A head that remembers these rows.

    Args:
        features_NE: frozen features.
        targets: class ids (N,), or a 0/1 matrix (N, C).
        classes: C.
        neighbours: how many rows are asked; all where there are fewer.
        weights_N: weight of each row's vote; 1 when left out.
    """
    head = Neighbours(len(features_NE), features_NE.shape[1], classes, neighbours, targets.ndim == 2)
    weight_N = torch.ones(len(features_NE)) if weights_N is None else torch.as_tensor(weights_N, dtype=torch.float32)
    votes_NC = torch.as_tensor(targets).float() if targets.ndim == 2 else F.one_hot(torch.as_tensor(targets), classes).float()
    head.mean_E, head.weight_N = features_NE.float().mean(0), weight_N
    head.unit_NE = F.normalize(features_NE.float() - head.mean_E, dim=-1)
    head.targets = torch.as_tensor(targets, dtype=head.targets.dtype)
    head.share_C = (weight_N @ votes_NC) / weight_N.sum()
    return head


def dudani(distance_BK: Tensor) -> Tensor:
    """Weights in [0, 1] of neighbours in the order of their distance; equal ones where all are equally far."""
    furthest_B1 = distance_BK[:, -1:]
    return (furthest_B1 - distance_BK + LEAST) / (furthest_B1 - distance_BK[:, :1] + LEAST)


def log_odds(share_BC: Tensor) -> Tensor:
    """Logits whose sigmoid is the given probability."""
    return torch.logit(share_BC.clamp(LEAST, 1 - LEAST))


class Trees(nn.Module):
    """A sum of decision trees on the principal components of the features; a tree adds to the logit of one class.

    A node sends a row to `left_RM` where its component `feature_RM` is at most `threshold_RM`, else to `right_RM`; a leaf sends
    it to itself, and its `value_RM` is what the tree says.
    """

    mean_E: Tensor
    rotation_EP: Tensor
    baseline_C: Tensor
    class_R: Tensor
    feature_RM: Tensor
    left_RM: Tensor
    right_RM: Tensor
    threshold_RM: Tensor
    value_RM: Tensor

    def __init__(self, width: int, components: int, classes: int, trees: int, nodes: int, depth: int) -> None:
        super().__init__()
        self.options = {"width": width, "components": components, "classes": classes, "trees": trees, "nodes": nodes, "depth": depth}
        self.depth = depth
        self.register_buffer("mean_E", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("rotation_EP", torch.zeros(width, components, dtype=torch.float64))
        self.register_buffer("baseline_C", torch.zeros(classes, dtype=torch.float64))
        self.register_buffer("class_R", torch.zeros(trees, dtype=torch.int64))
        for name in ("feature_RM", "left_RM", "right_RM"):
            self.register_buffer(name, torch.zeros(trees, nodes, dtype=torch.int64))
        for name in ("threshold_RM", "value_RM"):
            self.register_buffer(name, torch.zeros(trees, nodes, dtype=torch.float64))

    def forward(self, features_BE: Tensor) -> Tensor:
        """Logits (B, C)."""
        return torch.cat([self._answer(chunk) for chunk in torch.split(features_BE, CHUNK_ROWS)]).float()

    def _answer(self, features_BE: Tensor) -> Tensor:
        component_BP = (features_BE.double() - self.mean_E) @ self.rotation_EP
        tree_R = torch.arange(len(self.class_R), device=features_BE.device)
        node_BR = torch.zeros(len(features_BE), len(tree_R), dtype=torch.int64, device=features_BE.device)
        for _ in range(self.depth):
            left_BR = component_BP.gather(1, self.feature_RM[tree_R, node_BR]) <= self.threshold_RM[tree_R, node_BR]
            node_BR = torch.where(left_BR, self.left_RM[tree_R, node_BR], self.right_RM[tree_R, node_BR])
        told_BR = self.value_RM[tree_R, node_BR]
        return self.baseline_C.repeat(len(features_BE), 1).index_add_(1, self.class_R, told_BR)


class LinearAnswers(nn.Module):
    """A linear layer, for features that are learned with it."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.options = {"width": width, "classes": classes}
        self.output = nn.Linear(width, classes)

    def forward(self, features_BE: Tensor) -> Tensor:
        """Logits (B, C)."""
        return torch.as_tensor(self.output(features_BE))


class Perceptron(nn.Module):
    """One hidden layer with GELU and dropout, on features of mean 0 and spread 1."""

    mean_E: Tensor
    spread: Tensor

    def __init__(self, width: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.options = {"width": width, "hidden": hidden, "classes": classes, "dropout": dropout}
        self.register_buffer("mean_E", torch.zeros(width))
        self.register_buffer("spread", torch.ones(()))
        self.hidden, self.dropout, self.output = nn.Linear(width, hidden), nn.Dropout(dropout), nn.Linear(hidden, classes)

    def scaled_to(self, features_NE: Tensor) -> Perceptron:
        """Itself, with the mean and the spread of these features."""
        self.mean_E, self.spread = features_NE.mean(0), features_NE.std().clamp_min(1e-12)
        return self

    def forward(self, features_BE: Tensor) -> Tensor:
        """Logits (B, C)."""
        scaled_BE = (features_BE.float() - self.mean_E) / self.spread
        return torch.as_tensor(self.output(self.dropout(F.gelu(self.hidden(scaled_BE)))))


class Attentive(nn.Module):
    """Attention pooling: a learned query weighs the tokens, and another head answers from their weighted mean.

    The query begins as zeros: the mean over tokens.
    """

    def __init__(self, width: int, inner: dict[str, Any]) -> None:
        super().__init__()
        self.options = {"width": width, "inner": inner}
        self.query_E = nn.Parameter(torch.zeros(width))
        self.inner = make_head(**inner)

    def forward(self, states_BTE: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Logits (B, C); tokens where the mask is 0 weigh nothing."""
        score_BT = states_BTE @ self.query_E / len(self.query_E) ** 0.5
        if mask_BT is not None:
            score_BT = score_BT.masked_fill(mask_BT == 0, -torch.inf)
        pooled_BE = (score_BT.softmax(-1).unsqueeze(-1) * states_BTE).sum(1)
        return torch.as_tensor(self.inner(pooled_BE))


KINDS: dict[str, Any] = {
    "knn": Neighbours,
    "gradient_boosting": Trees,
    "mlp": Perceptron,
    "linear": LinearAnswers,
    "attention": Attentive,
}


def make_head(kind: str, options: dict[str, Any]) -> nn.Module:
    """A head of a kind in KINDS, without its numbers.

    Raises:
        KeyError: there is no such kind.
    """
    made: nn.Module = KINDS[kind](**options)
    return made


def kind_of(head: nn.Module) -> str:
    """The name in KINDS of a head."""
    return next(name for name, kind in KINDS.items() if type(head) is kind)
