// Loading frames from a block of observations, and writing their answers.
#pragma once

#include "certificate.hpp"
#include "limits.hpp"

namespace knownmf {

// Return row t of what a block has, or the row that all frames share, or null where there is neither.
inline const double* row_of(const double* rows, Index t, Index size, const double* shared) {
    return rows != nullptr ? rows + t * size : shared;
}

// Copy a row and fill its padding with zeros.
inline void load_row(const double* source, Index size, double* target, Index stride) {
    if (source != nullptr) copy(source, target, size);
    fill(target + (source != nullptr ? size : 0), stride - (source != nullptr ? size : 0), 0.0);
}

// Fill a frame with frame t of a dense block: data, weights, background and reach, at the frame's own scale.
inline void load_bins(Frame& frame, const Observations& block, Index t, const Basis& basis) {
    const Index n_bins = basis.n_bins, stride = basis.bin_stride;
    load_row(block.data + t * n_bins, n_bins, frame.x, stride);
    load_row(row_of(block.weights, t, n_bins, basis.weights), n_bins, frame.weight, stride);
    load_row(row_of(block.background, block.background_stride != 0 ? t : 0, n_bins, nullptr), n_bins, frame.background,
             stride);
    if (block.support == nullptr && block.upper == nullptr && block.total == nullptr) {
        copy(basis.reach, frame.reach, stride);
    } else {
        double* used = frame.h;  // not loaded yet
        for (Index k = 0; k < basis.n_components; ++k) used[k] = may_be_active(block, t, k, basis) ? 1.0 : 0.0;
        fill(frame.reach, stride, 0.0);
        add_active(used, basis.n_components, basis.atoms, stride, frame.reach, stride);
    }
    frame.has_data = scale_frame(frame, basis, size_of_total(block, t, basis));
}

// Return whether a loaded frame has the weights that all frames share in every bin: none is missing or left out.
inline bool has_shared_weights(const Frame& frame, const Observations& block, const Basis& basis) {
    if (block.weights != nullptr) return false;
    bool differs = false;
    for (Index f = 0; f < basis.bin_stride; ++f) differs |= frame.weight[f] != basis.weights[f];
    return !differs;
}

// Fill a frame with what it has of every component, W' weights being there already: penalties and limits in the frame's
// scale, whether the component may be used, and a warm start. `number` is the frame's place in `block`.
inline void load_components(Frame& frame, const Observations& block, const Basis& basis, bool certify_only) {
    const Index n_components = basis.n_components, t = frame.number;
    const double beta = basis.beta, scale = scale_of(frame);
    const double l1_unit = std::pow(scale, 1.0 - beta), l2_unit = std::pow(scale, 2.0 - beta);
    const double* start = row_of(block.start, t, n_components, nullptr);
    const double *own_l1 = row_of(block.l1, t, n_components, nullptr),
                 *own_l2 = row_of(block.l2, t, n_components, nullptr);
    constexpr double largest_start = 1e300;  // so that it stays finite at the frame's scale
    fill(frame.h, basis.component_stride, 0.0);
    fill(frame.A, basis.component_stride, 0.0);
    fill(frame.B, basis.component_stride, 0.0);
    load_limits(frame, block, basis);
    const bool fills_total = has_fixed_total(frame);
    for (Index k = 0; k < n_components; ++k) {
        // An atom that is zero on all observed bins stays out, but its activation counts where it is to be certified,
        // or adds to a fixed total.
        const bool counts = frame.weighted_sums[k] > 0.0 || certify_only || fills_total;
        frame.allowed[k] = counts && may_be_active(block, t, k, basis);
        const double unit = basis.units[k];
        const double l1 = own_l1 != nullptr ? own_l1[k] * unit : basis.l1[k];
        const double l2 = own_l2 != nullptr ? (own_l2[k] > 0.0 ? own_l2[k] * unit * unit : 0.0) : basis.l2[k];
        frame.l1[k] = l1 > 0.0 ? l1 * l1_unit : 0.0;  // the unit may be infinite
        frame.l2[k] = l2 > 0.0 ? l2 * l2_unit : 0.0;
        const bool starts =
            start != nullptr && frame.allowed[k] && (frame.has_data || certify_only || has_total(frame));
        if (starts) frame.h[k] = smaller(start[k] / basis.units[k] / scale, largest_start);
    }
    frame.n_iter = 0;
    frame.n_roundings = 0;
    frame.rung = beta < 1.0 ? Rung::double_precision : Rung::single_precision;  // below 1 curvatures span too much
    frame.exactness = 0.0;
    frame.lost_a_whole_model = false;
    frame.was_rescued = false;
    frame.n_steps_in_rounding = 0;
    frame.best_criterion = infinity;
    if (certify_only) return;
    // A start's model over the data from which on it is brought down before anything is computed with it.
    constexpr double far_too_large = 1e6;
    const double model = dot(frame.h, frame.weighted_sums, n_components);
    if (model <= far_too_large * frame.sums.data) return;
    const double factor = model < infinity ? frame.sums.data / model : 0.0;
    for (Index k = 0; k < n_components; ++k) frame.h[k] = factor > 0.0 ? frame.h[k] * factor : 0.0;
}

// Return the penalties of a frame's activations.
inline double penalties(const Frame& frame, Index n_components) {
    double total = 0.0;
    for (Index k = 0; k < n_components; ++k) total += frame.h[k] * (frame.l1[k] + 0.5 * frame.l2[k] * frame.h[k]);
    return total;
}

// Write what was found of a frame, in the user's units. `objective` is in the frame's own. No activation is infinite or
// NaN: where numbers cannot hold the answer, the frame has not converged and its bounds are infinite.
inline void write_answer(const Frame& frame, const Basis& basis, double objective, double kkt, bool converged,
                         Answer& answer) {
    const double scale = scale_of(frame), unit = std::pow(scale, basis.beta);
    double* H = answer.H + frame.number * basis.n_components;
    constexpr double largest = std::numeric_limits<double>::max(), smallest = std::numeric_limits<double>::denorm_min();
    bool is_held = objective == objective && !frame.lost_its_total;    // whether numbers can hold the answer
    const bool is_zero = frame.lost_its_total && frame.total_is_most;  // all that is sure to be below the total
    for (Index k = 0; k < basis.n_components; ++k) {
        const double value = is_zero ? 0.0 : frame.h[k] * scale * basis.units[k];
        is_held &= value <= largest;
        H[k] = value <= largest ? value : value > largest ? largest : 0.0;
    }
    const bool convex = is_convex(basis.beta);
    if (convex) is_held &= frame.gap >= 0.0;
    // The unit may be zero or infinite. A gap that is not zero does not become zero.
    answer.objective[frame.number] = !(is_held && objective < infinity) ? infinity
                                     : objective == 0.0                 ? 0.0
                                                                        : objective * unit;
    answer.gap[frame.number] = frame.gap > 0.0 && frame.gap < infinity ? larger(frame.gap * unit, smallest) : frame.gap;
    answer.relative_gap[frame.number] = relative_gap(frame);
    answer.kkt[frame.number] = is_held && kkt == kkt ? kkt : infinity;
    answer.n_iter[frame.number] = frame.n_iter;
    answer.converged[frame.number] = is_held && converged;
    if (convex && !is_held) answer.gap[frame.number] = answer.relative_gap[frame.number] = infinity;
}

// Write the answer of a frame without data: h = 0, which is the exact minimum.
inline void write_silence(Frame& frame, const Basis& basis, Answer& answer) {
    fill(frame.h, basis.n_components, 0.0);
    frame.gap = is_convex(basis.beta) ? 0.0 : not_a_number;
    const double cost = total_divergence(frame.x, frame.background, frame.weight, basis.beta, basis.bin_stride);
    write_answer(frame, basis, frame.constant + cost, 0.0, true, answer);
}

// Round the activations of a frame to what single precision can hold in the user's units; return whether that changed
// them.
inline bool round_to_single(Frame& frame, const Basis& basis) {
    const double scale = scale_of(frame);
    bool changed = false;
    for (Index k = 0; k < basis.n_components; ++k) {
        const double unit = basis.units[k] * scale, bound = upper_of(frame, k);
        double rounded = rounded_to_single(frame.h[k], unit);
        if (rounded > bound)
            rounded = static_cast<double>(std::nextafter(static_cast<float>(rounded * unit), 0.0f)) / unit;
        changed |= rounded != frame.h[k];
        frame.h[k] = rounded;
    }
    return changed;
}

}  // namespace knownmf
