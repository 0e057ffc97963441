"""What is costly to find out is found out once for a model as it is."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from freesteer.host.models.memo import Memo, identity
from freesteer.tests.host import tiny


class Owner:
    pass


def recall(memo: Memo, owners: Sequence[object], key: str, made: list[str]) -> str:
    return memo.recall([*owners], (key,), lambda: made.append(key) or key)


def test_the_oldest_is_forgotten_and_the_latest_asked_for_is_kept() -> None:
    memo, owners, made = Memo(size=2), [Owner()], []
    assert [recall(memo, owners, key, made) for key in "aab"] == ["a", "a", "b"]
    assert made == ["a", "b"]
    recall(memo, owners, "a", made)
    recall(memo, owners, "c", made)  # b was asked for last
    recall(memo, owners, "a", made)
    assert made == ["a", "b", "c"]
    recall(memo, owners, "b", made)
    assert made == ["a", "b", "c", "b"]


def test_four_results_are_kept() -> None:
    memo, owners, made = Memo(), [Owner()], []
    for key in "abcda":
        recall(memo, owners, key, made)
    assert made == list("abcd")
    recall(memo, owners, "e", made)
    recall(memo, owners, "b", made)
    assert made == list("abcdeb")


def test_owners_are_compared_by_identity_and_all_of_them_count() -> None:
    memo, made = Memo(), []
    one, other = Owner(), Owner()
    for owners in ([one, other], [one], [other, one], [one, other]):
        recall(memo, owners, "a", made)
    assert made == ["a", "a", "a"]


def test_nothing_is_kept_of_an_owner_that_is_gone() -> None:
    memo, made = Memo(), []
    kept, gone = Owner(), Owner()
    recall(memo, [kept, gone], "a", made)
    recall(memo, [kept], "b", made)
    del gone
    gc.collect()
    recall(memo, [kept], "b", made)
    assert made == ["a", "b"] and len(memo._entries) == 1


@dataclass
class Patch:
    """Something that another pack leaves on a MODEL."""

    strength: float


def test_a_clone_is_the_same_model() -> None:
    model = tiny.build("FreeSteer playground").model
    model = model.clone()
    model.model_options["transformer_options"] = {
        "patches": {"attn1": [Patch(1.0)]},
        "names": ("a", 1, None),
        "device": torch.device("cpu"),
    }
    owners, key = identity(model)
    cloned, same = identity(model.clone())
    assert key == same and len(owners) == len(cloned)
    assert all(a is b for a, b in zip(owners, cloned, strict=True))


@pytest.mark.parametrize(
    "changes",
    [{"scale": 2.0}, {"other": 1.0}, {"scale": 1.0, "more": None}, {"scale": torch.device("meta")}, {"scale": torch.float16}],
    ids=str,
)
def test_another_option_makes_another_model(changes) -> None:
    plain, changed = (tiny.build("FreeSteer playground").model.clone() for _ in range(2))
    plain.model_options["transformer_options"] = {"scale": 1.0}
    changed.model_options["transformer_options"] = changes
    assert identity(plain)[1] != identity(changed)[1]


def test_a_patch_is_an_owner_and_so_is_the_model() -> None:
    model = tiny.build("FreeSteer playground").model.clone()
    patch, equal = Patch(1.0), Patch(1.0)
    model.add_object_patch("latent_format.patch", patch)
    owners, _ = identity(model)
    assert owners[0] is model.model and any(owner is patch for owner in owners) and not any(owner is equal for owner in owners)


def test_weights_that_are_patched_make_another_model() -> None:
    model = tiny.build("FreeSteer playground").model
    name, weight = next((name, weight) for name, weight in model.model.named_parameters() if name.endswith("to_k.weight"))
    tuned = model.clone()
    tuned.add_patches({name: ("diff", (torch.ones_like(weight),))}, 0.5)
    assert identity(tuned)[1] != identity(model)[1] == identity(model.clone())[1]
