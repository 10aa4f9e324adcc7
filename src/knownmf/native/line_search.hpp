// How far to go from a frame's model towards the model of a Newton step's end.
#pragma once

#include "frame.hpp"

namespace knownmf {

// What the search needs to know of the step, in addition to the two models.
struct Direction {
    const double* end;   // the model at the step's end
    const double* step;  // what the activations change of the model; null: the difference of the models is exact enough
    double slope;        // of the objective at its beginning; negative
    double penalty;      // the penalties add penalty + t bend to the slope of the divergence
    double bend;
    double noise;  // of the slope, in addition to the rounding of both models
};

class LineSearch {
   public:
    LineSearch(Frame& frame, const Basis& basis, const Direction& direction, double* trial)
        : frame_(frame), basis_(basis), direction_(direction), trial_(trial), size_(basis.bin_stride) {}

    // Return a t in [0, 1] at which the objective has fallen; model, pull and push of the frame then belong to that t.
    //
    // For 1 <= beta <= 2 the objective is convex along the way: where its slope is not yet positive it has only fallen,
    // and no logarithm is needed. Otherwise Armijo's rule, or the form of it by Hager and Zhang (2005) once the fall is
    // lost in rounding.
    double run() {
        convex_ = is_convex(basis_.beta);
        loses_a_model_ = end_loses_a_model();
        if (!convex_) value_ = model_costs(frame_.model, &value_noise_);
        constexpr int most_trials = 60;
        for (int trial = 0; trial < most_trials; ++trial) {
            evaluate(t_);
            if (convex_ ? accepts_convex() : accepts_armijo()) {
                copy(trial_, frame_.model, size_);
                return t_;
            }
            narrow();
        }
        evaluate(low_);
        copy(trial_, frame_.model, size_);
        return low_;
    }

    // Whether the end leaves a bin with data next to no model: it is then out of reach.
    bool loses_a_model() const { return loses_a_model_; }

   private:
    bool end_loses_a_model() const {
        constexpr double hardly_any = 1e-3;  // of the present model, ad hoc
        bool loses = false;
        for (Index f = 0; f < size_; ++f) {
            loses |= (frame_.weight[f] * frame_.x[f] > 0.0) & (direction_.end[f] < hardly_any * frame_.model[f]) &
                     (direction_.end[f] < frame_.x[f]);
        }
        return loses;
    }

    // Move the trial to t, with its slopes. (1 - t) v + t end loses no digit of a small model.
    void evaluate(double t) {
        const double *RESTRICT model = frame_.model, *RESTRICT end = direction_.end;
        double* RESTRICT trial = trial_;
        for (Index f = 0; f < size_; ++f) trial[f] = (1.0 - t) * model[f] + t * end[f];
        slopes(frame_.x, trial_, frame_.weight, basis_.beta, frame_.pull, frame_.push, size_);
        slope_ = slope_along(&rounding_) + direction_.penalty + t * direction_.bend;
        rounding_ += direction_.noise;
    }

    // Return the derivative of the divergence along the step at the trial, and how much of it may be rounding: both
    // models carry rounding of their own size, which residuals that do not cancel turn into slope.
    double slope_along(double* rounding) const {
        return direction_.step != nullptr ? along_step(rounding) : along_models(rounding);
    }

    double along_step(double* rounding) const {
        const double *RESTRICT step = direction_.step, *RESTRICT pull = frame_.pull, *RESTRICT push = frame_.push;
        double total = 0.0, scale = 0.0;
        VECTORIZED_SUM(total, scale)
        for (Index f = 0; f < size_; ++f) {
            total += (push[f] - pull[f]) * step[f];
            scale += (push[f] + pull[f]) * std::fabs(step[f]);
        }
        *rounding = of_both_models * scale;
        return total;
    }

