"""`preprocess` and `augment`: transforms of whole batches."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from easyclf import Estimator
from easyclf.data.transforms import Augmentation, Preprocessing

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
LABELS = np.tile([0, 1, 2], 10)
PIXELS = (
    RNG.integers(0, 60, size=(30, 1, 6, 6), dtype=np.uint8)
    + (80 * LABELS).astype(np.uint8)[:, None, None, None]
)
SETTINGS = {"epochs": 3, "lr": 0.05, "batch_size": 10, "random_state": 0}
SCALE = v2.ToDtype(torch.float32, scale=True)


def network(n_outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, n_outputs))


def fit(X=PIXELS, module=None, **parameters):
    return Estimator(module or network(), **{**SETTINGS, **parameters}).fit(X, LABELS)


class Noting:
    """A transform that notes what it is given."""

    def __init__(self):
        self.seen = []

    def __call__(self, x):
        self.seen.append((tuple(x.shape), x.dtype))
        return x

    def __deepcopy__(self, memo):
        return self


def test_preprocess_gets_the_rows_as_they_are_and_its_result_is_trained_on():
    by_us = fit(preprocess=lambda x: x.float() / 255)
    by_hand = fit(PIXELS.astype(np.float32) / 255)

    np.testing.assert_allclose(by_us.history_["loss"], by_hand.history_["loss"], rtol=1e-5)
    np.testing.assert_allclose(
        by_us.predict_proba(PIXELS),
        by_hand.predict_proba(PIXELS.astype(np.float32) / 255),
        rtol=1e-5,
    )
    assert by_us.score(PIXELS, LABELS) == by_us.evaluate(PIXELS, LABELS)["accuracy"]


def test_a_transform_of_torchvision_scales_bytes():
    """It would leave floats as they are: so the bytes have to reach it."""
    scaled = fit(preprocess=SCALE)
    by_hand = fit(PIXELS.astype(np.float32) / 255)

    np.testing.assert_allclose(scaled.history_["loss"], by_hand.history_["loss"], rtol=1e-5)


def test_preprocess_decides_the_sizes_of_a_module():
    class Sized(nn.Module):
        def __init__(self, n_features, n_classes):
            super().__init__()
            self.layer = nn.Linear(n_features, n_classes)

        def forward(self, x):
            return self.layer(x.flatten(1))

    clf = fit(module=Sized, preprocess=v2.Compose([SCALE, v2.Resize(3)]))

    assert clf.module_.layer.in_features == 9
    assert clf.predict(PIXELS).shape == (30,)


def test_augment_is_for_the_training_alone():
    augment, preprocess = Noting(), Noting()

    clf = fit(augment=augment, preprocess=preprocess)
    n_training = len(augment.seen)
    clf.predict(PIXELS), clf.evaluate(PIXELS, LABELS)

    # Nine batches, and one that was tried before.
    assert n_training == len(augment.seen) == 10
    assert set(augment.seen[1:]) == {((10, 1, 6, 6), torch.uint8)}
    assert len(preprocess.seen) > 10


def test_validation_is_not_augmented():
    def spoil(x):
        return torch.zeros_like(x)

    clf = Estimator(network(), augment=spoil, preprocess=SCALE, validation_split=0.3, **SETTINGS)
    clf.fit(PIXELS, LABELS)

    losses = clf.history_["loss"]
    assert losses[0] == pytest.approx(np.log(3), abs=0.2)  # nothing can be learned from zeros
    assert clf.history_["val_loss"][0] != pytest.approx(losses[0])


def test_random_transforms_draw_for_each_image():
    flip = v2.RandomHorizontalFlip(0.5)
    images = torch.arange(4.0).repeat(200, 1, 4, 1)

    flipped = Augmentation(flip, CPU).inputs(images)

    n_flipped = int((flipped[:, 0, 0, 0] == 3).sum())
    assert 60 < n_flipped < 140


def test_stages_of_a_compose_keep_their_order():
    stages = v2.Compose([v2.RandomHorizontalFlip(1.0), v2.Normalize([1.0], [2.0])])
    images = torch.arange(4.0).repeat(2, 1, 4, 1)

    found = Augmentation(stages, CPU).inputs(images)

    torch.testing.assert_close(found, (images.flip(-1) - 1) / 2)


def test_augmentation_follows_the_seed_and_leaves_other_seeds_alone(random_states):
    augment = v2.RandomCrop(6, padding=2)
    module, before = network(), random_states()

    first, second = (fit(module=module, augment=augment, preprocess=SCALE) for _ in range(2))
    other = fit(module=module, augment=augment, preprocess=SCALE, random_state=1)

    assert first.history_["loss"].tolist() == second.history_["loss"].tolist()
    assert first.history_["loss"].tolist() != other.history_["loss"].tolist()
    assert random_states() == before


MIXERS = {
    "mixup": v2.MixUp(num_classes=3),
    "cutmix": v2.CutMix(num_classes=3),
    "either": v2.RandomChoice([v2.MixUp(num_classes=3), v2.CutMix(num_classes=3)]),
    "after others": v2.Compose([v2.RandomHorizontalFlip(), v2.MixUp(num_classes=3)]),
}


@pytest.mark.parametrize("name", MIXERS)
def test_images_and_labels_are_mixed(name):
    clf = fit(augment=MIXERS[name], preprocess=SCALE, epochs=20)

    assert clf.score(PIXELS, LABELS) > 0.9
    assert 0 <= clf.history_[-1]["accuracy"] <= 1


def test_the_loss_of_mixed_labels_is_cross_entropy_with_their_shares():
    mixer = v2.MixUp(num_classes=3)
    seen = []

    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = network()

        def forward(self, x):
            outputs = self.layers(x)
            if self.training:
                seen.append((x.detach().clone(), outputs.detach()))
            return outputs

    y = torch.from_numpy(LABELS)
    clf = fit(
        module=Keeping(), augment=mixer, preprocess=SCALE, epochs=1, batch_size=-1, shuffle=False
    )

    mixed, outputs = seen[-1]
    # The share of the image itself, read from the pixels.
    images = torch.from_numpy(PIXELS).float() / 255
    rolled = images.roll(1, 0)
    share = ((mixed - rolled) * (images - rolled)).sum() / (images - rolled).square().sum()
    one_hot = nn.functional.one_hot(y, 3).float()
    targets = share * one_hot + (1 - share) * one_hot.roll(1, 0)
    expected = nn.functional.cross_entropy(outputs, targets)
    assert clf.history_[0]["loss"] == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_class_weights_weigh_mixed_rows(precision):
    clf = fit(
        precision=precision,
        augment=v2.MixUp(num_classes=3), preprocess=SCALE, class_weight={0: 0.0, 1: 1.0, 2: 1.0},
        epochs=10,
    )  # fmt: skip

    assert np.isfinite(clf.history_["loss"]).all()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"augment": v2.MixUp(num_classes=4)}, "labels of 4 classes.*num_classes=3"),
        ({"augment": MIXERS["mixup"], "loss": "bce_with_logits"}, "cross-entropy"),
        ({"augment": v2.Resize(3)}, r"\(4, 1, 3, 3\).*\(4, 1, 6, 6\)"),
        ({"augment": lambda x: x[:1]}, "`augment` made shape"),
        ({"preprocess": lambda x: x.float().sum()}, "`preprocess` made shape"),
    ],
)
def test_transforms_that_cannot_be_right_are_refused_before_training(parameters, words):
    with pytest.raises(ValueError, match=words):
        fit(**{"preprocess": SCALE, **parameters})


@pytest.mark.parametrize("name", ["preprocess", "augment"])
def test_something_else_than_a_tensor_is_refused(name):
    with pytest.raises(TypeError, match=f"`{name}`.*expected a tensor"):
        fit(**{name: lambda x: x.numpy()})


@pytest.mark.parametrize("name", ["preprocess", "augment"])
def test_an_error_in_a_transform_says_where_it_comes_from(name):
    def broken(x):
        raise KeyError("no such thing")

    with pytest.raises(KeyError) as caught:
        fit(**{name: broken})

    assert any(f"`{name}`" in note and "uint8" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("name", ["preprocess", "augment"])
def test_what_cannot_be_called_is_refused(name):
    with pytest.raises(ValueError, match=f"The '{name}' parameter of Estimator"):
        fit(**{name: 3})


def test_a_module_as_preprocess_is_copied_and_learns_nothing():
    layer = nn.BatchNorm2d(1)
    preprocess = nn.Sequential(SCALE, layer)

    clf = fit(preprocess=preprocess)

    assert layer.num_batches_tracked == 0
    assert clf._fitted.input_format.preprocess.transform[1] is not layer
    assert not clf._fitted.input_format.preprocess.transform[1].training


def test_images_of_torchvision_become_plain_tensors():
    found = Preprocessing(v2.ToImage(), CPU)(torch.zeros(2, 1, 3, 3))

    assert type(found) is torch.Tensor


def test_the_users_array_is_never_changed_by_a_transform_in_place():
    X = PIXELS.astype(np.float32)
    before = X.copy()

    def halve(x):
        return x.mul_(0.5)

    fit(X, preprocess=halve, shuffle=False, batch_size=-1)

    np.testing.assert_array_equal(X, before)


def test_random_layers_draw_in_augment():
    seen = []

    class Recording(nn.Module):
        def forward(self, x):
            seen.append(self.training)
            return x

    fit(augment=Recording(), preprocess=SCALE)

    assert set(seen) == {True}


def test_a_preprocess_that_makes_nan_is_no_answer():
    clf = fit(np.abs(PIXELS.astype(np.float32)) + 1, preprocess=torch.log)

    rows = np.ones((5, 1, 6, 6), np.float32)
    rows[2] = -1

    with pytest.raises(ValueError, match=r"answered NaN, first in row 2.*`preprocess`"):
        clf.predict(rows)


def test_a_class_of_weight_zero_is_not_learned_from_mixtures_either():
    clf = fit(
        augment=v2.MixUp(num_classes=3, alpha=0.2),
        preprocess=SCALE,
        class_weight={0: 0.0, 1: 1.0, 2: 1.0},
        epochs=60,
    )

    assert clf.predict_proba(PIXELS)[:, 0].mean() < 0.1


def test_mixing_may_be_left_to_chance():
    for seed in range(4):
        augment = v2.RandomApply([v2.MixUp(num_classes=3)], p=0.5)
        fit(augment=augment, preprocess=SCALE, random_state=seed)


def test_weights_of_rows_do_not_mix():
    clf = Estimator(network(), augment=MIXERS["mixup"], preprocess=SCALE, **SETTINGS)

    with pytest.raises(ValueError, match=r"mixes rows.*leave `sample_weight` out"):
        clf.fit(PIXELS, LABELS, np.ones(30))


def test_a_function_gets_the_rows_as_they_are_where_nothing_convolves():
    last = PIXELS.transpose(0, 2, 3, 1).repeat(3, axis=3)
    seen = set()

    def first_channel(x):
        seen.add(tuple(x.shape[1:]))
        return x[..., 0].float()

    fit(last, preprocess=first_channel)

    assert seen == {(6, 6, 3)}
