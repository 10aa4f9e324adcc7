// One Newton step of one frame: its working set, its curvature, its quadratic program, its line search.
//
// If a step did not lower the objective, the next one computes its curvature in double instead of single precision. If
// that does not help, the frame takes no more steps (see Rung).
#pragma once

#include "line_search.hpp"
#include "program_limits.hpp"
#include "start.hpp"

namespace knownmf {

// The relative gap, or KKT residual, from which on a frame counts as near its optimum, where the exact curvature is the
// best.
constexpr double near_optimum = 1e-2;

class NewtonStep {
   public:
    [[nodiscard]] bool reserve(const Basis& basis) {
        return components_.reserve(3 * basis.component_stride) && bins_.reserve(4 * basis.bin_stride) &&
               atoms_.reserve(2 * basis.component_stride);
    }

    Index bytes() const {
        return components_.bytes() + bins_.bytes() + atoms_.bytes() + program_.bytes() + scaled_.bytes() +
               scaled_single_.bytes() + product_.bytes() + rows_.bytes() + step_.bytes();
    }

    // Move a frame to the minimizer of its quadratic model, or as far that way as the objective falls.
    [[nodiscard]] Status run(Frame& frame, const Basis& basis, const Options& options) {
        double* gradient = components_.begin();
        for (Index k = 0; k < basis.n_components; ++k)
            gradient[k] = frame.B[k] - frame.A[k] + frame.l1[k] + frame.l2[k] * frame.h[k];
        multiplier_ = multiplier_of(frame, basis, [gradient](Index k) { return gradient[k]; });
        for (Index k = 0; multiplier_ != 0.0 && k < basis.n_components; ++k)
            gradient[k] += multiplier_ * basis.units[k];
        choose_atoms(frame, basis, gradient);
        if (!reserve_step(frame, basis)) return out_of_memory;
        program_.interrupted = options.interrupted;
        const bool convex = is_convex(basis.beta);
        if (convex) frame.exactness = exactness_of(frame, basis);
        bool positive = find_target(frame, basis, options);
        if (!convex && frame.exactness != 0.0 && !(positive && slope_ < 0.0)) {
            frame.exactness = 0.0;
            positive = find_target(frame, basis, options);
        }
        ++frame.n_iter;
        if (slope_ < 0.0) {
            walk(frame, basis);
        } else if (may_step_in_rounding(frame, basis)) {
            ++frame.n_steps_in_rounding;
            take_whole_step(frame, basis);
        } else {
            go_one_rung_down(frame);
        }
        return done;
    }

   private:
    // About the rounding of a curvature matrix with a unit diagonal, in either precision.
    static constexpr double ridge_of_single = 2e-6, ridge_of_double = 1e-14;
    static constexpr double smallest_diagonal = 1e-200;  // keeps an atom without curvature from being divided by zero
    static constexpr double least_share_kept = 0.1;
    // Bounds of a bin's curvature, ad hoc, in units of the frame: that of an empty bin without a model; and the
    // smallest share of the expected curvature, that of a model of at least smallest_share.
    static constexpr double least_of_empty = 1e-2, flattest = 1e-8, smallest_share = 1e-6;

    // Steps with curvature in single precision, which is twice as fast; a frame that needs more has a hard problem.
    static constexpr Index single_precision_steps = 8;
    // After so many steps, every third uses Fisher's curvature: with the exact one, a step at most doubles a model that
    // is far too small.
    static constexpr Index patience = 9;

