// Multiplicative updates of a row of activations or of a basis, and their extrapolation.
//
// An update [C. Fevotte and J. Idier, Neural Computation 23(9), 2011] can change an activation by orders of magnitude
// and keeps it positive. Extrapolation multiplies with the ratio of two steps, which keeps everything positive as well
// [L. T. K. Hien, V. Leplat and N. Gillis, arXiv:2401.06646, extrapolate differences instead].
#pragma once

#include <cmath>

#include "memory.hpp"

namespace knownmf {

// An activation that falls below this, in units of its frame, would soon leave its precision: it goes no further.
template <class T>
constexpr T smallest_activation = static_cast<T>(sizeof(T) == sizeof(double) ? 1e-60 : 1e-25);
// Ratios of two steps count up to this and its inverse: in the beginning entries fall by far more than is worth
// repeating.
constexpr float largest_step_ratio = 3.0f;

// Return the exponent with which a multiplicative update is sure to lower the objective.
//
// As a function of the ratio r of the new value to the old one, the majorizing function of Fevotte and Idier has its
// minimum where a sum of powers of r equals the ratio of pull to push. The largest of these powers is
// max(1, 2 - beta, beta - 1); a quadratic penalty adds the power 3 - beta for beta < 2. With the inverse of the largest
// power as its exponent, an update ends between the old value and that minimum.
inline double safe_power(double beta, bool has_quadratic_penalty) {
    return 1.0 / larger(larger(1.0, 2.0 - beta), larger(beta - 1.0, has_quadratic_penalty ? 3.0 - beta : 1.0));
}

// Take one multiplicative update h *= (A / (B + l1 + l2 h))^power; what is zero stays zero. Vectorized: no branch.
template <class T>
inline void multiply(T* RESTRICT h, const T* RESTRICT A, const T* RESTRICT B, const T* RESTRICT l1,
                     const T* RESTRICT l2, T power, Index size) {
    // Beyond, the slope is that of an empty model: change nothing.
    constexpr T largest_ratio = static_cast<T>(sizeof(T) == sizeof(double) ? 1e60 : 1e15);
    constexpr T least = smallest_activation<T>;
    for (Index k = 0; k < size; ++k) {
        T ratio = A[k] / (B[k] + l1[k] + l2[k] * h[k]);
        if (power == T(0.5)) {
            ratio = std::sqrt(ratio);
        } else if (power != T(1)) {
            ratio = std::pow(ratio, power);
        }
        const T updated = ratio < largest_ratio ? larger(h[k] * ratio, least) : h[k];
        h[k] = h[k] > T(0) ? updated : h[k];
    }
}

// Move h, where an update ended that began at `begun`, on by its ratio to where the update before ended, to the power
// of Nesterov's weight n / (n + 3), rounded to what square roots give: these are vectorized. Writes h, and `ended`:
// where the update ended. Entries that the last two updates moved in different directions stay where they are.
inline void extrapolate_by_roots(float* RESTRICT h, const float* RESTRICT begun, float* RESTRICT ended, Index n_before,
                                 Index size) {
    // Weights of 1/4, then 1/2 from n = 2 on, 3/4 from 6, 7/8 from 15.
    const bool half = n_before >= 2, quarter = n_before < 2 || n_before >= 6, eighth = n_before >= 15;
    for (Index k = 0; k < size; ++k) {
        const float end = h[k];
        float ratio = smaller(larger(end / ended[k], 1.0f / largest_step_ratio), largest_step_ratio);
        const float root = std::sqrt(ratio), fourth = std::sqrt(root);
        ratio = (half ? root : 1.0f) * (quarter ? fourth : 1.0f) * (eighth ? std::sqrt(fourth) : 1.0f);
        const bool same_direction = (end - begun[k]) * (end - ended[k]) > 0.0f;
        h[k] = same_direction ? end * ratio : end;
        ended[k] = end;
    }
}

// Write what lies beyond `ended` by its ratio to `before`, to the power `share`. Entries stay where they ended if the
// steps to there from `here` and from `before` differ in direction.
template <class T>
void extrapolate(const T* RESTRICT ended, const T* RESTRICT here, const T* RESTRICT before, double share,
                 T* RESTRICT out, Index size) {
    constexpr T least = smallest_activation<T>;
    for (Index k = 0; k < size; ++k) {
        T end = ended[k];
        if ((end - here[k]) * (end - before[k]) > T(0)) {
            const float ratio =
                smaller(larger(static_cast<float>(end / before[k]), 1.0f / largest_step_ratio), largest_step_ratio);
            end = larger(static_cast<T>(end * std::pow(ratio, static_cast<float>(share))), least);
        }
        out[k] = end;
    }
}

}  // namespace knownmf
