// The problem that all frames share, and one frame at work.
//
// Over h >= 0, and h_k = 0 outside the frame's support, each frame x minimizes
//
//     P(h) = sum_f weight_f d_beta(x_f | v_f) + sum_k (l1_k h_k + l2_k h_k^2 / 2),    v = background + W h
//
// Its gradient is B - A + l1 + l2 h with A = W' (weight x v^(beta-2)) and B = W' (weight v^(beta-1)). A frame may be
// limited: h <= upper, and sum_k h_k equal to a total, or at most a total. Each frame has a scale of its own, a power
// of two, and nothing of a frame is read for another.
#pragma once

#include "divergences.hpp"
#include "products.hpp"

namespace knownmf {

// A basis prepared once (knownmf_prepare), and what all frames share. Rows are padded: see memory.hpp. An array that a
// problem does not have is null; `native.py` says which.
struct Basis {
    Index n_bins, n_components;
    Index bin_stride, component_stride;  // padded lengths of rows over bins, over components
    double beta;
    double*
        atoms;  // (n_components, bin_stride): the columns of W, each times a power of two, so that it sums to [1, 2)
    float* atoms_single;  // the same in single precision
    float* bins_single;   // (n_bins, component_stride): its transpose
    double* bins;         // the transpose in double precision, for sparse data
    double* gram;  // (n_components, component_stride): W' diag(weights) W + diag(l2), least squares with shared weights
    double* gram_units;  // (n_components): the gram is scaled by these on both sides, to a unit diagonal
    double* units;       // (n_components): the powers of two
    double* l1;          // (n_components), in units of the scaled columns, as is l2
    double* l2;
    double* weights;        // (bin_stride): weights that all frames share
    double* weighted_sums;  // (n_components): W' weights
    double* support;        // (n_components) zeros and ones: support that all frames share
    double* reach;          // (bin_stride): the sum of the atoms in the shared support
};

// A block of frames as Python hands them over, frames-major: (n_frames, n_bins) or (n_frames, n_components).
struct Observations {
    Index n_frames;
    const double* data;        // NaN means missing
    const double* weights;     // null: the shared ones
    const double* background;  // null: none
    Index background_stride;   // 0: one background for all frames
    const double* support;     // null: the shared one
    const double* start;       // null: none
    // A sparse block instead of `data`: the entries of frame t are entries[starts[t]] .. entries[starts[t + 1] - 1].
    const double* entries;
    const std::int32_t* entry_bins;
    const std::int64_t* starts;
    const double* l1;  // null: the shared penalties; in the user's units
    const double* l2;
    const double* upper;         // (n_frames, n_components), infinite where there is no bound; null: none
    const double* total;         // (n_frames), the sum of the activations; null: any
    std::int32_t total_is_most;  // whether the sum may be smaller
};

struct Options {
    double tol;
    Index max_iter;
    std::int32_t round_to_single;              // whether the answer is for single precision
    std::int32_t certify_only;                 // whether the start is the answer, and only its certificate is wanted
    const volatile std::int32_t* interrupted;  // becomes nonzero when the caller wants no more
};

// What is found, a frame a row. H is in the user's units.
struct Answer {
    double* H;  // (n_frames, n_components)
    double* gap;
    double* relative_gap;
    double* kkt;
    double* objective;
    double* null_divergence;
    std::int64_t* n_iter;
    std::uint8_t* converged;
};

// Sums over a frame's bins that the gap needs in addition to A and B.
struct BinSums {
    double weight;      // sum of weight
    double data;        // sum of weight x
    double energy;      // sum of weight x^2
    double size;        // sum of weight x^beta, which a gap is relative to; negative data of least squares count too
    double model_push;  // sum of weight v^beta; for beta > 1
    double model_pull;  // sum of weight x v^(beta-1); for 1 < beta < 2
    double floor_push;  // sum of weight v^beta, over the bins where the slopes' v is a floor above the model
    double floor_pull;  // sum of weight x v^(beta-1) over the same bins
};

// Bounds of the relative rounding errors that a certificate has to allow for; docs/solver.md derives them.
struct Rounding {
    double products;      // of A, B, the penalties and the sums over bins
    double model;         // of the model
    bool of_differences;  // whether B is a difference: its error is then relative to A + B + l1 + l2 h
};

// The precision of the curvature in a frame's next Newton step. A step that does not lower the objective moves the
// frame to the next value; at none_left no more steps are taken (see Solver::judge).
enum class Rung { single_precision, double_precision, none_left };

// One frame at work, in its own scale. Rows over bins have the basis' bin_stride, rows over components its
// component_stride.
struct Frame {
    double *x, *weight, *background, *model, *pull, *push, *reach;
    double *h, *A, *B, *weighted_sums, *l1, *l2, *best, *upper;
    double* excess;       // room for the certificate
    bool* allowed;        // inside the support, and not zero on every observed bin
    bool has_upper;       // whether `upper` is read
    bool lost_its_total;  // whether the total is too far from the data for numbers to hold
    bool total_is_most;   // whether the activations may sum to less than the total
    double total;         // of basis.units[k] h[k]; infinite: any