    // List the working set: the active atoms, and the others with the most negative gradients relative to B + l1.
    void choose_atoms(const Frame& frame, const Basis& basis, const double* gradient) {
        constexpr double smallest_price = 1e-300;  // a component may have no price at all
        double* violation = components_.begin() + basis.component_stride;
        const Index n_components = basis.n_components;
        Index n_active = 0;
        for (Index k = 0; k < n_components; ++k) {
            const bool enters = frame.h[k] == 0.0 && frame.allowed[k] && gradient[k] < 0.0;
            violation[k] = enters ? -gradient[k] / (frame.B[k] + frame.l1[k] + smallest_price) : 0.0;
            n_active += frame.h[k] > 0.0;
        }
        const bool takes_all = n_components <= dense_components;
        const Index limit = takes_all ? n_components : larger(admitted_at_once, n_active / 2);
        Index* entering = atoms_.begin() + basis.component_stride;
        const Index n_entering = strongest(violation, n_components, limit, entering);
        n_ = 0;
        for (Index k = 0, i = 0; k < n_components; ++k) {
            const bool enters = i < n_entering && entering[i] == k;
            i += enters;
            if (enters || frame.h[k] > 0.0) atoms_[n_++] = k;
        }
    }

    [[nodiscard]] bool reserve_step(const Frame& frame, const Basis& basis) {
        const Index n = padded(n_), size = n_ * basis.bin_stride;
        const bool single = frame.rung == Rung::single_precision;
        return program_.reserve_matrix(n_ + needs_slack(frame)) &&
               (single ? scaled_single_.reserve(size) : scaled_.reserve(size)) &&
               product_.reserve(n * program_.stride) && rows_.reserve(2 * n) && step_.reserve(4 * n);
    }

    // For 1 <= beta <= 2: 0.5 until the criterion is at most near_optimum, then 1. It is 0 (Fisher's curvature) in the
    // first step with more than dense_components atoms, and in every third step after `patience` steps: Fisher's
    // curvature allows longer steps where the model is far too small.
    static double exactness_of(const Frame& frame, const Basis& basis) {
        const bool first_of_many = frame.n_iter == 0 && basis.n_components > dense_components;
        const bool takes_fisher = first_of_many || (frame.n_iter >= patience && frame.n_iter % 3 == 0);
        return takes_fisher ? 0.0 : frame.criterion <= near_optimum ? 1.0 : 0.5;
    }

    // Solve the quadratic model. Writes the target activations of the working set and slope_, the objective's slope on
    // the way there; returns whether the model has a minimum.
    bool find_target(Frame& frame, const Basis& basis, const Options& options) {
        const double* gradient = components_.begin();
        const Index* atoms = atoms_.begin();
        double *target = step_.begin(), *l2 = target + padded(n_), *unit = l2 + padded(n_), *base = unit + padded(n_);
        const bool single = frame.rung == Rung::single_precision;
        compute_curvature(frame, basis);
        // If a bin lost its whole model in the last step, no activation falls below a tenth in this one.
        const double least_share = frame.lost_a_whole_model ? least_share_kept : 0.0;
        bool positive = true;
        double* Q = program_.Q;
        const Index stride = program_.stride;
        const double least_diagonal = smallest_diagonal_of(frame);
        for (Index p = 0; p < n_; ++p) {
            l2[p] = frame.l2[atoms[p]];
            const double diagonal = Q[p * stride + p] + l2[p];
            // An atom of zeros is here for the sake of a total only: the model has a minimum all the same.
            positive = positive && (diagonal > 0.0 || frame.weighted_sums[atoms[p]] == 0.0);
            unit[p] = 1.0 / std::sqrt(larger(diagonal, least_diagonal));
            base[p] = least_share * frame.h[atoms[p]];
            program_.z[p] = (frame.h[atoms[p]] - base[p]) / unit[p];
        }
        for (Index p = 0; p < n_; ++p) {
            double* row = Q + p * stride;
            const double diagonal = row[p] + l2[p];
            for (Index j = 0; j < n_; ++j) row[j] *= unit[p] * unit[j];
            // An atom next to zero has no curvature, but may be needed for a fixed total.
            row[p] = has_total(frame) && diagonal < least_diagonal ? diagonal * unit[p] * unit[p] : 1.0;
            program_.q[p] = gradient[atoms[p]] * unit[p] - dot(row, program_.z, n_);
        }
        if (is_limited(frame)) set_limits(program_, frame, basis, Scaling{atoms, n_, unit, base}, multiplier_);
        if (!positive && !is_convex(basis.beta) && frame.exactness != 0.0) {  // there is no minimum to look for
            slope_ = 0.0;
            return false;
        }
        // About the rounding of the curvature, so that duplicate atoms have one answer; it slows steps along directions
        // that the data can hardly tell apart.
        const double ridge = single ? ridge_of_single : ridge_of_double;
        positive = program_.minimize(ridge) && positive;
        const double scale = scale_of(frame);
        slope_ = 0.0;
        for (Index p = 0; p < n_; ++p) {
            target[p] = base[p] + program_.z[p] * unit[p];
            // An end that single precision can hold may be proven and returned as it is; the last digits go without.
            if (options.round_to_single && single && !is_limited(frame))
                target[p] = rounded_to_single(target[p], basis.units[atoms[p]] * scale);
            if (frame.has_upper) {
                const double bound = frame.upper[atoms[p]];
                target[p] = program_.is_at_upper(p) ? bound : smaller(target[p], bound);
            }
            slope_ += gradient[atoms[p]] * (target[p] - frame.h[atoms[p]]);
        }
        // What the gradient has of the multiplier cancels in a sum that stays, and is part of the slope of the slack.
        if (needs_slack(frame) && multiplier_ != 0.0) slope_ += multiplier_ * program_.row[n_] * program_.z[n_];
        return positive;
    }

