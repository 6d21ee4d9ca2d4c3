"""The geometries of the studies match independent computations."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.geometries import (
    GEOMETRIES,
    SERVABLE,
    all_but_the_top,
    denoised,
    fit_servable,
    leading,
    raw,
    standardized,
    whitened,
)
from catalog.geometry.transforms import DEFAULT_KINDS, Geometry, fit_default, principal_axes
from tests.support.points import uneven_vectors, unit

KINDS = [name for name in GEOMETRIES if name != "raw"]


@pytest.fixture
def vectors() -> np.ndarray:
    return uneven_vectors()


def cosines(vectors: np.ndarray) -> np.ndarray:
    return unit(vectors) @ unit(vectors).T


def test_raw_leaves_vectors_unchanged(vectors: np.ndarray):
    np.testing.assert_array_equal(raw(vectors).apply(vectors), vectors)


@pytest.mark.parametrize("name", KINDS)
def test_norm_of_a_model_does_not_change_the_fit(vectors: np.ndarray, name: str):
    louder = vectors.copy()
    louder[3] *= 1000
    fit = GEOMETRIES[name]
    np.testing.assert_allclose(
        fit(louder, norm_power=1.0).apply(vectors), fit(vectors, norm_power=1.0).apply(vectors), atol=1e-3
    )


@pytest.mark.parametrize("name", KINDS)
def test_length_of_a_vector_does_not_change_its_direction_after_transform(vectors: np.ndarray, name: str):
    geometry = GEOMETRIES[name](vectors, norm_power=1.0)
    np.testing.assert_allclose(geometry.apply(vectors * 7), geometry.apply(vectors), rtol=1e-3, atol=1e-4)


def test_power_of_one_half_divides_by_the_root_of_the_deviation(vectors: np.ndarray):
    image = standardized(vectors, norm_power=0.0, power=0.5).apply(vectors)
    np.testing.assert_allclose(image.std(axis=0), np.sqrt(vectors.std(axis=0)), rtol=1e-3)


def test_all_but_the_top_has_nothing_along_the_first_axis(vectors: np.ndarray):
    rows = vectors - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(rows)
    image = all_but_the_top(vectors, norm_power=0.0, top=1).apply(vectors)
    np.testing.assert_allclose(image @ axes[0], 0, atol=1e-3)
    np.testing.assert_allclose(image @ axes[1:].T, rows @ axes[1:].T, atol=1e-3)


def test_whitening_without_shrinkage_makes_the_covariance_the_identity(vectors: np.ndarray):
    image = whitened(vectors, norm_power=0.0, shrinkage=1e-6).apply(vectors)
    np.testing.assert_allclose(np.cov(image.T, bias=True), np.eye(8), atol=1e-2)


def test_whitening_with_full_shrinkage_is_centering(vectors: np.ndarray):
    image = whitened(vectors, norm_power=0.0, shrinkage=1.0).apply(vectors)
    np.testing.assert_allclose(cosines(image), cosines(vectors - vectors.mean(axis=0)), atol=1e-4)


def test_whitening_of_few_vectors_keeps_directions_that_they_do_not_span(vectors: np.ndarray):
    outside = np.array([[1, -1, 1, -1, 1, -1, 1, -1]], np.float32)
    assert np.linalg.norm(whitened(vectors[:3], norm_power=0.0, shrinkage=0.5).apply(outside)) > 1


def test_all_leading_axes_keep_the_cosines_of_centering(vectors: np.ndarray):
    image = leading(vectors, norm_power=0.0, share=1.0).apply(vectors)
    np.testing.assert_allclose(cosines(image), cosines(vectors - vectors.mean(axis=0)), atol=1e-4)


def test_leading_keeps_the_fewest_axes_with_the_share(vectors: np.ndarray):
    variances = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False) ** 2
    held = np.cumsum(variances) / variances.sum()
    for share in (0.3, 0.6, 0.9):
        width = leading(vectors, norm_power=0.0, share=share).apply(vectors).shape[1]
        assert held[width - 1] >= share
        assert width == 1 or held[width - 2] < share


def test_gains_amplify_strong_axes(vectors: np.ndarray):
    flat, steep = (leading(vectors, 0.0, 1.0, power).apply(vectors).var(axis=0) for power in (0.0, 0.5))
    np.testing.assert_allclose(steep / steep[0], (flat / flat[0]) ** 2, rtol=1e-3, atol=1e-5)


def test_each_block_is_scaled_by_its_own_norm(vectors: np.ndarray):
    louder = vectors * np.repeat(np.array([1.0, 100.0]), 4)
    one, other = (leading(rows, blocks=2).apply(rows) for rows in (vectors, louder))
    np.testing.assert_allclose(np.abs(one), np.abs(other), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_single_vector_is_transformed_as_in_a_batch(vectors: np.ndarray, name: str):
    geometry = GEOMETRIES[name](vectors)
    np.testing.assert_allclose(geometry.apply(vectors[5:6]), geometry.apply(vectors)[5:6], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_zero_vector_stays_finite(vectors: np.ndarray, name: str):
    assert np.isfinite(GEOMETRIES[name](vectors).apply(np.zeros((1, 8), np.float32))).all()


@pytest.mark.parametrize("name", GEOMETRIES)
def test_stored_bytes_restore_the_geometry(vectors: np.ndarray, name: str):
    geometry = GEOMETRIES[name](unit(vectors))
    stored = Geometry.from_bytes(geometry.to_bytes())
    np.testing.assert_array_equal(stored.apply(unit(vectors)), geometry.apply(unit(vectors)))


def test_gain_of_an_axis_is_its_share_above_the_noise(vectors: np.ndarray):
    rows = vectors - vectors.mean(axis=0)
    axes, variances = principal_axes(rows)
    noise = 0.5 * variances.mean()
    assert (variances < noise).any()
    image = denoised(vectors, norm_power=0.0, level=0.5).apply(vectors)
    kept = variances > noise
    expected = (rows @ axes[kept].T) * (variances[kept] - noise) / variances[kept]
    np.testing.assert_allclose(image, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("feature", "kind"), DEFAULT_KINDS.items())
def test_studies_fit_the_defaults_as_searches_do(vectors: np.ndarray, feature: str, kind: str):
    assert kind in SERVABLE
    expected = fit_default(unit(vectors), feature).apply(vectors)
    np.testing.assert_array_equal(fit_servable(unit(vectors), feature)[kind].apply(vectors), expected)