    BinSums sums;
    Rounding rounding;
    double constant;  // what bins cost that neither an atom nor the background reaches
    Index exponent;   // of two, of the frame's scale
    Index number;     // its row in the block

    Index n_iter;
    int n_roundings;                         // how often its activations were rounded to single precision
    Rung rung;                               // of the next Newton step
    double exactness;                        // of its curvature: 1 is the exact second derivative, 0 its expectation
    bool lost_a_whole_model;                 // the last step was cut short by a bin that lost its whole model
    int n_steps_in_rounding;                 // whole steps that were taken although their slope was rounding
    bool was_rescued;                        // started anew once, when no step lowered the objective
    bool has_data;                           // in a bin that an atom or the background reaches
    bool has_negative_data;                  // of a sparse frame under least squares
    bool shares_weights;                     // in every bin: none is missing or left out
    double squared_error, energy_elsewhere;  // of a sparse frame: at its entries, and of the model at the other bins
    double gap, criterion;                   // at the last certificate; the criterion is what `tol` bounds
    double size;                             // which the gap is relative to
    bool is_at_rounding;                     // whether the gap cannot become smaller
    double best_criterion;                   // of the activations in `best`, the best so far
};

constexpr int rows_over_bins = 7, rows_over_components = 9;

// A frame's rows, in one array each.
inline void place(Frame& frame, double* bins, Index bin_stride, double* components, Index component_stride,
                  bool* allowed) {
    double** over_bins[] = {&frame.x,    &frame.weight, &frame.background, &frame.model,
                            &frame.pull, &frame.push,   &frame.reach};
    double** over_components[] = {&frame.h,  &frame.A,    &frame.B,     &frame.weighted_sums, &frame.l1,
                                  &frame.l2, &frame.best, &frame.upper, &frame.excess};
    for (int i = 0; i < rows_over_bins; ++i) *over_bins[i] = bins + i * bin_stride;
    for (int i = 0; i < rows_over_components; ++i) *over_components[i] = components + i * component_stride;
    frame.allowed = allowed;
}

// Write the sums of weight, weight x, weight x^2 and weight x^beta.
inline void sum_data(Frame& frame, const Basis& basis) {
    const double *RESTRICT x = frame.x, *RESTRICT weight = frame.weight;
    double total = 0.0, data = 0.0, energy = 0.0;
    VECTORIZED_SUM(total, data, energy)
    for (Index f = 0; f < basis.bin_stride; ++f) {
        total += weight[f];
        data += weight[f] * x[f];
        energy += weight[f] * x[f] * x[f];
    }
    BinSums& sums = frame.sums;
    sums = BinSums{total, data, energy, basis.beta == 2.0 ? energy : data, 0.0, 0.0, 0.0, 0.0};
    if (basis.beta == 1.0 || basis.beta == 2.0) return;
    const Power power(basis.beta);
    sums.size = 0.0;
    for (Index f = 0; f < basis.bin_stride; ++f)
        if (weight[f] > 0.0 && x[f] > 0.0) sums.size += weight[f] * power(x[f]);
}

// Return the bound of the rounding errors of sums over n numbers that are not negative, each of which is a product of a
// few factors, where neighbors in a vector register are summed apart.
inline double rounding_of_sum(Index n) {
    constexpr Index of_factors = 16;  // a power by roots takes up to ten operations, the sum of the lanes up to four
    const Index n_sums = n / lanes<double> + of_factors;
    return unit_roundoff * static_cast<double>(n_sums);
}

// Bins whose rows of W stay in the first-level cache while columns are read: prepare.hpp adds up the weighted sums of
// the atoms in chunks of so many.
constexpr Index bins_of_weighted_sums = 64;

// Return the bound of the rounding errors of the weighted sums of the atoms.
inline double rounding_of_weighted_sums(Index n_bins) {
    constexpr Index of_factors = 16;  // as in rounding_of_sum
    const Index n_sums = smaller(bins_of_weighted_sums, n_bins) + n_bins / bins_of_weighted_sums + of_factors;
    return unit_roundoff * static_cast<double>(n_sums);
}

// Return the number of atoms that are active.
inline Index n_active(const double* h, Index n_components) {
    Index n = 0;
    for (Index k = 0; k < n_components; ++k) n += h[k] > 0.0;
    return n;
}

// Bins that prepare.hpp adds up at a time for the Gram matrix.
constexpr Index bins_of_gram = 128;

inline double largest_of(const double* RESTRICT values, Index size) {
    double largest = 0.0;
    for (Index f = 0; f < size; ++f) largest = larger(largest, values[f]);
    return largest;
}

// Return the exponent of two of a scale for numbers up to `largest`.
inline Index exponent_of(double largest) {
    constexpr int most = 1000;  // so that neither the scale nor its inverse overflows
    if (largest == 0.0) return 0;
    return smaller(larger(std::ilogb(largest), -most), most);
}

// Return the scale of a frame, in which its largest data are from 1 to 2, and the inverse.
inline double scale_of(const Frame& frame) { return std::ldexp(1.0, static_cast<int>(frame.exponent)); }
inline double inverse_scale_of(const Frame& frame) { return std::ldexp(1.0, static_cast<int>(-frame.exponent)); }

// Make background of the negative data of a frame. Returns their weighted energy in the scale of the frame.
inline double move_negative_to_background(Frame& frame, Index size, double scale) {
    double energy = 0.0;
    for (Index f = 0; f < size; ++f) {
        const double negative = larger(-frame.x[f], 0.0);
        energy += frame.weight[f] * (negative * scale) * (negative * scale);
        frame.background[f] += negative;
        frame.x[f] = larger(frame.x[f], 0.0);
    }
    return energy;
}

// Bring a loaded frame to a scale of its own.
//
// Missing bins lose their weight, and so do bins with data that neither an atom nor the background reaches: they cost a
// constant. Negative data, which only least squares has, become background: x - v stays as it is, and nothing else
// needs to know of them. `size_of_silence` gives the scale where no bin has data. Writes exponent, constant and sums.
// Returns whether any bin with positive data is left.
inline bool scale_frame(Frame& frame, const Basis& basis, double size_of_silence) {
    const Index size = basis.bin_stride;
    const double beta = basis.beta;
    double *RESTRICT x = frame.x, *RESTRICT weight = frame.weight, *RESTRICT background = frame.background;
    for (Index f = 0; f < size; ++f) {
        weight[f] = x[f] == x[f] ? weight[f] : 0.0;
        x[f] = weight[f] == 0.0 ? 0.0 : x[f];
    }
    double largest = largest_of(x, size), most_negative = 0.0;
    if (beta == 2.0) {
        for (Index f = 0; f < size; ++f) most_negative = smaller(most_negative, x[f]);
        largest = larger(largest, -most_negative);
    }
    if (largest == 0.0 && beta < 1.0) {
        for (Index f = 0; f < size; ++f)
            if (weight[f] > 0.0) largest = larger(largest, background[f]);
    }
    if (largest == 0.0) largest = size_of_silence;
    frame.exponent = exponent_of(largest);
    const double scale = inverse_scale_of(frame);
    const double floor = zero_floor * (largest * scale);
    const double negative_energy = most_negative < 0.0 ? move_negative_to_background(frame, size, scale) : 0.0;
    Index n_with_data = 0, n_unreached = 0;
    for (Index f = 0; f < size; ++f) {
        x[f] = larger(x[f] * scale, beta < 1.0 && weight[f] > 0.0 ? floor : 0.0);
        background[f] *= scale;
        const bool with_data = (weight[f] > 0.0) & (x[f] > 0.0);
        n_with_data += with_data;
        n_unreached += with_data & (background[f] == 0.0) & (frame.reach[f] == 0.0);
    }
    sum_data(frame, basis);
    frame.sums.size += negative_energy;
    frame.constant = 0.0;
    if (n_unreached == 0) return n_with_data > 0;
    const double size_of_data = frame.sums.size;
    for (Index f = 0; f < size; ++f) {
        if (!(weight[f] > 0.0 && x[f] > 0.0 && background[f] == 0.0 && frame.reach[f] == 0.0)) continue;
        frame.constant += weight[f] * divergence(x[f], beta <= 1.0 ? floor : 0.0, beta);
        weight[f] = 0.0;
    }
    sum_data(frame, basis);
    frame.sums.size = size_of_data;
    return n_with_data > n_unreached;
}

// Recompute the model of a frame from its activations, and the two halves of its slope.
inline void update_model(Frame& frame, const Basis& basis) {
    copy(frame.background, frame.model, basis.bin_stride);
    add_active(frame.h, basis.n_components, basis.atoms, basis.bin_stride, frame.model, basis.bin_stride);
    slopes(frame.x, frame.model, frame.weight, basis.beta, frame.pull, frame.push, basis.bin_stride);
}

constexpr double largest_single = std::numeric_limits<float>::max();

// Return the nearest activation that single precision can hold in the user's units.
inline double rounded_to_single(double value, double unit) {
    return static_cast<double>(static_cast<float>(smaller(value * unit, largest_single))) / unit;
}

}  // namespace knownmf
