// The loop: from a block of frames to proven answers.
//
// Order of calls for a group of frames that move together:
//
//     load -> start -> multiplicative updates -> [ prices -> certificate -> Newton step ] until each is proven, or no
//     better
//
// Frames of a group share the reading of the basis, and nothing else.
#pragma once

#include "least_squares.hpp"
#include "newton.hpp"
#include "updates.hpp"

namespace knownmf {

// Frames that move together: enough to share the reading of W, few enough to stay in the second-level cache with it.
constexpr Index group_size = 8;

class Solver {
   public:
    // Make room for up to n_frames frames over the bins of the basis.
    [[nodiscard]] bool reserve(const Basis& basis, Index n_frames) {
        n_places_ = smaller(group_size, n_frames);
        const Index per_frame = rows_over_bins * basis.bin_stride,
                    of_components = rows_over_components * basis.component_stride;
        if (!frames_.reserve(n_places_) || !over_bins_.reserve(n_places_ * per_frame) ||
            !over_components_.reserve(n_places_ * of_components) ||
            !allowed_.reserve(n_places_ * basis.component_stride) || !newton_frames_.reserve(n_places_) ||
            !poor_.reserve(n_places_) || !least_squares_frames_.reserve(n_places_) || !stuck_.reserve(n_places_) ||
            !rows_.reserve(2 * n_places_)) {
            return false;
        }
        for (Index i = 0; i < n_places_; ++i) {
            place(frames_[i], over_bins_.begin() + i * per_frame, basis.bin_stride,
                  over_components_.begin() + i * of_components, basis.component_stride,
                  allowed_.begin() + i * basis.component_stride);
        }
        return true;
    }

    Index bytes() const {
        return frames_.bytes() + over_bins_.bytes() + over_components_.bytes() + allowed_.bytes() + updates_.bytes() +
               step_.bytes() + least_squares_.bytes() + newton_frames_.bytes() + poor_.bytes() +
               least_squares_frames_.bytes() + stuck_.bytes() + rows_.bytes();
    }

    // Solve all frames of a dense block. `rounding` is that of the weighted sums of the basis.
    [[nodiscard]] Status solve(const Basis& basis, const Observations& block, const Options& options, double rounding,
                               Answer& answer) {
        if (!reserve(basis, block.n_frames)) return out_of_memory;
        rounding_ = larger(rounding_of_sum(basis.bin_stride), rounding);
        Status status = done;
        const bool has_gram =
            basis.gram != nullptr && block.weights == nullptr && block.l2 == nullptr && options.certify_only == 0;
        for (Index first = 0; first < block.n_frames && status == done;) {
            if (*options.interrupted != 0) return interrupted;
            const Index last = smaller(first + n_places_, block.n_frames);
            load(basis, block, first, last, has_gram, options, answer);
            first = last;
            if (n_least_squares_ > 0) status = solve_least_squares(basis, options, answer);
            if (status != done || n_newton_ == 0) continue;
            if (options.certify_only != 0) {
                certify_group(basis, options, answer);
            } else {
                status = solve_group(basis, block.start != nullptr, options, answer);
            }
        }
        return status;
    }

   private:
    // ---- Loading

    // Load frames, and sort them: those without data are finished at once; those that the Gram matrix serves go to
    // least_squares_frames_, the others to newton_frames_.
    void load(const Basis& basis, const Observations& block, Index first, Index last, bool has_gram,
              const Options& options, Answer& answer) {
        const Index n = last - first;
        Index n_own = 0;
        for (Index i = 0; i < n; ++i) {
            Frame& frame = frames_[i];
            frame.number = first + i;
            set_null_divergence(block, first + i, basis, answer);
            load_bins(frame, block, first + i, basis);
            frame.shares_weights = has_shared_weights(frame, block, basis);
            if (frame.shares_weights) {
                copy(basis.weighted_sums, frame.weighted_sums, basis.n_components);
            } else {
                newton_frames_[n_own++] = &frame;
            }
        }
        price(newton_frames_.begin(), n_own, basis, &Frame::weight, &Frame::weighted_sums);
        n_newton_ = n_least_squares_ = 0;
        for (Index i = 0; i < n; ++i) {
            Frame& frame = frames_[i];
            load_components(frame, block, basis, options.certify_only != 0);
            frame.rounding.products = rounding_;
            frame.rounding.of_differences = false;
            if (!frame.has_data && options.certify_only == 0 && !has_fixed_total(frame)) {
                write_silence(frame, basis, answer);
            } else if (has_gram && frame.shares_weights) {
                least_squares_frames_[n_least_squares_++] = &frame;
            } else {
                newton_frames_[n_newton_++] = &frame;
            }
        }
    }

