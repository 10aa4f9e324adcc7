// The limits of a frame's activations besides h >= 0: upper bounds, and a total that they sum to or must not exceed.
//
// The user's activation is units_k h_k times the frame's scale: in the frame, sum_k units_k h_k is the total.
#pragma once

#include "frame.hpp"

namespace knownmf {

inline bool has_total(const Frame& frame) { return frame.total < infinity; }
inline bool has_fixed_total(const Frame& frame) { return has_total(frame) && !frame.total_is_most; }
inline bool is_limited(const Frame& frame) { return frame.has_upper || has_total(frame); }
inline double upper_of(const Frame& frame, Index k) { return frame.has_upper ? frame.upper[k] : infinity; }
inline bool is_at_upper(const Frame& frame, Index k) { return frame.has_upper && frame.h[k] >= frame.upper[k]; }

// Return whether frame t of a block may use component k: inside the support, and with limits above zero.
inline bool may_be_active(const Observations& block, Index t, Index k, const Basis& basis) {
    const double* support = block.support != nullptr ? block.support + t * basis.n_components : basis.support;
    return support[k] != 0.0 && (block.upper == nullptr || block.upper[t * basis.n_components + k] > 0.0) &&
           (block.total == nullptr || block.total[t] > 0.0);
}

// Return the size of the activations that a fixed total alone asks for, in the user's units over basis.units: the scale
// of a frame whose data are all zero. Zero without such a total.
inline double size_of_total(const Observations& block, Index t, const Basis& basis) {
    if (block.total == nullptr || block.total_is_most != 0) return 0.0;
    for (Index k = 0; k < basis.n_components; ++k)
        if (may_be_active(block, t, k, basis)) return block.total[t] / basis.units[k];
    return 0.0;
}

// Write the limits of a frame, whose scale is known, from its place in a block.
inline void load_limits(Frame& frame, const Observations& block, const Basis& basis) {
    const Index t = frame.number, n = basis.n_components;
    const double scale = scale_of(frame);
    frame.has_upper = false;
    frame.total_is_most = block.total_is_most != 0;
    frame.total = block.total != nullptr && block.total[t] > 0.0 ? block.total[t] / scale : infinity;
    // With a total of zero no component is allowed. One that is too far from the data for numbers to hold is replaced
    // by the nearest that they can hold, and the answer then counts as not converged.
    constexpr double smallest = 1e-250, largest = 1e250;
    const bool is_given = block.total != nullptr && 0.0 < block.total[t] && block.total[t] < infinity;
    frame.lost_its_total = is_given && (frame.total < smallest || (frame.total > largest && !frame.total_is_most));
    if (is_given)
        frame.total =
            frame.total > largest && frame.total_is_most ? infinity : smaller(larger(frame.total, smallest), largest);
    if (block.upper == nullptr) return;
    for (Index k = 0; k < n; ++k) {
        frame.upper[k] = block.upper[t * n + k] / basis.units[k] / scale;
        frame.has_upper |= frame.upper[k] < infinity;
    }
}

// Return the sum that a total limits.
inline double total_of(const Frame& frame, const Basis& basis) {
    double sum = 0.0;
    for (Index k = 0; k < basis.n_components; ++k) sum += basis.units[k] * frame.h[k];
    return sum;
}

// Bring the activations of a frame within its limits: to their bounds, and to the total by a common factor as far as
// the bounds allow. If all that may grow are zero, they grow alike.
inline void make_feasible(Frame& frame, const Basis& basis) {
    const Index n = basis.n_components;
    for (Index k = 0; frame.has_upper && k < n; ++k) frame.h[k] = smaller(frame.h[k], frame.upper[k]);
    if (!has_total(frame)) return;
    const double sum = total_of(frame, basis);
    if (sum > frame.total) {
        const double factor = frame.total / sum;
        for (Index k = 0; k < n; ++k) frame.h[k] *= factor;
        return;
    }
    if (frame.total_is_most) return;
    // Every pass takes at least one component to its bound, but the last.
    for (Index pass = 0; pass <= 2 * n; ++pass) {
        double at_bounds = 0.0, between = 0.0, at_zero = 0.0;
        for (Index k = 0; k < n; ++k) {
            const double share = basis.units[k] * frame.h[k];
            (is_at_upper(frame, k) ? at_bounds : between) += share;
            if (frame.allowed[k] && frame.h[k] == 0.0) at_zero += basis.units[k];
        }
        const double missing = frame.total - at_bounds;
        const double factor = between > 0.0 ? missing / between : 0.0;
        const double amount = between > 0.0 || at_zero == 0.0 ? 0.0 : missing / at_zero;
        bool reached_a_bound = false;
        for (Index k = 0; k < n; ++k) {
            if (!frame.allowed[k] || is_at_upper(frame, k)) continue;
            const double end = frame.h[k] > 0.0 ? frame.h[k] * factor : amount;
            frame.h[k] = smaller(end, upper_of(frame, k));
            reached_a_bound |= end > frame.h[k];
        }
        if (!reached_a_bound) return;
    }
}

// Return the price of the total at the present activations: the multiplier at which the slopes gradient_k + multiplier
// units_k of the activations between their bounds are zero on average, by shares of the total. If all are at a bound,
// one at which none wants to leave it, if there is one. 0 where the total does not limit the sum.
template <class Gradient>
inline double multiplier_of(const Frame& frame, const Basis& basis, Gradient gradient) {
    if (!has_total(frame)) return 0.0;
    constexpr double rounding = 1e-12;  // nearer to a bound than that is at it
    double slopes = 0.0, sum = 0.0, between = 0.0, lowest = -infinity, highest = infinity;
    for (Index k = 0; k < basis.n_components; ++k) {
        if (!frame.allowed[k]) continue;
        const double share = basis.units[k] * frame.h[k], wanted = -gradient(k) / basis.units[k];
        sum += share;
        if (share <= rounding * frame.total) {
            lowest = larger(lowest, wanted);
        } else if (frame.h[k] >= (1.0 - rounding) * upper_of(frame, k)) {
            highest = smaller(highest, wanted);
        } else {
            slopes += frame.h[k] * gradient(k);
            between += share;
        }
    }
    if (frame.total_is_most && sum < frame.total - rounding * frame.total) return 0.0;
    const double middle = lowest > -infinity && highest < infinity ? 0.5 * (lowest + highest)
                          : lowest > -infinity                     ? lowest
                          : highest < infinity                     ? highest
                                                                   : 0.0;
    const double multiplier = between > 0.0 ? -slopes / between : middle;
    return frame.total_is_most ? larger(multiplier, 0.0) : multiplier;
}

}  // namespace knownmf
