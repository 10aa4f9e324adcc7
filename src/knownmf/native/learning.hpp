// What a learning pass computes of a block of frames: its cost and slopes, and one step of every row.
#pragma once

#include "divergences.hpp"
#include "multiplicative.hpp"
#include "products.hpp"

namespace knownmf {

// Return the natural logarithm of a number in single precision, without a branch, so that loops over it are vectorized.
// Zero and infinity give large finite numbers.
//
// The mantissa is brought to between the square roots of 1/2 and 2, where a polynomial (S. Moshier, Cephes) holds to
// the last digit.
inline float log_single(float ratio) {
    std::int32_t bits;
    std::memcpy(&bits, &ratio, sizeof bits);
    const std::int32_t exponent = (bits - 0x3F3504F3) >> 23;  // 0x3F3504F3 is the square root of 1/2
    const auto mantissa_bits =
        static_cast<std::int32_t>(static_cast<std::uint32_t>(bits) - (static_cast<std::uint32_t>(exponent) << 23));
    float mantissa;
    std::memcpy(&mantissa, &mantissa_bits, sizeof mantissa);
    const float t = mantissa - 1.0f;
    float series = 7.0376836292e-2f;
    series = series * t - 1.1514610310e-1f;
    series = series * t + 1.1676998740e-1f;
    series = series * t - 1.2420140846e-1f;
    series = series * t + 1.4249322787e-1f;
    series = series * t - 1.6668057665e-1f;
    series = series * t + 2.0000714765e-1f;
    series = series * t - 2.4999993993e-1f;
    series = series * t + 3.3333331174e-1f;
    return t + t * t * (series * t - 0.5f) + static_cast<float>(exponent) * 0.6931471805599453f;
}

// The rows of a block; a matrix of one row stands for all.
template <class T>
struct Rows {
    const T* values;
    Index n_rows, size;

    const T* operator[](Index i) const { return values + (n_rows == 1 ? 0 : i * size); }
};

// Return the divergence of a row, in the precision of its data: for single precision and beta 0 or 1 with a quick
// logarithm, whose rounding does not add up.
inline double cost_of_row(const float* RESTRICT x, const float* RESTRICT v, const float* RESTRICT weight, double beta,
                          Index size) {
    float total = 0.0f;
    if (beta == 1.0) {
        VECTORIZED_SUM(total)
        for (Index f = 0; f < size; ++f)
            total += weight[f] > 0.0f ? weight[f] * (v[f] - x[f] + x[f] * log_single(x[f] / v[f])) : 0.0f;
        return total;
    }
    if (beta == 0.0) {
        VECTORIZED_SUM(total)
        for (Index f = 0; f < size; ++f) {
            const float ratio = x[f] / v[f];
            total += weight[f] > 0.0f ? weight[f] * (ratio - log_single(ratio) - 1.0f) : 0.0f;
        }
        return total;
    }
    double sum = 0.0;
    for (Index f = 0; f < size; ++f) sum += weight[f] > 0.0f ? weight[f] * divergence(x[f], v[f], beta) : 0.0;
    return sum;
}

inline double cost_of_row(const double* x, const double* v, const double* weight, double beta, Index size) {
    return total_divergence(x, v, weight, beta, size);
}

// Write the two halves of the slope of a block of n rows; return its divergence, if it is asked for.
template <class T>
double measure(const T* x, const Rows<T>& weights, const T* v, double beta, bool with_cost, T* pull, T* push, Index n) {
    const Index size = weights.size;
    double total = 0.0;
    for (Index i = 0; i < n; ++i) {
        const Index at = i * size;
        slopes<T>(x + at, v + at, weights[i], beta, pull + at, push + at, size);
        if (with_cost) total += cost_of_row(x + at, v + at, weights[i], beta, size);
    }
    return total;
}

// A block of frames in compressed sparse rows.
template <class T>
struct SparseRows {
    const T* entries;
    const std::int32_t* bins;
    const std::int32_t* starts;
    Index n;
};

// Gather what the entries of a block pull, under beta = 1; `columns` is (n_bins, n_components).
//
// For the activations, add W' (x / v) to the rows of `pull`, and return the sum of x (log(x / v) - 1).
template <class T>
double pull_of_activations(const SparseRows<T>& block, const T* H, const T* columns, Index n_components, T* pull) {
    double total = 0.0;
    for (Index i = 0; i < block.n; ++i) {
        const T* h = H + i * n_components;
        for (Index j = block.starts[i]; j < block.starts[i + 1]; ++j) {
            const T* column = columns + block.bins[j] * n_components;
            const double x = block.entries[j], ratio = x / larger<double>(dot(h, column, n_components), model_floor);
            if (!(ratio > 0.0)) continue;
            total += x * (std::log(ratio) - 1.0);
            add_multiple(static_cast<T>(ratio), column, pull + i * n_components, n_components);
        }
    }
    return total;
}

// For the basis, add (x / v) h to `pull`, (n_bins, n_components), at the entry's bin.
template <class T>
void pull_of_basis(const SparseRows<T>& block, const T* H, const T* columns, Index n_components, T* pull) {
    for (Index i = 0; i < block.n; ++i) {
        const T* h = H + i * n_components;
        for (Index j = block.starts[i]; j < block.starts[i + 1]; ++j) {
            const Index at = block.bins[j] * n_components;
            const double v = larger<double>(dot(h, columns + at, n_components), model_floor);
            add_multiple(static_cast<T>(block.entries[j] / v), h, pull + at, n_components);
        }
    }
}

// Take one multiplicative update of each of n rows.
template <class T>
void multiply_rows(T* Z, const T* A, const Rows<T>& B, const Rows<T>& l1, const Rows<T>& l2, double power, Index n) {
    for (Index i = 0; i < n; ++i)
        multiply<T>(Z + i * B.size, A + i * B.size, B[i], l1[i], l2[i], static_cast<T>(power), B.size);
}

// Lower 1/2 z'Qz - q'z for each of n rows z of Z over its free entries, by coordinate sweeps [N. Gillis and F. Glineur,
// Neural Computation 24(4), 2012]. `gradient` has room for a row.
inline void descend_rows(const double* Q, const double* q, double* Z, const Rows<bool>& free, int n_sweeps,
                         double* RESTRICT gradient, Index n) {
    const Index size = free.size;
    for (Index i = 0; i < n; ++i) {
        double* z = Z + i * size;
        for (Index k = 0; k < size; ++k) gradient[k] = -q[i * size + k];
        for (Index k = 0; k < size; ++k)
            if (z[k] != 0.0) add_multiple(z[k], Q + k * size, gradient, size);
        for (int sweep = 0; sweep < n_sweeps; ++sweep) {
            for (Index k = 0; k < size; ++k) {
                const double curvature = Q[k * size + k];
                // A slope without curvature leads to zero.
                if (!free[i][k] || !(curvature > 0.0 || gradient[k] > 0.0)) continue;
                const double end = larger(z[k] - gradient[k] / curvature, 0.0), step = end - z[k];
                if (step == 0.0) continue;
                z[k] = end;
                add_multiple(step, Q + k * size, gradient, size);
            }
        }
    }
}

}  // namespace knownmf