    // Return the smallest curvature of a variable that its unit is taken from. With a total, units must not be too far
    // apart, as the total adds them up.
    double smallest_diagonal_of(const Frame& frame) const {
        constexpr double share = 1e-6;  // of the largest
        double largest = 0.0;
        for (Index p = 0; has_total(frame) && p < n_; ++p)
            largest = larger(largest, program_.Q[p * program_.stride + p] + frame.l2[atoms_[p]]);
        return larger(share * largest, smallest_diagonal);
    }

    // Return the size of the model over that of the data, where penalties or empty bins of great weight keep all of it
    // far below the data; 1 otherwise.
    static double level_of_model(const Frame& frame, const Basis& basis) {
        constexpr double low = 1e-6;  // of the data, ad hoc
        double largest = 0.0;
        for (Index f = 0; f < basis.bin_stride; ++f) {
            const double ratio = frame.model[f] / frame.x[f];
            largest = (frame.weight[f] > 0.0) & (frame.x[f] > 0.0) ? larger(largest, ratio) : largest;
        }
        return 0.0 < largest && largest < low ? largest : 1.0;
    }

    // Write the second derivative of the divergence in the chosen atoms to the program's Q.
    void compute_curvature(const Frame& frame, const Basis& basis) {
        double* curvature = bins_.begin();
        const double largest = curvature_of_bins(frame, basis, curvature);
        for (Index f = 0; f < basis.bin_stride; ++f) curvature[f] /= largest;
        if (frame.rung == Rung::single_precision) {
            weighted_products<float>(basis.atoms_single, basis, curvature, largest, scaled_single_.begin());
        } else {
            weighted_products<double>(basis.atoms, basis, curvature, largest, scaled_.begin());
        }
    }

