"""Geometries against the same maths done in other ways."""

from __future__ import annotations

import numpy as np
import pytest

from catalog.geometry.transforms import (
    GEOMETRIES,
    LEAST_OF_A_BASE,
    Geometry,
    all_but_the_top,
    centred,
    denoised,
    fitted_to_base,
    leading,
    principal,
    raw,
    standardised,
    whitened,
)


@pytest.fixture
def vectors() -> np.ndarray:
    """Twelve vectors of uneven length around a common direction."""
    generator = np.random.default_rng(0)
    spread = generator.normal(size=(12, 8)) * np.linspace(3, 0.5, 8)
    return ((spread + 2) * generator.uniform(0.1, 10, (12, 1))).astype(np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def cosines(vectors: np.ndarray) -> np.ndarray:
    return unit(vectors) @ unit(vectors).T


def test_raw_changes_nothing(vectors: np.ndarray):
    np.testing.assert_array_equal(raw(vectors).apply(vectors), vectors)


def test_centred_vectors_have_mean_zero(vectors: np.ndarray):
    np.testing.assert_allclose(centred(vectors).apply(vectors).mean(axis=0), 0, atol=1e-5)


def test_with_norms_taken_out_a_loud_model_weighs_like_any_other(vectors: np.ndarray):
    louder = vectors.copy()
    louder[3] *= 1000
    for fit in (centred, standardised, all_but_the_top, whitened, leading, denoised):
        np.testing.assert_allclose(
            fit(louder, norm_power=1.0).apply(vectors), fit(vectors, norm_power=1.0).apply(vectors), atol=1e-3
        )


@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name != "raw"])
def test_the_length_of_a_vector_does_not_matter_with_norms_taken_out(vectors: np.ndarray, name: str):
    geometry = GEOMETRIES[name](vectors, norm_power=1.0)
    np.testing.assert_allclose(geometry.apply(vectors * 7), geometry.apply(vectors), rtol=1e-3, atol=1e-4)


def test_standardised_coordinates_have_one_deviation(vectors: np.ndarray):
    np.testing.assert_allclose(standardised(vectors, norm_power=0.0).apply(vectors).std(axis=0), 1, rtol=1e-4)


def test_all_but_the_top_has_nothing_along_the_first_axis(vectors: np.ndarray):
    plain = vectors - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(plain)
    found = all_but_the_top(vectors, norm_power=0.0, top=1).apply(vectors)
    np.testing.assert_allclose(found @ axes[0], 0, atol=1e-3)
    np.testing.assert_allclose(found @ axes[1:].T, plain @ axes[1:].T, atol=1e-3)


def test_whitening_without_shrinkage_makes_the_covariance_the_identity(vectors: np.ndarray):
    found = whitened(vectors, norm_power=0.0, shrinkage=1e-6).apply(vectors)
    np.testing.assert_allclose(np.cov(found.T, bias=True), np.eye(8), atol=1e-2)


def test_whitening_shrunk_to_the_end_is_centring(vectors: np.ndarray):
    found = whitened(vectors, norm_power=0.0, shrinkage=1.0).apply(vectors)
    np.testing.assert_allclose(cosines(found), cosines(vectors - vectors.mean(axis=0)), atol=1e-4)


def test_whitening_of_few_vectors_keeps_what_they_do_not_span(vectors: np.ndarray):
    stranger = np.ones((1, 8), np.float32) * [1, -1, 1, -1, 1, -1, 1, -1]
    found = whitened(vectors[:3], norm_power=0.0, shrinkage=0.5).apply(stranger.astype(np.float32))
    assert np.linalg.norm(found) > 1


def test_all_leading_axes_keep_the_cosines_of_centring(vectors: np.ndarray):
    found = leading(vectors, norm_power=0.0, share=1.0).apply(vectors)
    np.testing.assert_allclose(cosines(found), cosines(vectors - vectors.mean(axis=0)), atol=1e-4)


def test_leading_axes_are_as_few_as_hold_the_share(vectors: np.ndarray):
    variances = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False) ** 2
    held = np.cumsum(variances) / variances.sum()
    for share in (0.3, 0.6, 0.9):
        width = leading(vectors, norm_power=0.0, share=share).apply(vectors).shape[1]
        assert held[width - 1] >= share
        assert width == 1 or held[width - 2] < share


