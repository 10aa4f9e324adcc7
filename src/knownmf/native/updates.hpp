// Multiplicative updates of a group of frames, in single precision [C. Fevotte and J. Idier, Neural Computation 23(9),
// 2011].
//
// They bring a start near the optimum before Newton steps finish the work, and do all of it where they are cheaper:
// with many active atoms, or where the tolerance is loose. A Newton step costs much more than an update, so each check
// asks whether the updates that are left would cost more than the Newton steps instead of them.
#pragma once

#include "multiplicative.hpp"
#include "start.hpp"

namespace knownmf {

// Estimates what is left to do, in multiply-adds of single precision, which is the cheapest operation of all.
struct Costs {
    // Measured on one x86-64-v4 core, relative to such a multiply-add; ad hoc, as a factor of 1.5 in any of them
    // changes the time of no benchmark by more than a few percent.
    static constexpr double factorization = 6.0;       // of a multiply-add in a Cholesky factorization or a sweep
    static constexpr double bin_of_step = 60.0;        // of a bin in a Newton step, beyond its products
    static constexpr double element_of_update = 12.0;  // of a bin or component in an update, beyond its products

    static double update(const Basis& basis) {
        const double n_products = basis.beta == 1.0 ? 2.0 : 3.0;
        const double bins = static_cast<double>(basis.bin_stride),
                     components = static_cast<double>(basis.component_stride);
        const double size = bins * components;
        return n_products * size + element_of_update * (bins + components);
    }

    // Of one Newton step over n atoms.
    static double newton_step(const Basis& basis, Index n_atoms) {
        const double bins = static_cast<double>(basis.bin_stride), components = static_cast<double>(basis.n_components);
        const double n = static_cast<double>(n_atoms);
        const double curvature = 0.5 * n * n * bins, prices = 4.0 * bins * components;
        constexpr double n_factorizations = 3.0, n_sweeps = 10.0;
        const double program = factorization * (n_factorizations * n * n * n / 6.0 + n_sweeps * n * n);
        return curvature + prices + program + bin_of_step * bins;
    }
};

// One frame of the group, in single precision.
struct SingleFrame {
    Frame* frame;
    float *x, *weight, *background, *pull, *push, *model;
    float *h, *begun, *ended, *A, *B, *l1, *l2;
    double earlier_gap, last_gap;  // at the last but one check, at the last
    Index n_left;                  // updates until the frame leaves, unless a check adds some
    Index n_extrapolated;          // updates in a row that were extrapolated
    double multiplier;             // of the total, where A and l1 are without it
    bool seems_done;               // its gap is within the tolerance, as far as single precision can tell
};

// How many updates to take, unless the tolerance is met before.
struct Effort {
    Index n_updates;
    bool adaptive;  // whether the number may become smaller or larger, by estimates of what costs less
};

class MultiplicativeUpdates {
   public:
    [[nodiscard]] bool reserve(const Basis& basis, Index n_frames) {
        bins_ = basis.bin_stride;
        components_ = basis.component_stride;
        return numbers_.reserve(n_frames * (6 * bins_ + 7 * components_)) && frames_.reserve(n_frames) &&
               updating_.reserve(n_frames) && rows_.reserve(2 * n_frames) && scratch_.reserve(components_) &&
               chosen_.reserve(components_);
    }

    Index bytes() const {
        return numbers_.bytes() + frames_.bytes() + updating_.bytes() + rows_.bytes() + scratch_.bytes() +
               chosen_.bytes();
    }

    // Improve the starts of n frames, whose model and slopes are up to date. Afterwards the frames have new
    // activations, model and slopes.
    void run(Frame* const* frames, Index n, const Basis& basis, const Options& options, const Effort& effort) {
        // With few components a check takes half as long as an update, with many components much less.
        interval_ = basis.n_components > dense_components ? 2 : 4;
        adaptive_ = effort.adaptive;
        load(frames, n, effort.n_updates);
        const bool convex = is_convex(basis.beta);
        // With an L2 penalty, a smaller one would be sure to lower the objective, but slower. The next step checks it.
        const float power = static_cast<float>(safe_power(basis.beta, false));
        Index n_updating = n;
        for (Index i = 0; i < n; ++i) updating_[i] = &frames_[i];
        for (Index update = 0; n_updating > 0 && *options.interrupted == 0; ++update) {
            compute_slopes(n_updating, basis);
            if (convex && update % interval_ == 1) n_updating = check(n_updating, update, basis, options);
            for (Index i = 0; i < n_updating; ++i) {
                SingleFrame& s = *updating_[i];
                if (s.multiplier != 0.0) move_multiplier(s, basis);
                copy(s.h, s.begun, components_);
                multiply(s.h, s.A, s.B, s.l1, s.l2, power, components_);
                --s.n_left;
                if (s.n_left > 0 && update > 0) {
                    extrapolate_by_roots(s.h, s.begun, s.ended, s.n_extrapolated++, components_);
                } else {
                    copy(s.h, s.ended, components_);
                }
                if (is_limited(*s.frame)) bring_within_limits(s, basis);
            }
            update_models(n_updating, basis);
            n_updating = leave(n_updating);
        }
        for (Index i = 0; i < n; ++i) finish(frames_[i], basis, options);
    }

