// Preparing a basis: everything that depends on it alone, once for all frames.
#pragma once

#include "frame.hpp"

namespace knownmf {

// Return the power of two that brings a positive number to [1, 2); 1 for zero.
inline double unit_of(double size) { return size > 0.0 ? std::ldexp(1.0, static_cast<int>(-exponent_of(size))) : 1.0; }

// Write the Gram matrix W' diag(weights) W + diag(l2), scaled to a unit diagonal, and its units. Atoms of zeros without
// an L2 penalty keep a diagonal of zero. Bins are added up in chunks, so that rounding grows with the size of a chunk
// and the number of chunks only. `buffer` is for a chunk of W and for what it adds to some rows.
inline Status prepare_gram(Basis& basis, const double* W, Buffer<double>& buffer, Buffer<double*>& rows,
                           const volatile std::int32_t* interrupted) {
    const Index n = basis.n_components, stride = basis.component_stride;
    constexpr Index rows_at_once = 256;  // between two tests of the flag
    const Index n_sums = smaller(rows_at_once, n);
    if (!buffer.reserve((bins_of_gram + n_sums) * stride + bins_of_gram * n) || !rows.reserve(n + n_sums))
        return out_of_memory;
    double *bins = buffer.begin(), *sums = bins + bins_of_gram * stride, *weighted = sums + n_sums * stride;
    for (Index k = 0; k < n; ++k) rows[k] = weighted + k * bins_of_gram;
    for (Index k = 0; k < n_sums; ++k) rows[n + k] = sums + k * stride;
    for (Index first = 0; first < basis.n_bins; first += bins_of_gram) {
        const Index n_bins = smaller(bins_of_gram, basis.n_bins - first);
        for (Index f = 0; f < n_bins; ++f) {
            for (Index k = 0; k < n; ++k) {
                bins[f * stride + k] = W[(first + f) * n + k] * basis.units[k];
                rows[k][f] = basis.weights[first + f] * bins[f * stride + k];
            }
        }
        for (Index k = 0; k < n; k += rows_at_once) {
            if (*interrupted != 0) return Status::interrupted;
            const Index n_rows = smaller(rows_at_once, n - k);
            fill(sums, n_rows * stride, 0.0);
            combine_rows<double>(const_cast<const double**>(rows.begin()) + k, n_rows, n_bins, bins, stride, stride,
                                 rows.begin() + n);
            add_multiple(1.0, sums, basis.gram + k * stride, n_rows * stride);
        }
    }
    for (Index k = 0; k < n; ++k) {
        double& diagonal = basis.gram[k * stride + k];
        diagonal += basis.l2[k];
        basis.gram_units[k] = diagonal > 0.0 ? 1.0 / std::sqrt(diagonal) : 1.0;
    }
    for (Index k = 0; k < n; ++k) {
        double* row = basis.gram + k * stride;
        const bool is_zero = row[k] == 0.0;
        for (Index j = 0; j < n; ++j) row[j] *= basis.gram_units[k] * basis.gram_units[j];
        row[k] = is_zero ? 0.0 : 1.0;
    }
    return done;
}

// Fill what a basis holds of component k in the bins from `first` to `last`.
inline void prepare_column(Basis& basis, const double* W, Index k, Index first, Index last) {
    const Index size = basis.bin_stride, stride = basis.component_stride;
    const bool allowed = basis.support[k] != 0.0;
    double sum = 0.0;
    for (Index f = first; f < last; ++f) {
        const double value = W[f * basis.n_components + k] * basis.units[k];
        if (basis.atoms != nullptr) {
            basis.atoms[k * size + f] = value;
            basis.atoms_single[k * size + f] = static_cast<float>(value);
            basis.bins_single[f * stride + k] = static_cast<float>(value);
        } else {
            basis.bins[f * stride + k] = value;
        }
        if (allowed) basis.reach[f] += value;
        sum += basis.weights[f] * value;
    }
    basis.weighted_sums[k] += sum;
}

// Fill the arrays of a basis that are not null from W, (n_bins, n_components) row by row. `l1` and `l2` hold the user's
// values, `weights` and `support` what all frames share; all arrays are zero where they are padded.
inline Status prepare(Basis& basis, const double* W, const volatile std::int32_t* interrupted) {
    const Index n_bins = basis.n_bins, n = basis.n_components;
    for (Index f = 0; f < n_bins; ++f)
        for (Index k = 0; k < n; ++k) basis.units[k] += W[f * n + k];
    for (Index k = 0; k < n; ++k) {
        const double unit = unit_of(basis.units[k]);
        basis.units[k] = unit;
        basis.l1[k] *= unit;
        if (basis.l2[k] > 0.0) basis.l2[k] *= unit * unit;  // the square may be infinite
    }
    for (Index first = 0; first < n_bins; first += bins_of_weighted_sums) {
        const Index last = smaller(first + bins_of_weighted_sums, n_bins);
        for (Index k = 0; k < n; ++k) prepare_column(basis, W, k, first, last);
    }
    if (basis.gram == nullptr) return *interrupted != 0 ? Status::interrupted : done;
    Buffer<double> buffer;
    Buffer<double*> rows;
    return prepare_gram(basis, W, buffer, rows, interrupted);
}

}  // namespace knownmf