    // Write, for every bin, a blend of the exact curvature and its expectation (Fisher's), which is never negative:
    //
    //     exactness * weight v^(beta-3) ((beta-1) v + (2-beta) x) + (1 - exactness) * weight v^(beta-2)
    //
    // Returns the largest absolute value.
    static double curvature_of_bins(const Frame& frame, const Basis& basis, double* RESTRICT curvature) {
        const double level = level_of_model(frame, basis);
        // Data over model from which on curvature no longer grows, as no step would be long enough to change anything.
        const double most_data_over_model = 1e12 / level;
        // An empty bin with a model below this counts as if it had this one: the limit, 0 or infinite, would say
        // nothing.
        const double smallest_model = 1e-12 * level;
        const double *RESTRICT x = frame.x, *RESTRICT v = frame.model, *RESTRICT weight = frame.weight;
        const double *RESTRICT pull = frame.pull, *RESTRICT push = frame.push;
        const double beta = basis.beta, b = frame.exactness * (2.0 - beta), a = 1.0 - b;
        const Index size = basis.bin_stride;
        if (beta == 2.0) {
            copy(weight, curvature, size);
            return larger(largest_of(curvature, size), 1e-300);
        }
        const double of_empty =
            larger(a, 0.0) * std::pow(smallest_model, beta - 2.0) + least_of_empty * std::pow(level, beta - 2.0);
        bool any_stretched = false;
        for (Index f = 0; f < size; ++f) {
            const bool empty = (x[f] == 0.0) & (v[f] < smallest_model);
            any_stretched |= v[f] * most_data_over_model < x[f];
            curvature[f] = empty ? weight[f] * of_empty : (a * push[f] + b * pull[f]) / larger(v[f], model_floor);
        }
        for (Index f = 0; any_stretched && f < size; ++f) {
            if (!(v[f] * most_data_over_model < x[f])) continue;
            const double model = x[f] / most_data_over_model;
            curvature[f] = weight[f] * std::pow(model, beta - 3.0) * (a * model + b * x[f]);
        }
        if (is_convex(beta)) {
            // Never much flatter than the expected curvature of a frame's own size.
            for (Index f = 0; f < size; ++f)
                curvature[f] = larger(curvature[f], flattest * push[f] / larger(v[f], smallest_share * level));
        }
        double largest = 0.0;
        for (Index f = 0; f < size; ++f) largest = larger(largest, std::fabs(curvature[f]));
        return larger(largest, 1e-300);
    }

    // Write Q[p][q] = largest * sum_f curvature_f atom_p_f atom_q_f, with products in the precision of the atoms.
    template <class T>
    void weighted_products(const T* atoms, const Basis& basis, const double* RESTRICT curvature, double largest,
                           T* scaled) {
        const Index size = basis.bin_stride, stride = program_.stride;
        const T** left = reinterpret_cast<const T**>(rows_.begin());
        const T** right = left + n_;
        for (Index p = 0; p < n_; ++p) {
            const T* RESTRICT atom = atoms + atoms_[p] * size;
            T* RESTRICT row = scaled + p * size;
            for (Index f = 0; f < size; ++f) row[f] = static_cast<T>(curvature[f]) * atom[f];
            left[p] = row;
            right[p] = atom;
        }
        T* product = reinterpret_cast<T*>(product_.begin());
        lower_products<T>(left, right, n_, size, product, stride, *program_.interrupted);
        double* Q = program_.Q;
        for (Index p = 0; p < n_; ++p)
            for (Index q = 0; q <= p; ++q) Q[p * stride + q] = Q[q * stride + p] = product[p * stride + q] * largest;
    }

    // Return whether the slope on the way to the target is rounding and a whole step may be tried: near the optimum the
    // objective is flat, and the slope loses its digits long before the target does. The activations with the smallest
    // gap are kept, so that a step that turns out worse does no harm.
    bool may_step_in_rounding(const Frame& frame, const Basis& basis) const {
        constexpr int most_steps = 3;
        constexpr double share = 1e-14;  // of the terms of the slope
        const Index n = basis.n_components;
        return is_convex(basis.beta) && frame.rung == Rung::double_precision &&
               frame.n_steps_in_rounding < most_steps &&
               slope_ <= share * (dot(frame.h, frame.A, n) + dot(frame.h, frame.B, n));
    }

    void take_whole_step(Frame& frame, const Basis& basis) const {
        for (Index p = 0; p < n_; ++p) frame.h[atoms_[p]] = step_.begin()[p];
        update_model(frame, basis);
    }

