// Cholesky factors of symmetric positive matrices, and systems solved with them.
//
// A factor is the upper triangle R of R'R, row by row: all inner loops then run along rows.
#pragma once

#include <cmath>

#include "memory.hpp"

namespace knownmf {

// A pivot below this share of its diagonal element is mostly rounding: its variable depends on the others.
constexpr double smallest_pivot = 1e-12;

// Overwrite the upper triangle of the first n rows of R, `stride` apart, with the factor; write 1 / R[k][k] to
// `inverse`.
//
// Returns whether the matrix is positive; if a pivot is mostly rounding, or the caller wants no more, the factor ends
// there.
inline bool factorize(double* R, Index stride, Index n, double* RESTRICT inverse,
                      const volatile std::int32_t* interrupted) {
    for (Index k = 0; k < n; ++k) inverse[k] = R[k * stride + k];  // the diagonal, to compare pivots with
    constexpr Index block = 4;  // rows eliminated together: each later row is then read and written once for four
    for (Index first = 0; first < n; first += block) {
        const Index last = smaller(first + block, n);
        if (*interrupted != 0) return false;
        for (Index k = first; k < last; ++k) {
            double* RESTRICT row = R + k * stride;
            if (!(row[k] > smallest_pivot * inverse[k])) return false;
            inverse[k] = 1.0 / std::sqrt(row[k]);
            for (Index j = k; j < n; ++j) row[j] *= inverse[k];
            for (Index i = k + 1; i < last; ++i) {
                double* RESTRICT below = R + i * stride;
                const double factor = row[i];
                for (Index j = i; j < n; ++j) below[j] -= factor * row[j];
            }
        }
        if (last - first < block) break;
        const double *RESTRICT a = R + first * stride, *RESTRICT b = a + stride, *RESTRICT c = b + stride,
                               *RESTRICT d = c + stride;
        for (Index i = last; i < n; ++i) {
            double* RESTRICT row = R + i * stride;
            const double fa = a[i], fb = b[i], fc = c[i], fd = d[i];
            for (Index j = i; j < n; ++j) row[j] -= (fa * a[j] + fb * b[j]) + (fc * c[j] + fd * d[j]);
        }
    }
    return true;
}

// Overwrite b with the solution of R' z = b.
inline void solve_forward(const double* R, Index stride, Index n, const double* inverse, double* RESTRICT b) {
    for (Index k = 0; k < n; ++k) {
        const double* RESTRICT row = R + k * stride;
        const double value = b[k] * inverse[k];
        b[k] = value;
        for (Index j = k + 1; j < n; ++j) b[j] -= value * row[j];
    }
}

// Overwrite b with the solution of R z = b.
inline void solve_backward(const double* R, Index stride, Index n, const double* inverse, double* RESTRICT b) {
    for (Index k = n - 1; k >= 0; --k) {
        const double* RESTRICT row = R + k * stride;
        double sum = 0.0;
        VECTORIZED_SUM(sum)
        for (Index j = k + 1; j < n; ++j) sum += row[j] * b[j];
        b[k] = (b[k] - sum) * inverse[k];
    }
}

// Overwrite b with the solution of (R'R) z = b.
inline void solve_factorized(const double* R, Index stride, Index n, const double* inverse, double* RESTRICT b) {
    solve_forward(R, stride, n, inverse, b);
    solve_backward(R, stride, n, inverse, b);
}

}  // namespace knownmf
