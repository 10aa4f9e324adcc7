// Where frames start: every atom a little, or the caller's activations; and which of many atoms are the strongest.
#pragma once

#include "certificate.hpp"

namespace knownmf {

// Atoms up to which a working set starts with all of them. Measured: with 200 harmonic atoms, 128 takes 1.6 times as
// long as 256 or 512; with exemplar dictionaries all are alike.
constexpr Index dense_components = 256;
// Of more atoms, how many enter a working set at a time; twice as many begin. Ad hoc: 16 and 32 are alike.
constexpr Index admitted_at_once = 32;

// Return in `chosen`, in ascending order, the indices of the positive values; if there are more than `limit`, only
// about as many of the largest. Returns how many.
inline Index strongest(const double* values, Index size, Index limit, Index* chosen) {
    double largest = 0.0;
    Index n_positive = 0;
    for (Index k = 0; k < size; ++k) {
        n_positive += values[k] > 0.0;
        largest = larger(largest, values[k]);
    }
    constexpr double resolution = 0x1p-12;
    constexpr double smallest_to_halve = 1e-300;  // next to the smallest numbers halving would not end
    double low = 0.0, high = n_positive > limit && largest > smallest_to_halve ? largest : 0.0;
    while (high - low > resolution * largest) {
        const double middle = 0.5 * (low + high);
        Index n_above = 0;
        for (Index k = 0; k < size; ++k) n_above += values[k] > middle;
        (n_above > limit ? low : high) = middle;
    }
    Index n = 0;
    for (Index k = 0; k < size && n < limit; ++k)
        if (values[k] > low) chosen[n++] = k;
    return n;
}

// The amount of all atoms that is added to a warm start, as a share of the frame's data; and to a frame that starts
// anew. Ad hoc: in a stream 1e-2 and 3e-2 are alike.
constexpr double share_beside_a_start = 1e-2, share_of_a_new_start = 1e-3;

// Add the same amount of every allowed atom to a frame, `share` of the frame's data in all, and to its model.
inline void spread_start(Frame& frame, const Basis& basis, double share) {
    constexpr double least_unexplained = 1e-3;  // share of the data in a bin, ad hoc: a background may exceed the data
    double unexplained = 0.0, atoms = 0.0;
    for (Index f = 0; f < basis.bin_stride; ++f)
        unexplained += frame.weight[f] * larger(frame.x[f] - frame.background[f], least_unexplained * frame.x[f]);
    for (Index k = 0; k < basis.n_components; ++k) atoms += frame.allowed[k] ? frame.weighted_sums[k] : 0.0;
    const double amount = atoms > 0.0 ? share * smaller(unexplained, frame.sums.data) / atoms : 0.0;
    for (Index k = 0; k < basis.n_components; ++k)
        if (frame.allowed[k]) frame.h[k] += amount;
    for (Index f = 0; f < basis.bin_stride; ++f) frame.model[f] += amount * frame.reach[f];
    slopes(frame.x, frame.model, frame.weight, basis.beta, frame.pull, frame.push, basis.bin_stride);
}

// Multiply the start of a frame by the factor c that lowers its objective most, unless it has a background. The
// objective's slope along c is, times c^(2-beta),
//
//     c pushed + c^(2-beta) l1'h + c^(3-beta) l2'h^2 - pulled
//
// which rises in c up to beta = 2, so that its root is found by halving an interval of its logarithm.
inline void rescale(Frame& frame, const Basis& basis) {
    const double beta = basis.beta;
    double pushed = 0.0, pulled = 0.0, behind = 0.0, l1 = 0.0, l2 = 0.0;
    for (Index f = 0; f < basis.bin_stride; ++f) {
        pushed += frame.push[f] * frame.model[f];
        pulled += frame.pull[f] * frame.model[f];
        behind += frame.weight[f] * frame.background[f];
    }
    for (Index k = 0; k < basis.n_components; ++k) {
        l1 += frame.l1[k] * frame.h[k];
        l2 += frame.l2[k] * frame.h[k] * frame.h[k];
    }
    if (behind > 0.0 || !(0.0 < pushed && pushed < infinity) || !(0.0 < pulled && pulled < infinity)) return;
    double factor = pulled / pushed;
    if (l1 + l2 > 0.0) {
        if (beta > 2.0) return;
        double low = -400.0, high = 400.0;  // exponents of two: far beyond any frame's scale
        constexpr int most_halvings = 60;   // to the last bit of a factor near 1
        for (int halving = 0; halving < most_halvings; ++halving) {
            const double middle = 0.5 * (low + high);
            factor = std::exp2(middle);
            const double slope =
                factor * pushed + std::pow(factor, 2.0 - beta) * l1 + std::pow(factor, 3.0 - beta) * l2;
            (slope > pulled ? high : low) = middle;
        }
    }
    for (Index k = 0; k < basis.n_components; ++k) frame.h[k] *= factor;
    for (Index f = 0; f < basis.bin_stride; ++f) frame.model[f] *= factor;
    slopes(frame.x, frame.model, frame.weight, beta, frame.pull, frame.push, basis.bin_stride);
}

// Give a loaded frame its starting point, with its model and its slopes: the same share of every atom, or the caller's
// activations, in h already, at the best scale within its limits.
inline void start_frame(Frame& frame, const Basis& basis, bool warm) {
    bool uncovered = !warm;
    if (warm) {
        update_model(frame, basis);
        for (Index f = 0; f < basis.bin_stride; ++f)
            uncovered |= frame.weight[f] * frame.x[f] > 0.0 && frame.model[f] < model_floor;
    } else {
        copy(frame.background, frame.model, basis.bin_stride);
    }
    if (uncovered) spread_start(frame, basis, warm ? share_beside_a_start : 1.0);
    if (!is_limited(frame)) {
        rescale(frame, basis);
        return;
    }
    make_feasible(frame, basis);
    update_model(frame, basis);
}

// Leave a start only its strongest atoms, and one for every bin with data that would be left without a model.
inline void keep_strongest(Frame& frame, const Basis& basis, double* h, Index* chosen) {
    const Index n_components = basis.n_components, size = basis.bin_stride;
    copy(frame.h, h, n_components);
    fill(frame.h, n_components, 0.0);
    const Index n = strongest(h, n_components, 2 * admitted_at_once, chosen);
    for (Index i = 0; i < n; ++i) frame.h[chosen[i]] = h[chosen[i]];
    update_model(frame, basis);
    for (Index f = 0; f < size; ++f) {
        if (!(frame.weight[f] > 0.0 && frame.x[f] > 0.0 && frame.model[f] <= 0.0)) continue;
        Index best = 0;
        for (Index k = 1; k < n_components; ++k)
            if (h[k] * basis.atoms[k * size + f] > h[best] * basis.atoms[best * size + f]) best = k;
        frame.h[best] = h[best];
        for (Index j = 0; j < size; ++j) frame.model[j] += h[best] * basis.atoms[best * size + j];
    }
    update_model(frame, basis);
}

}  // namespace knownmf