    double along_models(double* rounding) const {
        const double *RESTRICT model = frame_.model, *RESTRICT end = direction_.end, *RESTRICT pull = frame_.pull,
                               *RESTRICT push = frame_.push;
        double total = 0.0, scale = 0.0;
        VECTORIZED_SUM(total, scale)
        for (Index f = 0; f < size_; ++f) {
            const double slope = push[f] - pull[f];
            total += slope * (end[f] - model[f]);
            scale += std::fabs(slope) * (end[f] + model[f]);
        }
        *rounding = of_both_models * scale;
        return total;
    }

    // Return what of the divergence depends on the model, and how much of that may be rounding.
    double model_costs(const double* model, double* noise) const {
        double total = 0.0, scale = 0.0;
        for (Index f = 0; f < size_; ++f) {
            if (!(frame_.weight[f] > 0.0)) continue;
            const double cost = frame_.weight[f] * model_cost(frame_.x[f], model[f], basis_.beta);
            total += cost;
            scale += std::fabs(cost);
        }
        constexpr double of_a_cost = 1e-15;  // a few roundings
        *noise = of_a_cost * scale;
        return total;
    }

    bool accepts_convex() {
        constexpr double enough = 0.3;  // of the first slope may be left before the end
        if (slope_ <= rounding_) return t_ == 1.0 || slope_ >= enough * direction_.slope;
        if (t_ < 1.0 || slope_ > -enough * direction_.slope) return false;
        // A little past the lowest point. As the slope only rises, the one halfway tells whether the whole step falls.
        const double slope_at_end = slope_;
        evaluate(0.5);
        const bool falls = slope_ + slope_at_end <= 0.0;
        evaluate(1.0);
        return falls;
    }

    bool accepts_armijo() {
        // The usual values: the share of the first slope by which the objective must fall, and the share of it that
        // may be left at the end.
        constexpr double least_fall = 1e-4, steepest_end = 0.9;
        double noise;
        const double fall =
            model_costs(trial_, &noise) - value_ + t_ * direction_.penalty + 0.5 * t_ * t_ * direction_.bend;
        const bool flat =
            std::fabs(fall) <= value_noise_ && slope_ <= steepest_end * std::fabs(direction_.slope) + rounding_;
        return fall <= least_fall * t_ * direction_.slope || flat;
    }

    // Choose the next t between the largest that is too short and the smallest that is too long.
    void narrow() {
        if (convex_ && slope_ <= 0.0) {
            low_ = t_;
            slope_low_ = slope_;
            in_a_row_ = smaller(in_a_row_, 0) - 1;
        } else {
            high_ = t_;
            slope_high_ = slope_;
            in_a_row_ = larger(in_a_row_, 0) + 1;
        }
        double share = 0.5;
        if (0.0 < slope_high_ && slope_high_ < infinity) share = slope_low_ / (slope_low_ - slope_high_);
        constexpr double least = 0.1, most = 0.9;  // of the bracket, so that it shrinks
        share = smaller(larger(share, least), most);
        // Where three trials in a row ended on the same side, move towards the other, which may be many orders of
        // magnitude away.
        constexpr int most_in_a_row = 2;
        if (in_a_row_ < -most_in_a_row) share = most;
        if (in_a_row_ > most_in_a_row) share = std::pow(least, std::pow(2.0, in_a_row_ - most_in_a_row - 1));
        // An end at which a bin with data has lost its whole model says nothing about the points before it.
        constexpr double just_before = 0.99;
        t_ = t_ == 1.0 && loses_a_model_ ? just_before : low_ + share * (high_ - low_);
    }

    static constexpr double of_both_models = 4e-16;  // the rounding of two models, 2e-16 each

    Frame& frame_;
    const Basis& basis_;
    Direction direction_;
    double* trial_;
    Index size_;

    bool convex_ = false, loses_a_model_ = false;
    double value_ = 0.0, value_noise_ = 0.0;
    double t_ = 1.0, slope_ = 0.0, rounding_ = 0.0;
    double low_ = 0.0, high_ = 1.0, slope_low_ = direction_.slope, slope_high_ = infinity;
    int in_a_row_ = 0;  // trials since the other end of the bracket moved; negative for the lower end
};

}  // namespace knownmf