    // Below this, rounding in single precision hides the gap.
    static constexpr double smallest_gap = 1e-5;

   private:
    void load(Frame* const* frames, Index n, Index n_updates) {
        float* next = numbers_.begin();
        const auto take = [&next](Index size) {
            float* row = next;
            next += size;
            return row;
        };
        for (Index i = 0; i < n; ++i) {
            Frame& frame = *frames[i];
            SingleFrame& s = frames_[i];
            s.frame = &frame;
            for (float** row : {&s.x, &s.weight, &s.background, &s.pull, &s.push, &s.model}) *row = take(bins_);
            for (float** row : {&s.h, &s.begun, &s.ended, &s.A, &s.B, &s.l1, &s.l2}) *row = take(components_);
            convert(frame.x, s.x, bins_);
            convert(frame.weight, s.weight, bins_);
            convert(frame.background, s.background, bins_);
            convert(frame.pull, s.pull, bins_);
            convert(frame.push, s.push, bins_);
            convert(frame.h, s.h, components_);
            convert(frame.weighted_sums, s.B, components_);
            convert(frame.l1, s.l1, components_);
            convert(frame.l2, s.l2, components_);
            s.earlier_gap = s.last_gap = infinity;
            s.n_left = n_updates;
            s.n_extrapolated = 0;
            s.multiplier = 0.0;
            s.seems_done = false;
        }
    }

    // Write A, B where it depends on the model, and the multiplier of a total.
    void compute_slopes(Index n, const Basis& basis) {
        product(n, basis, &SingleFrame::pull, &SingleFrame::A);
        if (basis.beta != 1.0) product(n, basis, &SingleFrame::push, &SingleFrame::B);
        for (Index i = 0; i < n; ++i) {
            SingleFrame& s = *updating_[i];
            if (!has_total(*s.frame)) continue;
            convert(s.frame->l1, s.l1, components_);
            convert(s.h, s.frame->h, components_);
            s.multiplier = multiplier_of(*s.frame, basis, [&s](Index k) {
                const double h = s.h[k], penalty = s.frame->l1[k] + s.frame->l2[k] * h;
                return s.B[k] + penalty - s.A[k];
            });
        }
    }

    // Add the multiplier of a total to the half of the slope that it belongs to, so that an update sees it.
    static void move_multiplier(SingleFrame& s, const Basis& basis) {
        for (Index k = 0; k < basis.n_components; ++k) {
            const double price = s.multiplier * basis.units[k];
            (price > 0.0 ? s.l1 : s.A)[k] += static_cast<float>(std::fabs(price));
        }
        s.multiplier = 0.0;
    }

    // Bring the activations below their bounds and their sum to the total; Newton steps begin where both hold exactly.
    static void bring_within_limits(SingleFrame& s, const Basis& basis) {
        const Frame& frame = *s.frame;
        double sum = 0.0;
        for (Index k = 0; k < basis.n_components; ++k) {
            if (frame.has_upper) s.h[k] = static_cast<float>(smaller<double>(s.h[k], frame.upper[k]));
            sum += basis.units[k] * s.h[k];
        }
        if (!has_total(frame) || !(sum > frame.total || (sum > 0.0 && !frame.total_is_most))) return;
        const double factor = frame.total / sum;
        for (Index k = 0; k < basis.n_components; ++k) s.h[k] = static_cast<float>(s.h[k] * factor);
    }

    void product(Index n, const Basis& basis, float* SingleFrame::* half, float* SingleFrame::* out) {
        const float** rows = const_cast<const float**>(rows_.begin());
        float** targets = rows_.begin() + n;
        for (Index i = 0; i < n; ++i) {
            rows[i] = updating_[i]->*half;
            targets[i] = updating_[i]->*out;
            fill(targets[i], components_, 0.0f);
        }
        combine_rows<float>(rows, n, basis.n_bins, basis.bins_single, components_, components_, targets);
    }