    // Go from the present point to the target, as far as the objective falls.
    void walk(Frame& frame, const Basis& basis) {
        const Index* atoms = atoms_.begin();
        const double *target = step_.begin(), *l2 = target + padded(n_);
        double* end = components_.begin() + 2 * basis.component_stride;
        copy(frame.h, end, basis.n_components);
        // Both ends have the total only up to rounding.
        constexpr double rounding = 1e-15;
        const double noise = has_total(frame) ? rounding * std::fabs(multiplier_) * frame.total : 0.0;
        Direction direction{bins_.begin() + basis.bin_stride, nullptr, slope_, 0.0, 0.0, noise};
        for (Index p = 0; p < n_; ++p) {
            const Index k = atoms[p];
            const double step = target[p] - frame.h[k];
            end[k] = target[p];
            direction.penalty += step * (frame.l1[k] + l2[p] * frame.h[k]);
            direction.bend += step * step * l2[p];
        }
        double* model = bins_.begin() + basis.bin_stride;
        copy(frame.background, model, basis.bin_stride);
        add_active(end, basis.n_components, basis.atoms, basis.bin_stride, model, basis.bin_stride);
        if (is_behind_background(frame, basis)) direction.step = model_of_step(frame, basis, end);
        LineSearch search(frame, basis, direction, model + basis.bin_stride);
        const double t = search.run();
        for (Index k = 0; k < basis.n_components; ++k)
            frame.h[k] =
                frame.h[k] == end[k] ? end[k] : smaller((1.0 - t) * frame.h[k] + t * end[k], upper_of(frame, k));
        if (basis.beta > 2.0 && drop_vanishing(frame, basis)) update_model(frame, basis);
        frame.lost_a_whole_model = search.loses_a_model() && t < 0.5;
        // Outside [1, 2] the exact curvature is worth a try once a whole step has succeeded; if a step made no
        // progress, try the other curvature.
        frame.exactness = t == 1.0 ? 1.0 : t < 0.1 ? 1.0 - frame.exactness : 0.0;
        if (t == 0.0) {
            go_one_rung_down(frame);
        } else if (frame.n_iter >= single_precision_steps) {
            frame.rung = Rung::double_precision;
        }
    }

    // Return whether the background is so much larger than the model of the activations that a difference of models
    // would lose digits of it.
    static bool is_behind_background(const Frame& frame, const Basis& basis) {
        constexpr double much_larger = 1e3;  // ad hoc: three of 16 digits
        double background = 0.0, activations = 0.0;
        for (Index f = 0; f < basis.bin_stride; ++f) background += frame.push[f] * frame.background[f];
        if (background == 0.0) return false;
        for (Index k = 0; k < basis.n_components; ++k) activations += frame.h[k] * frame.B[k];
        return background > much_larger * activations;
    }

    // Return what a step changes of the model.
    const double* model_of_step(const Frame& frame, const Basis& basis, const double* end) {
        double *step = bins_.begin() + 3 * basis.bin_stride, *change = components_.begin();  // no longer the gradient
        for (Index k = 0; k < basis.n_components; ++k) change[k] = end[k] - frame.h[k];
        fill(step, basis.bin_stride, 0.0);
        add_active(change, basis.n_components, basis.atoms, basis.bin_stride, step, basis.bin_stride);
        return step;
    }

    // Zero what is on its way to zero without ever arriving: for beta > 2 the slope vanishes with the model. Returns
    // whether anything was.
    static bool drop_vanishing(Frame& frame, const Basis& basis) {
        constexpr double vanishing = 1e-30;  // in units of the frame's scale
        bool dropped = false;
        for (Index k = 0; k < basis.n_components; ++k) {
            if (!(0.0 < frame.h[k] && frame.h[k] < vanishing)) continue;
            frame.h[k] = 0.0;
            dropped = true;
        }
        return dropped;
    }

    static void go_one_rung_down(Frame& frame) {
        frame.rung = frame.rung == Rung::single_precision ? Rung::double_precision : Rung::none_left;
        frame.exactness = 0.0;
    }

    Index n_ = 0;              // atoms in the working set
    double slope_ = 0.0;       // of the objective, from the present point to the target
    double multiplier_ = 0.0;  // of the total, at the present point; the gradient is at this price
    QuadraticProgram program_;
    Buffer<double> components_, bins_, step_, scaled_, product_;
    Buffer<float> scaled_single_;
    Buffer<Index> atoms_;
    Buffer<const void*> rows_;
};

}  // namespace knownmf