    static void set_null_divergence(const Observations& block, Index t, const Basis& basis, Answer& answer) {
        const double* weights = row_of(block.weights, t, basis.n_bins, basis.weights);
        const auto weight = [weights](Index f) { return weights[f]; };
        answer.null_divergence[t] =
            null_divergence(block.data + t * basis.n_bins, weight, basis.n_bins, 0.0, basis.beta);
    }

    // Write W' times a row over bins of each of the given frames.
    void price(Frame* const* frames, Index n, const Basis& basis, double* Frame::* source, double* Frame::* out) {
        const double** sources = const_cast<const double**>(rows_.begin());
        double** targets = rows_.begin() + n_places_;
        for (Index i = 0; i < n; ++i) {
            sources[i] = frames[i]->*source;
            targets[i] = frames[i]->*out;
        }
        products_of_rows<double>(sources, n, basis.atoms, basis.n_components, basis.bin_stride, targets);
    }

    // ---- Least squares with one Gram matrix

    [[nodiscard]] Status solve_least_squares(const Basis& basis, const Options& options, Answer& answer) {
        if (!least_squares_.reserve(basis)) return out_of_memory;
        const Index n = n_least_squares_;
        bool with_background = false;
        for (Index i = 0; i < n; ++i) {
            Frame& frame = *least_squares_frames_[i];
            slopes(frame.x, frame.background, frame.weight, 2.0, frame.pull, frame.push, basis.bin_stride);
            with_background |= largest_of(frame.background, basis.bin_stride) > 0.0;
        }
        price(least_squares_frames_.begin(), n, basis, &Frame::pull, &Frame::A);
        if (with_background) price(least_squares_frames_.begin(), n, basis, &Frame::push, &Frame::B);
        for (Index i = 0; i < n; ++i) {
            Frame& frame = *least_squares_frames_[i];
            if (!with_background) fill(frame.B, basis.n_components, 0.0);
            const Status status = least_squares_.solve(frame, basis, options, true);
            if (status != done) return status;
            set_rounding_of_gram(frame, basis, rounding_);
            certify_least_squares(frame, basis);
            // As exact as products of the data can tell; a frame that is not goes on with Newton steps.
            constexpr double exact = 1e-10;
            if (frame.criterion > larger(options.tol, exact)) {
                fill(frame.h, basis.n_components, 0.0);
                frame.n_iter = 0;  // the quadratic program was not a Newton step
                frame.rounding.products = rounding_;
                frame.rounding.of_differences = false;
                newton_frames_[n_newton_++] = &frame;
                continue;
            }
            if (options.round_to_single != 0) {
                least_squares_.round(frame, basis, true);
                certify_least_squares(frame, basis);
            }
            finish(frame, basis, options, answer);
        }
        return done;
    }

    // Certify a frame from the products of its activations; `push` is that of the background.
    void certify_least_squares(Frame& frame, const Basis& basis) {
        const double of_background = dot(frame.background, frame.push, basis.bin_stride);
        const double of_both = dot(frame.h, least_squares_.offset(), basis.n_components);
        frame.sums.model_push = of_background + of_both + dot(frame.h, frame.B, basis.n_components);
        certify(frame, basis);
    }

    // ---- Any activations