    void update_models(Index n, const Basis& basis) {
        const float** rows = const_cast<const float**>(rows_.begin());
        float** targets = rows_.begin() + n;
        for (Index i = 0; i < n; ++i) {
            rows[i] = updating_[i]->h;
            targets[i] = updating_[i]->model;
            copy(updating_[i]->background, targets[i], bins_);
        }
        combine_rows<float>(rows, n, basis.n_components, basis.atoms_single, bins_, bins_, targets);
        for (Index i = 0; i < n; ++i) {
            const SingleFrame& s = *updating_[i];
            slopes<float>(s.x, s.model, s.weight, basis.beta, s.pull, s.push, bins_);
        }
    }

    // Look at the gaps. Frames that are within the tolerance leave as they are. Returns how many stay.
    Index check(Index n, Index n_done, const Basis& basis, const Options& options) {
        Index n_staying = 0;
        for (Index i = 0; i < n; ++i) {
            SingleFrame& s = *updating_[i];
            const double gap = larger(estimate_gap(s, basis), smallest_gap);
            // The estimate is rounded: leave where it has a little to spare.
            s.seems_done = gap <= 0.9 * options.tol;
            if (s.seems_done || gap == smallest_gap) continue;
            if (adaptive_ && is_for_newton(s, basis)) continue;
            const bool decides = adaptive_ && s.n_left <= interval_;
            if (decides && are_worth_while(s, gap, n_done, basis, options)) s.n_left += interval_;
            constexpr double too_bold = 1.5;  // ad hoc: gaps rise a little now and then
            if (gap > too_bold * s.last_gap) s.n_extrapolated = 0;
            s.earlier_gap = s.last_gap;
            s.last_gap = gap;
            updating_[n_staying++] = &s;
        }
        return n_staying;
    }

    double estimate_gap(const SingleFrame& s, const Basis& basis) {
        Frame& frame = *s.frame;
        convert(s.h, frame.h, components_);
        convert(s.A, frame.A, components_);
        convert(s.B, frame.B, components_);
        convert(s.pull, frame.pull, bins_);
        convert(s.push, frame.push, bins_);
        convert(s.model, frame.model, bins_);
        sum_slopes(frame, basis);
        certify(frame, basis);
        return frame.criterion;
    }

    // Return whether more updates cost less than the Newton steps that they save. Newton's method doubles the digits of
    // the gap with every step, so that n = 1 + log2(log tol / log gap) steps are left; updates add digits at a rate of
    // their own.
    bool are_worth_while(const SingleFrame& s, double gap, Index n_done, const Basis& basis,
                         const Options& options) const {
        const double update = Costs::update(basis), step = Costs::newton_step(basis, n_moving(s, basis));
        // As long as all updates together have cost less than one step, there is little to lose. With more than half as
        // many active atoms as bins the quadratic model hardly has a minimum: Newton's method then takes some ten
        // steps.
        const bool is_singular = 2 * n_moving(s, basis) > basis.n_bins;
        const double n_steps_at_least = is_singular ? 10.0 : 1.0;
        if (static_cast<double>(n_done) * update < n_steps_at_least * step) return true;
        if (!(gap < s.earlier_gap && s.earlier_gap < infinity)) return false;
        constexpr double poor = 0.5;      // from such a gap on Newton's method doubles digits
        constexpr double momentum = 2.0;  // updates get faster as they gather momentum
        const double digits = std::log(1.0 / smaller(gap, poor));
        const double rate = std::log(s.earlier_gap / gap) / static_cast<double>(2 * interval_);
        if (momentum * step * rate > update * std::log(2.0) * digits) return true;
        const double n_steps = 1.0 + std::log2(larger(1.0, std::log(1.0 / options.tol) / digits));
        const double n_updates = std::log(gap / options.tol) / rate;
        return options.tol >= smallest_gap && n_updates * update < n_steps * step;
    }

    // Return how many activations a Newton step would have to move.
    static Index n_moving(const SingleFrame& s, const Basis& basis) {
        const double limit = weak * total(s, basis);
        Index n = 0;
        for (Index k = 0; k < basis.n_components; ++k)
            n += s.h[k] > 0.0f && (s.h[k] * s.B[k] >= limit || !is_falling(s, k, basis));
        return n;
    }

    // Return whether a few of many atoms will be active, which Newton steps over a growing working set find soonest.
    static bool is_for_newton(const SingleFrame& s, const Basis& basis) {
        // Ad hoc, from exemplar dictionaries: 7 steps over some 96 atoms, or 40 updates, to a gap of a few percent.
        constexpr double n_steps = 7.0, n_updates = 40.0;
        constexpr Index n_atoms = 96;
        if (basis.n_components <= dense_components || n_steady(s, basis) > basis.n_components / 2) return false;
        return n_steps * Costs::newton_step(basis, n_atoms) < n_updates * Costs::update(basis);
    }

