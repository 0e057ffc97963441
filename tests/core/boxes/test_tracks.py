import pytest
import torch
from freesteer.core.boxes import tracks
from freesteer.core.boxes.tracks import Track

BOX = torch.tensor([[0.25, 0.5, 0.75, 1.0]])


def test_edges_go_evenly_between_keyframes_and_rest_outside():
    track = Track(torch.tensor([0.2, 0.6]), torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.4, 0.8, 0.6, 1.0]]))
    found = track.at(torch.tensor([0.0, 0.2, 0.4, 0.6, 1.0]))
    torch.testing.assert_close(found[:, 0], torch.tensor([0.0, 0.0, 0.2, 0.4, 0.4]))
    torch.testing.assert_close(found[2], torch.tensor([0.2, 0.4, 0.4, 0.6]))
    assert Track(torch.tensor([0.5]), BOX).at(tracks.frame_times(3)).tolist() == BOX.tolist() * 3


def test_coverage_is_the_area_of_a_cell_inside():
    found = tracks.coverage(BOX, (4, 4))[0]
    assert found.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]]
    g = torch.Generator().manual_seed(0)
    corner = torch.rand(20, 2, generator=g) * 0.6
    boxes = torch.cat([corner, corner + torch.rand(20, 2, generator=g) * 0.4], 1)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    torch.testing.assert_close(tracks.coverage(boxes, (7, 5)).mean((1, 2)), area)


@pytest.mark.parametrize("grid", [(1, 1), (3, 2), (4, 4), (16, 16), (9, 5)])
def test_an_object_never_vanishes(grid):
    boxes = torch.tensor([[0.1, 0.1, 0.9, 0.9], [0.51, 0.52, 0.53, 0.54]])
    covered = torch.stack([tracks.coverage(box[None], grid) for box in boxes])
    found = tracks.labels(covered)
    assert (found == 2).any() and (found[0].numel() == 1 or (found == 1).any())


def test_two_small_objects_in_one_cell_have_one_each():
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.51, 0.52, 0.53, 0.54], [0.55, 0.56, 0.57, 0.58]])
    covered = torch.stack([tracks.coverage(box[None], (3, 3)) for box in boxes])
    found = tracks.labels(covered)
    assert [int((found == number).sum()) for number in (1, 2, 3)] == [7, 1, 1]


def test_a_frame_without_the_object_has_no_label():
    covered = torch.zeros(1, 2, 4, 4)
    covered[0, 1, 2, 3] = 0.2
    found = tracks.labels(covered)
    assert not found[0].any() and found[1].nonzero().tolist() == [[2, 3]]


def test_latent_frames_stand_for_one_picture_and_then_for_four():
    values = torch.arange(9.0)[:, None, None].expand(9, 2, 2)
    assert tracks.per_latent_frame(values, 3)[:, 0, 0].tolist() == [0, 2.5, 6.5]
    assert tracks.per_latent_frame(values, 9) is values
    assert tracks.per_latent_frame(values, 1).shape[0] == 1
    assert tracks.per_latent_frame(values, 4).shape[0] == 4  # no such model: the nearest