    // Certify the activations that the frames came with.
    void certify_group(const Basis& basis, const Options& options, Answer& answer) {
        for (Index i = 0; i < n_newton_; ++i) update_model(*newton_frames_[i], basis);
        update_prices(basis);
        for (Index i = 0; i < n_newton_; ++i) {
            certify(*newton_frames_[i], basis);
            finish(*newton_frames_[i], basis, options, answer);
        }
    }

    // ---- Newton's method

    [[nodiscard]] Status solve_group(const Basis& basis, bool warm, const Options& options, Answer& answer) {
        // At least so many updates before the first Newton step. Ad hoc: 10 to 22 are alike on harmonic spectrograms;
        // of many atoms a few updates find the strongest; a poor start needs no more than a correction.
        const Effort from_cold{basis.n_components > dense_components ? 3 : 14, true};
        if (!updates_.reserve(basis, n_places_) || !step_.reserve(basis)) return out_of_memory;
        for (Index i = 0; i < n_newton_; ++i) start_frame(*newton_frames_[i], basis, warm);
        if (warm) {
            thin_out(basis, options, from_cold);
        } else {
            updates_.run(newton_frames_.begin(), n_newton_, basis, options, from_cold);
        }
        // Updates may raise the objective for a while: they follow a warm start only where any start leads to the same
        // optimum.
        const bool may_be_poor = warm && is_convex(basis.beta) && basis.n_components <= dense_components;
        for (Index round = 0; n_newton_ > 0; ++round) {
            if (*options.interrupted != 0) return interrupted;
            update_prices(basis);
            Index n_staying = 0, n_poor = 0, n_stuck = 0;
            for (Index i = 0; i < n_newton_; ++i) {
                Frame& frame = *newton_frames_[i];
                certify(frame, basis);
                keep_best(frame, basis);
                const Outcome outcome = judge(frame, basis, warm, options);
                if (outcome == Outcome::finished) {
                    finish(frame, basis, options, answer);
                    continue;
                }
                newton_frames_[n_staying++] = &frame;
                if (outcome == Outcome::rounded) continue;
                if (outcome == Outcome::stuck) {
                    stuck_[n_stuck++] = &frame;
                } else if (round == 0 && may_be_poor && frame.criterion > near_optimum) {
                    poor_[n_poor++] = &frame;
                } else {
                    const Status status = step_.run(frame, basis, options);
                    if (status != done) return status;
                }
            }
            n_newton_ = n_staying;
            rescue(n_stuck, basis, options);
            improve_poor(n_poor, basis, options);
        }
        return done;
    }

    // The working set of a Newton step holds all active atoms. A warm start with too many of them goes on like a cold
    // one, where any start leads to the same optimum.
    void thin_out(const Basis& basis, const Options& options, const Effort& effort) {
        if (basis.n_components <= dense_components || !is_convex(basis.beta)) return;
        Index n = 0;
        for (Index i = 0; i < n_newton_; ++i)
            if (n_active(newton_frames_[i]->h, basis.n_components) > dense_components) poor_[n++] = newton_frames_[i];
        if (n > 0) updates_.run(poor_.begin(), n, basis, options, effort);
    }

    // A start that is far off, and zero where it should not be, misleads the quadratic model: add a little of every
    // atom, and take a few updates.
    void improve_poor(Index n, const Basis& basis, const Options& options) {
        constexpr Effort correction{6, true};
        for (Index i = 0; i < n; ++i) spread_start(*poor_[i], basis, share_beside_a_start);
        if (n > 0) updates_.run(poor_.begin(), n, basis, options, correction);
    }

    // The last rung: start anew where no step found a way down, with a little of every atom and many updates, which
    // move each activation by its own ratio, however small it is.
    void rescue(Index n, const Basis& basis, const Options& options) {
        constexpr Effort many_updates{400, false};
        for (Index i = 0; i < n; ++i) {
            spread_start(*stuck_[i], basis, share_of_a_new_start);
            stuck_[i]->was_rescued = true;
            stuck_[i]->rung = Rung::double_precision;
            stuck_[i]->n_roundings = 0;
        }
        if (n > 0) updates_.run(stuck_.begin(), n, basis, options, many_updates);
    }