def test_gains_bring_out_strong_axes(vectors: np.ndarray):
    flat, steep = (leading(vectors, 0.0, 1.0, power).apply(vectors).var(axis=0) for power in (0.0, 0.5))
    np.testing.assert_allclose(steep / steep[0], (flat / flat[0]) ** 2, rtol=1e-3, atol=1e-5)


def test_a_new_vector_is_mapped_as_it_would_be_among_many(vectors: np.ndarray):
    for fit in GEOMETRIES.values():
        geometry = fit(vectors)
        np.testing.assert_allclose(geometry.apply(vectors[5:6]), geometry.apply(vectors)[5:6], rtol=1e-3, atol=1e-4)


def test_a_vector_of_zeros_stays_finite(vectors: np.ndarray):
    for fit in GEOMETRIES.values():
        assert np.isfinite(fit(vectors).apply(np.zeros((1, 8), np.float32))).all()


def test_a_gain_acts_along_its_axis_alone():
    axes = np.eye(3, dtype=np.float32)[:1]
    found = Geometry(axes=axes, gains=np.array([5], np.float32), rest=2.0).apply(np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(found, [[5, 2, 2]])


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_geometry_comes_back_as_it_was_stored(vectors: np.ndarray, name: str):
    geometry = GEOMETRIES[name](unit(vectors))
    again = Geometry.from_bytes(geometry.to_bytes())
    np.testing.assert_array_equal(again.apply(unit(vectors)), geometry.apply(unit(vectors)))


def test_each_block_is_scaled_by_its_own_norm(vectors: np.ndarray):
    louder = vectors * np.repeat(np.array([1.0, 100.0]), 4)
    one, other = (leading(each, blocks=2).apply(each) for each in (vectors, louder))
    np.testing.assert_allclose(np.abs(one), np.abs(other), rtol=1e-2, atol=1e-4)
    placed = centred(vectors, norm_power=1.0, blocks=2).apply(vectors)
    halves = np.concatenate([unit(vectors[:, :4]), unit(vectors[:, 4:])], axis=1)
    np.testing.assert_allclose(placed, halves - halves.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("shape", [(12, 8), (6, 8)])
def test_principal_axes_are_those_of_the_decomposition(shape: tuple[int, int]):
    rows = np.random.default_rng(1).normal(size=shape) * np.linspace(3, 1, shape[1])
    rows -= rows.mean(axis=0)
    _, lengths, expected = np.linalg.svd(rows, full_matrices=False)
    axes, variances = principal(rows)
    count = np.linalg.matrix_rank(rows)
    assert len(axes) == count
    np.testing.assert_allclose(variances, lengths[:count] ** 2 / len(rows), rtol=1e-4)
    np.testing.assert_allclose(np.abs(np.einsum("kd,kd->k", axes, expected[:count])), 1, atol=1e-4)


def test_an_axis_is_kept_by_its_share_above_the_noise(vectors: np.ndarray):
    rows = vectors - vectors.mean(axis=0)
    axes, variances = principal(rows)
    noise = 0.5 * variances.mean()
    assert (variances < noise).any()
    found = denoised(vectors, norm_power=0.0, level=0.5).apply(vectors)
    kept = variances > noise
    expected = (rows @ axes[kept].T) * (variances[kept] - noise) / variances[kept]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_what_lies_toward_an_image_has_the_greatest_products_with_it(vectors: np.ndarray):
    geometry, query = standardised(unit(vectors)), np.arange(1.0, 9.0)
    before = unit(vectors) @ geometry.toward(query)
    after = geometry.apply(unit(vectors)) @ query
    np.testing.assert_allclose(after - after.mean(), before - before.mean(), rtol=1e-3, atol=1e-3)


def test_a_base_of_few_models_or_of_models_that_are_alike_has_no_geometry(vectors: np.ndarray):
    assert fitted_to_base(unit(vectors)[: LEAST_OF_A_BASE - 1]) is None
    assert fitted_to_base(unit(vectors)[:LEAST_OF_A_BASE]) is not None
    assert fitted_to_base(np.repeat(unit(vectors)[:1], LEAST_OF_A_BASE, axis=0)) is None
