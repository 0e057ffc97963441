import torch


def test_steering_changes_the_picture_and_leaves_the_model(world, steer):
    steered = world.sample(steer())
    assert torch.isfinite(steered).all()
    assert not torch.equal(steered, world.before)
    assert torch.equal(world.sample(), world.before)
