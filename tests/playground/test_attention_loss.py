"""Where attention should look while the playground is trained, against the formula written out place by place."""

import random

import pytest
import torch
from freesteer.playground.attention_loss import HEAD, Looks
from freesteer.playground.text import END, tokens_and_groups
from freesteer.playground.video_words.models import LANGUAGE
from freesteer.playground.world import motion, motion_captions
from freesteer.playground.world.captions import GROUND, MOTION
from torch import Tensor, nn

HEADS, TOKENS, FRAMES, SIDE = 6, 7, 2, 2
DRAW = torch.Generator().manual_seed(0)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Identity(), nn.Identity()


def loss(q: Tensor, k: Tensor, groups: Tensor, masks: Tensor, weight: Tensor) -> float:
    network = Attention()
    looks = Looks(network, [("q", "k")])
    for module, values in ((network.q, q), (network.k, k)):
        module(values)
    return float(looks.loss(groups, masks, weight))


def drawn(clips: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, and masks (clips, frames, 4, 4, 4) of ground and three objects, each of which is somewhere."""
    q = torch.randn(clips, FRAMES * SIDE**2, HEADS * HEAD, generator=DRAW)
    k = torch.randn(clips, TOKENS, HEADS * HEAD, generator=DRAW)
    return q, k, torch.rand(clips, FRAMES, 4, 4, 4, generator=DRAW).softmax(2)


def written_out(q: Tensor, k: Tensor, groups: list[int], masks: Tensor, heads: range, first: int, even: bool) -> float:
    """Of one clip; of groups `first` to `first` + 3."""
    told = [t for t, g in enumerate(groups) if first <= g < first + 4]
    things = sorted({groups[t] - first for t in told})
    total = 0.0
    for head in heads:
        part = slice(head * HEAD, (head + 1) * HEAD)
        for g in things:
            errors, shares = [], []
            for place in range(len(q)):
                frame, y, x = place // SIDE**2, place // SIDE % SIDE, place % SIDE
                share = float(masks[frame, g, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean())
                p = torch.softmax(torch.stack([q[place, part] @ k[t, part] for t in told]) / HEAD**0.5, 0)
                seen = sum(float(p[i]) for i, t in enumerate(told) if groups[t] - first == g)
                errors.append(-share * torch.tensor(seen).log().item())
                shares.append(share)
            total += sum(errors) / sum(shares) / len(things) if even else sum(errors) / len(q)
    return total / len(heads)


def test_names_count_by_the_room_that_things_take_and_motions_count_evenly():
    q, k, masks = drawn(2)
    masks[:, :, 3] = 0
    named, moved = [-1, 1, 1, -1, 0, 2, -1], [MOTION, 1, MOTION + 1, 0, 0, 2, MOTION + 2]
    expected = [
        written_out(q[0], k[0], named, masks[0], range(3), 0, even=False),
        written_out(q[1], k[1], moved, masks[1], range(3), 0, even=False)
        + written_out(q[1], k[1], moved, masks[1], range(4, 6), MOTION, even=True),
    ]
    groups = torch.tensor([named, moved])
    for weight in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0]):
        found = loss(q, k, groups, masks, torch.tensor(weight))
        assert found == pytest.approx(sum(w * e for w, e in zip(weight, expected, strict=True)) / 2, rel=1e-4)


def test_without_words_nothing_is_asked():
    q, k, masks = drawn(1)
    assert loss(q, k, torch.full((1, TOKENS), -1), masks, torch.zeros(1)) == 0


def test_a_motion_is_told_by_its_last_word_and_standing_ground_by_the_start():
    clips, rng = motion.sample_clips(200, torch.Generator().manual_seed(3)), random.Random(0)
    drifts = 0
    for i in range(len(clips)):
        said = motion_captions.caption(clips, i, rng)
        tokens, groups = tokens_and_groups(said, LANGUAGE, rng)
        if tokens[1] == END:
            assert (groups == -1).all()
            continue
        for slot in range(int(clips.count[i])):
            places = (groups == MOTION + slot + 1).nonzero().flatten().tolist()
            verb = [w for w, g in zip(said.words, said.groups, strict=True) if g == MOTION + slot + 1]
            assert len(places) == 1 and said.words[places[0] - 1] == verb[-1]
        drift = (groups == MOTION + GROUND).nonzero().flatten().tolist()
        assert len(drift) == 1
        drifts += drift != [0]
        assert (drift == [0]) == (MOTION + GROUND not in said.groups)
    assert 20 < drifts < 180
