"""The losses as pure functions of features, and their weighted sum for a stage.

Shapes: B samples of the global batch, N candidates (samples and hard negatives), D dimensions,
C classes. All features are unit vectors.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from stbir.config import MODALITIES, Input, LossConstants, Pair, Stage
from stbir.data.photo_index import UNKNOWN
from stbir.model.fusion import mean_anchor
from stbir.training.negatives import SampleKeys, negative_masks

Features = Mapping[Input, Tensor]


def info_nce(
    anchor_BD: Tensor,
    positive_BD: Tensor,
    candidates_ND: Tensor,
    negative_BN: Tensor,
    temperature: float | Tensor,
) -> Tensor:
    """Mean of -log(e^{a·p/τ} / (e^{a·p/τ} + Σ_j e^{a·n_j/τ})), over j with `negative_BN`.

    Source: arXiv 2604.15735 module 1, after van den Oord et al. 2018. A row without negatives gives 0.
    """
    positive_B = (anchor_BD * positive_BD).sum(-1) / temperature
    scores_BN = (anchor_BD @ candidates_ND.T / temperature).masked_fill(~negative_BN, -torch.inf)
    all_B1N = torch.cat([positive_B[:, None], scores_BN], dim=1)
    return (torch.logsumexp(all_B1N, dim=1) - positive_B).mean()


def triplet(
    anchor_BD: Tensor, positive_BD: Tensor, candidates_ND: Tensor, negative_BN: Tensor, margin: float
) -> Tensor:
    """Mean over samples of mean_j max(0, m + a·n_j - a·p). A row without negatives gives 0.

    Source: arXiv 2604.15735 module 1, after Schroff et al. 2015 (cosine form).
    """
    positive_B1 = (anchor_BD * positive_BD).sum(-1, keepdim=True)
    hinge_BN = F.relu(margin + anchor_BD @ candidates_ND.T - positive_B1) * negative_BN
    return (hinge_BN.sum(1) / negative_BN.sum(1).clamp(min=1)).mean()


def arcface(features_BD: Tensor, weight_CD: Tensor, label_B: Tensor, margin: float, scale: float) -> Tensor:
    """Cross entropy of s·cos(θ_y + m) against s·cos θ_j, over the rows with a label (>= 0).

    Source: Deng et al., ArcFace, CVPR 2019 (arXiv 1801.07698), eq. 3; module 2 of arXiv 2604.15735.
    """
    cosine_BC = F.linear(features_BD, F.normalize(weight_CD, dim=-1))
    # Clamped, because the derivative of arccos is infinite at ±1.
    angle_BC = torch.acos(cosine_BC.clamp(-1 + 1e-6, 1 - 1e-6))
    target_BC = label_B[:, None] == torch.arange(len(weight_CD), device=label_B.device)
    logits_BC = scale * torch.cos(torch.where(target_BC, angle_BC + margin, angle_BC))
    # Selecting rows would wait for the device. Without a label the sum is 0 with a gradient, as DDP requires.
    total = F.cross_entropy(logits_BC, label_B, ignore_index=UNKNOWN, reduction="sum")
    return total / (label_B >= 0).sum().clamp(min=1)


def stage_loss(
    stage: Stage,
    constants: LossConstants,
    features: Features,
    keys: SampleKeys,
    class_weight_CD: Tensor | None,
    anchor_fn: Callable[[Features], Tensor] = lambda features: mean_anchor(list(features.values())),
    temperature_P: Tensor | None = None,
) -> dict[str, Tensor]:
    """The weighted terms of a stage, named `nce`, `triplet`, `category`; their sum is the loss.

    `nce` and `triplet` are sums over the pairs, `category` over the trainable encoders.

    `features` hold N = B·(1 + K) rows a modality, each sample followed by its K hard negatives; B rows if the
    modality is not among `Stage.candidate_modalities`.
    `anchor_fn` computes the anchors from the features of the anchor modalities. `temperature_P` has
    the learnt temperatures, one a pair; the entries of pairs with a fixed one are not used.
    """
    objective = stage.objective
    terms: dict[str, Tensor] = {}
    for number, pair in enumerate(objective.pairs):
        anchor = anchor_fn(
            {m: features[m] if pair.symmetric else _samples(features[m], keys) for m in pair.anchor}
        )
        is_fixed = temperature_P is None or not pair.learn_temperature
        temperature = pair.temperature if is_fixed else temperature_P[number]  # type: ignore[index]
        values = pair_terms(
            pair, anchor, features[pair.positive], keys, temperature, constants.triplet_margin
        )
        for name, value in values.items():
            terms[name] = terms.get(name, 0) + value
    if objective.category and class_weight_CD is not None:
        label_B, margin = keys.label[:: keys.rows_per_sample], constants.arcface_margin
        for modality in (m for m in MODALITIES if m in stage.trainable.encoders):
            rows_BD = _samples(features[modality], keys)
            category = arcface(rows_BD, class_weight_CD, label_B, margin, constants.arcface_scale)
            terms["category"] = terms.get("category", 0) + objective.category * category
    return terms


def pair_terms(
    pair: Pair,
    anchor: Tensor,
    positive_ND: Tensor,
    keys: SampleKeys,
    temperature: float | Tensor,
    margin: float,
) -> dict[str, Tensor]:
    """The weighted terms of one pair, `nce` and `triplet`.

    `anchor`: of the samples (B, D); of a symmetric pair of all candidates (N, D), as the positives.
    """
    nce_BN, triplet_BN = negative_masks(pair.candidates, keys)
    anchor_BD, positive_BD = _samples(anchor, keys), _samples(positive_ND, keys)
    terms: dict[str, Tensor] = {}
    if pair.nce:
        nce = info_nce(anchor_BD, positive_BD, positive_ND, nce_BN, temperature)
        if pair.symmetric:  # as in CLIP, arXiv 2103.00020, figure 3
            nce = (nce + info_nce(positive_BD, anchor_BD, anchor, nce_BN, temperature)) / 2
        terms["nce"] = pair.nce * nce
    if pair.triplet:
        terms["triplet"] = pair.triplet * triplet(anchor_BD, positive_BD, positive_ND, triplet_BN, margin)
    return terms


def _samples(features: Tensor, keys: SampleKeys) -> Tensor:
    """The features (B, D) of the samples, from those with (N) or without (B) their hard negatives."""
    return features[:: len(features) * keys.rows_per_sample // len(keys.photo)]