    // Bring A, B and the sums of the group up to date.
    void update_prices(const Basis& basis) {
        price(newton_frames_.begin(), n_newton_, basis, &Frame::pull, &Frame::A);
        if (basis.beta != 1.0) {
            price(newton_frames_.begin(), n_newton_, basis, &Frame::push, &Frame::B);
        } else {
            for (Index i = 0; i < n_newton_; ++i)
                copy(newton_frames_[i]->weighted_sums, newton_frames_[i]->B, basis.n_components);
        }
        for (Index i = 0; i < n_newton_; ++i) sum_slopes(*newton_frames_[i], basis);
    }

    // Outside of 1 <= beta <= 2 the objective, which falls with every step, decides which activations are the best.
    static void keep_best(Frame& frame, const Basis& basis) {
        if (!is_convex(basis.beta) || !(frame.criterion < frame.best_criterion)) return;
        copy(frame.h, frame.best, basis.n_components);
        frame.best_criterion = frame.criterion;
    }

    enum class Outcome { goes_on, stuck, rounded, finished };

    // Decide what happens to a certified frame. It is finished where it is within the tolerance, where no step finds a
    // way down and it has been started anew already, or where it has had all its steps. It then goes back to the best
    // of its activations: where the objective falls by no more than rounding, the gap may rise. One whose activations
    // are to be in single precision is rounded first and looked at again, as the certificate must be that of the
    // numbers returned.
    Outcome judge(Frame& frame, const Basis& basis, bool warm, const Options& options) {
        // A tolerance below this asks for more digits than a start has, whatever its gap: around the optimum that is
        // flat.
        constexpr double start_tolerance = 1e-6;
        constexpr int most_roundings = 2;
        if (frame.n_roundings == most_roundings) return Outcome::finished;
        const bool may_end = frame.n_iter > 0 || warm || options.tol >= start_tolerance;
        if (!(frame.criterion <= options.tol && may_end)) {
            const bool has_steps = frame.n_iter < options.max_iter && !(frame.is_at_rounding && frame.n_iter > 0);
            if (frame.rung != Rung::none_left && has_steps) return Outcome::goes_on;
            const double reach = larger(options.tol, MultiplicativeUpdates::smallest_gap);
            const bool may_start_anew = is_convex(basis.beta) && !frame.was_rescued && frame.criterion > reach;
            if (frame.rung == Rung::none_left && may_start_anew) return Outcome::stuck;
            if (frame.best_criterion < frame.criterion) {
                copy(frame.best, frame.h, basis.n_components);
                frame.best_criterion = infinity;
                frame.rung = Rung::none_left;
                frame.was_rescued = true;
                update_model(frame, basis);
                return Outcome::rounded;
            }
        }
        if (options.round_to_single == 0 || !round_to_single(frame, basis)) return Outcome::finished;
        ++frame.n_roundings;
        update_model(frame, basis);
        return Outcome::rounded;
    }

    // Write the answer of a frame whose A, B, gap and model are those of its activations.
    void finish(Frame& frame, const Basis& basis, const Options& options, Answer& answer) {
        const double kkt = Certificate(frame, basis).kkt();
        const double divergence = total_divergence(frame.x, frame.model, frame.weight, basis.beta, basis.bin_stride);
        const double objective = frame.constant + divergence + penalties(frame, basis.n_components);
        write_answer(frame, basis, objective, kkt, frame.criterion <= options.tol, answer);
    }

    Index n_places_ = 0, n_newton_ = 0, n_least_squares_ = 0;
    double rounding_ = 0.0;  // of A and B that are products
    Buffer<Frame> frames_;
    Buffer<double> over_bins_, over_components_;
    Buffer<bool> allowed_;
    Buffer<Frame*> newton_frames_, least_squares_frames_, poor_, stuck_;
    Buffer<double*> rows_;
    MultiplicativeUpdates updates_;
    NewtonStep step_;
    LeastSquares least_squares_;
};

}  // namespace knownmf