    // Return how many activations are not falling: about as many will be active at the optimum.
    static Index n_steady(const SingleFrame& s, const Basis& basis) {
        Index n = 0;
        for (Index k = 0; k < basis.n_components; ++k) n += s.frame->allowed[k] && !is_falling(s, k, basis);
        return n;
    }

    // Let frames leave that had their updates. Returns how many stay.
    Index leave(Index n) {
        Index n_staying = 0;
        for (Index i = 0; i < n; ++i)
            if (updating_[i]->n_left > 0) updating_[n_staying++] = updating_[i];
        return n_staying;
    }

    // Hand a frame back in double precision. One that seems proven loses the activations that are on their way to zero,
    // if no bin notices. One that is not goes on with Newton steps, without the activations that are left weak, if no
    // bin loses its model by that.
    void finish(const SingleFrame& s, const Basis& basis, const Options& options) {
        Frame& frame = *s.frame;
        convert(s.h, frame.h, components_);
        if (s.seems_done) {
            // How much the model of a bin may change: so little of the tolerance that the proof stays; more if nothing
            // is left whose price could become a profit.
            constexpr double of_tolerance = 0.05, of_background = 0.04;
            drop_falling(s, basis, infinity);
            make_feasible(frame, basis);
            update_model(frame, basis);
            const bool all_fall = n_steady(s, basis) == 0;
            if (changes_little(s, basis, all_fall ? of_background : of_tolerance * options.tol)) return;
            constexpr double negligible = 1e-15;  // as a share of the frame's data
            convert(s.h, frame.h, components_);
            drop_falling(s, basis, negligible * frame.sums.data);
            make_feasible(frame, basis);
            update_model(frame, basis);
            return;
        }
        drop_falling(s, basis, weak * total(s, basis));
        if (n_active(frame.h, basis.n_components) > dense_components) {
            keep_strongest(frame, basis, scratch_.begin(), chosen_.begin());
            if (!is_limited(frame)) return;
            make_feasible(frame, basis);
            update_model(frame, basis);
            return;
        }
        make_feasible(frame, basis);
        update_model(frame, basis);
        if (!lacks_model(frame, basis)) return;
        convert(s.h, frame.h, components_);
        make_feasible(frame, basis);
        update_model(frame, basis);
    }

    // What counts for a smaller share of a frame than this, and is falling, will be zero. Ad hoc: shares of 3e-4 to
    // 3e-3 and ratios of .9 to .98 make no difference.
    static constexpr double weak = 1e-3, falling = 0.95;

    static bool is_falling(const SingleFrame& s, Index k, const Basis& basis) {
        const double price = s.multiplier * basis.units[k];
        return s.A[k] - smaller(price, 0.0) < falling * (s.B[k] + s.l1[k] + larger(price, 0.0));
    }

    static double total(const SingleFrame& s, const Basis& basis) {
        double sum = 0.0;
        for (Index k = 0; k < basis.n_components; ++k) sum += s.h[k] * s.B[k];
        return sum;
    }

    // Zero the activations that count for less than `limit` and are falling.
    static void drop_falling(const SingleFrame& s, const Basis& basis, double limit) {
        for (Index k = 0; k < basis.n_components; ++k)
            if (s.h[k] * s.B[k] < limit && is_falling(s, k, basis)) s.frame->h[k] = 0.0;
    }

    // Return whether no bin that counts has a model that fell by more than a share.
    static bool changes_little(const SingleFrame& s, const Basis& basis, double share) {
        const Frame& frame = *s.frame;
        const double rounding = std::numeric_limits<float>::epsilon(), most = 1.0 + share + rounding;
        bool changes = false;
        for (Index f = 0; f < basis.bin_stride; ++f)
            changes |= (frame.weight[f] > 0.0) & (s.model[f] > most * frame.model[f]);
        return !changes;
    }

    static bool lacks_model(const Frame& frame, const Basis& basis) {
        constexpr double least_model = 1e-3;  // ad hoc, as a share of the data
        bool lacks = false;
        for (Index f = 0; f < basis.bin_stride; ++f)
            lacks |= (frame.weight[f] > 0.0) & (frame.model[f] < least_model * frame.x[f]);
        return lacks;
    }

    Index bins_ = 0, components_ = 0, interval_ = 0;
    bool adaptive_ = true;
    Buffer<float> numbers_;
    Buffer<SingleFrame> frames_;
    Buffer<SingleFrame*> updating_;
    Buffer<float*> rows_;
    Buffer<double> scratch_;
    Buffer<Index> chosen_;
};

}  // namespace knownmf
