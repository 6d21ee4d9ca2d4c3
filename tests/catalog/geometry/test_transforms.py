"""Geometries against the same maths done in other ways."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from catalog.geometry.transforms import (
    MAX_SAMPLE,
    MIN_MODELS_PER_BASE,
    Geometry,
    centered,
    default_kind,
    fit_default,
    fit_to_base,
    principal_axes,
    softened,
    standardized,
)
from tests.support.points import uneven_vectors, unit

FITS = (centered, standardized, softened)


@pytest.fixture
def vectors() -> np.ndarray:
    return uneven_vectors()


def test_no_geometry_at_all_changes_nothing(vectors: np.ndarray):
    np.testing.assert_array_equal(Geometry().apply(vectors), vectors)


def test_centered_vectors_have_mean_zero(vectors: np.ndarray):
    np.testing.assert_allclose(centered(vectors, norm_power=0.0).apply(vectors).mean(axis=0), 0, atol=1e-5)


@pytest.mark.parametrize("fit", FITS)
def test_the_norm_of_a_model_does_not_change_the_fit(vectors: np.ndarray, fit):
    louder = vectors.copy()
    louder[3] *= 1000
    np.testing.assert_allclose(fit(louder).apply(vectors), fit(vectors).apply(vectors), atol=1e-3)


@pytest.mark.parametrize("fit", FITS)
def test_the_length_of_a_vector_does_not_change_its_image(vectors: np.ndarray, fit):
    geometry = fit(vectors)
    np.testing.assert_allclose(geometry.apply(vectors * 7), geometry.apply(vectors), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("deviation", [0.0, 1e-9])
def test_coordinate_in_which_the_models_agree_is_scaled_at_most_ten_times_as_much_as_the_median(deviation: float):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(MIN_MODELS_PER_BASE, 63)).astype(np.float32)
    agreed = 0.3 + deviation * rng.normal(size=(MIN_MODELS_PER_BASE, 1))
    geometry = standardized(np.hstack([vectors, agreed]), norm_power=0.0)
    assert geometry.scale[:63] == pytest.approx(1 / vectors.std(axis=0), rel=1e-3)
    assert geometry.scale[63] == pytest.approx(10 / np.median(vectors.std(axis=0)), rel=0.05)


def test_standardized_coordinates_have_deviation_one(vectors: np.ndarray):
    np.testing.assert_allclose(standardized(vectors, norm_power=0.0).apply(vectors).std(axis=0), 1, rtol=1e-4)


@pytest.mark.parametrize("fit", FITS)
def test_a_new_vector_is_mapped_as_it_would_be_among_many(vectors: np.ndarray, fit):
    geometry = fit(vectors)
    np.testing.assert_allclose(geometry.apply(vectors[5:6]), geometry.apply(vectors)[5:6], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("fit", FITS)
def test_a_vector_of_zeros_stays_finite(vectors: np.ndarray, fit):
    assert np.isfinite(fit(vectors).apply(np.zeros((1, 8), np.float32))).all()


def test_a_gain_acts_along_its_axis_alone():
    axes = np.eye(3, dtype=np.float32)[:1]
    image = Geometry(axes=axes, gains=np.array([5], np.float32), rest=2.0).apply(np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(image, [[5, 2, 2]])


@pytest.mark.parametrize("fit", [*FITS, partial(softened, blocks=2)])
def test_stored_bytes_give_the_same_geometry(vectors: np.ndarray, fit):
    geometry = fit(unit(vectors))
    stored = Geometry.from_bytes(geometry.to_bytes())
    np.testing.assert_array_equal(stored.apply(unit(vectors)), geometry.apply(unit(vectors)))


def test_each_block_is_scaled_by_its_own_norm(vectors: np.ndarray):
    image = centered(vectors, blocks=2).apply(vectors)
    halves = np.concatenate([unit(vectors[:, :4]), unit(vectors[:, 4:])], axis=1)
    np.testing.assert_allclose(image, halves - halves.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("shape", [(12, 8), (6, 8)])
def test_principal_axes_are_those_of_the_singular_value_decomposition(shape: tuple[int, int]):
    rows = np.random.default_rng(1).normal(size=shape) * np.linspace(3, 1, shape[1])
    rows -= rows.mean(axis=0)
    _, lengths, expected = np.linalg.svd(rows, full_matrices=False)
    axes, variances = principal_axes(rows)
    count = np.linalg.matrix_rank(rows)
    assert len(axes) == count
    np.testing.assert_allclose(variances, lengths[:count] ** 2 / len(rows), rtol=1e-4)
    np.testing.assert_allclose(np.abs(np.einsum("kd,kd->k", axes, expected[:count])), 1, atol=1e-4)


def test_softening_damps_each_axis_by_its_noise_but_not_below_the_floor(vectors: np.ndarray):
    rows = vectors - vectors.mean(axis=0)
    axes, variances = principal_axes(rows)
    gains = np.maximum(1 - 0.25 * variances.mean() / variances, 0.5)
    assert (gains == 0.5).any()
    image = softened(vectors, norm_power=0.0).apply(vectors)
    np.testing.assert_allclose(image, ((rows @ axes.T) * gains) @ axes, rtol=1e-3, atol=1e-3)


def test_the_preimage_direction_ranks_vectors_as_their_images(vectors: np.ndarray):
    geometry, query = standardized(unit(vectors)), np.arange(1.0, 9.0)
    before = unit(vectors) @ geometry.preimage_direction(query)
    after = geometry.apply(unit(vectors)) @ query
    np.testing.assert_allclose(after - after.mean(), before - before.mean(), rtol=1e-3, atol=1e-3)


def test_the_default_of_a_feature_is_fitted_by_blocks(vectors: np.ndarray):
    found = fit_default(unit(vectors), "delta_layers")
    np.testing.assert_array_equal(found.apply(vectors), softened(unit(vectors), blocks=2).apply(vectors))


def test_a_feature_without_a_default_and_a_single_vector_are_compared_raw(vectors: np.ndarray):
    assert default_kind("delta_weighted_activations") == "raw"
    assert fit_default(unit(vectors), "delta_weighted_activations") is None
    assert fit_default(unit(vectors)[:1], "delta_activations") is None


def test_a_large_space_is_fitted_to_a_seeded_sample(vectors: np.ndarray):
    many = np.random.default_rng(2).normal(size=(MAX_SAMPLE + 10, 8))
    one, same, other = (fit_default(unit(many), "delta_activations", seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.center, same.center)
    assert (one.center != other.center).any()


def test_a_base_with_few_models_or_with_identical_models_has_no_geometry(vectors: np.ndarray):
    assert fit_to_base(unit(vectors)[: MIN_MODELS_PER_BASE - 1]) is None
    assert fit_to_base(unit(vectors)[:MIN_MODELS_PER_BASE]) is not None
    assert fit_to_base(np.repeat(unit(vectors)[:1], MIN_MODELS_PER_BASE, axis=0)) is None
