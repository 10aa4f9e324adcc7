// The proof that comes with every answer: the duality gap of a frame, and its KKT residual.
//
// For 1 <= beta <= 2 the problem of a frame is convex, and because W is not negative the model times a number c gives a
// feasible point of the dual that needs nothing beyond A and B. Any feasible point bounds the distance to the optimum,
// P(h) - min P <= gap, however h was found. docs/solver.md derives the formulas.
#pragma once

#include <initializer_list>

#include "frame.hpp"

namespace knownmf {

// The components for which a dual point has to be feasible. A component with an L2 penalty may violate feasibility at
// the cost excess^2 / (2 l2). If l2 is tiny, rounding makes this cost large, so that the point that is feasible for all
// components is tried too.
enum class Feasible { where_without_l2, everywhere };

class Certificate {
   public:
    Certificate(const Frame& frame, Index n_components, double beta)
        : frame_(frame), n_(n_components), beta_(beta), of_differences_(frame.rounding.of_differences ? 1.0 : 0.0) {}

    // Return a bound on P(h) - min P that holds for the numbers as they are, rounding included; NaN outside
    // 1 <= beta <= 2.
    double gap() {
        if (!is_convex(beta_)) return not_a_number;
        double best = infinity;
        has_l2_ = has_l2();
        for (const Feasible feasible : {Feasible::where_without_l2, Feasible::everywhere}) {
            feasible_ = feasible;
            const double least = least_feasible_scale();
            if (0.0 < least && least < infinity) keep_smaller(best, gap_of_scaled_model(least));
            if (least < 1.0) keep_smaller(best, gap_of_scaled_model(1.0));
            if (beta_ == 2.0 && best > rounding_of_best_) {
                keep_smaller(best, gap_of_shifted_residual(frame_.A, frame_.sums.energy));
                keep_smaller(best, gap_of_shifted_residual(frame_.B, frame_.sums.model_push));
                keep_smaller(best, gap_of_shifted_residual(frame_.weighted_sums, frame_.sums.weight));
            }
            if (!has_l2_) break;
        }
        return best;
    }

    // After gap(): about how much of it rounding may cause. A gap of that size cannot become smaller.
    double rounding_of_gap() const { return rounding_of_best_; }

    // Return how far the frame is from the Karush-Kuhn-Tucker conditions, free of every scale:
    //
    //     max_k |min(share_k, gradient_k / (B_k + l1_k))|,    share_k = h_k (B_k + l1_k) / max_j h_j (B_j + l1_j)
    double kkt() const {
        double largest = 0.0, worst = 0.0;
        for (Index k = 0; k < n_; ++k) largest = larger(largest, frame_.h[k] * (frame_.B[k] + frame_.l1[k]));
        for (Index k = 0; k < n_; ++k) {
            if (!frame_.allowed[k]) continue;
            const double scale = frame_.B[k] + frame_.l1[k], h = frame_.h[k];
            const double gradient = scale - frame_.A[k] + frame_.l2[k] * h;
            if (scale > 0.0) {
                const double share = largest > 0.0 ? h * scale / largest : 0.0;
                const double slope = gradient / scale;
                const double residual = std::fabs(slope < share ? slope : share);
                if (slope != slope || !(residual < infinity)) return infinity;
                worst = larger(worst, residual);
            } else if (!(gradient >= 0.0)) {
                return infinity;
            }
        }
        return worst;
    }

   private:
    void keep_smaller(double& best, double gap) {
        if (!(gap < best)) return;
        best = gap;
        rounding_of_best_ = rounding_;
    }

    bool has_l2() const {
        for (Index k = 0; k < n_; ++k)
            if (frame_.l2[k] > 0.0) return true;
        return false;
    }

    bool must_be_feasible(Index k) const {
        return frame_.allowed[k] && (frame_.l2[k] == 0.0 || feasible_ == Feasible::everywhere);
    }

    // Whether component k pays for its excess instead.
    bool pays(Index k) const { return frame_.allowed[k] && !must_be_feasible(k); }

    // ---- Bounds of what rounding may have changed. Sums of numbers that are not negative have small relative errors.

    // Return what the absolute error of B_k is relative to.
    double terms_of_push(Index k) const {
        return frame_.B[k] + of_differences_ * (frame_.A[k] + frame_.l1[k] + frame_.l2[k] * frame_.h[k]);
    }

    double least(double sum) const { return sum - frame_.rounding.products * sum; }
    double most(double sum) const { return sum + frame_.rounding.products * sum; }
    double least_push(Index k) const { return frame_.B[k] - frame_.rounding.products * terms_of_push(k); }

    // ---- The model times a number

    // Return the least c >= 0 with c^(beta-2) A_k - c^(beta-1) B_k <= l1_k for every k that must be feasible.
    double least_feasible_scale() const {
        double scale = 0.0;
        for (Index k = 0; k < n_; ++k) {
            if (!must_be_feasible(k) || frame_.A[k] == 0.0) continue;
            const double A = most(frame_.A[k]), l1 = least(frame_.l1[k]), B = larger(least_push(k), 0.0);
            if (A == infinity || (B == 0.0 && (l1 == 0.0 || beta_ == 2.0) && A > l1)) return infinity;
            if (l1 == 0.0) {
                scale = larger(scale, A / B);
            } else if (beta_ == 1.0) {
                scale = larger(scale, A / (B + l1));
            } else if (beta_ == 2.0) {
                scale = larger(scale, A > l1 ? (A - l1) / B : 0.0);
            } else {
                scale = root_between(A, B, l1, scale);
            }
        }
        constexpr double of_the_quotient = 8.0 * unit_roundoff;
        return scale + of_the_quotient * scale;
    }

    // Return the least c >= `scale` with A - c B - l1 c^(2-beta) <= 0, a convex function that falls: Newton's method
    // from the left never passes its root. Infinity where the root is too many orders of magnitude away.
    double root_between(double A, double B, double l1, double scale) const {
        constexpr int most_steps = 50;
        constexpr double end = 8.0 * unit_roundoff;
        A += end * A;  // what the end leaves
        double c = scale;
        for (int i = 0; i < most_steps; ++i) {
            const double excess = A - c * B - l1 * std::pow(c, 2.0 - beta_);
            if (excess <= end * A) return c;
            const double bend = c > 0.0 ? l1 * (2.0 - beta_) * std::pow(c, 1.0 - beta_) : infinity;
            c = c > 0.0 ? c + excess / (B + bend) : 1e-3 * A / (B + l1);
        }
        return infinity;
    }

    // Return the gap of the dual point that the model times c gives:
    //
    //     sum_k h_k (l1_k + l2_k h_k / 2 + c^(beta-1) B_k - c^(beta-2) A_k) + sum over k that pay of excess_k^2 / (2
    //     l2_k) + (beta-1) bend(c, beta-2) sum weight v^beta + (2-beta) bend(c, beta-3) sum weight x v^(beta-1)
    double gap_of_scaled_model(double c) {
        const BinSums& sums = frame_.sums;
        const double inner = beta_ == 1.0 ? 1.0 : beta_ == 2.0 ? c : std::pow(c, beta_ - 1.0), outer = inner / c;
        const double *RESTRICT hs = frame_.h, *RESTRICT As = frame_.A, *RESTRICT Bs = frame_.B;
        const double *RESTRICT l1s = frame_.l1, *RESTRICT l2s = frame_.l2;
        const double of_differences = of_differences_ * inner;
        double slope = 0.0, terms = 0.0;
        VECTORIZED_SUM(slope, terms)
        for (Index k = 0; k < n_; ++k) {
            const double h = hs[k], pulled = outer * As[k], pushed = inner * Bs[k];
            const double penalty = l1s[k] + 0.5 * l2s[k] * h;
            slope += h * (penalty + pushed - pulled);
            terms += h * (penalty + pushed + pulled + of_differences * (As[k] + l1s[k] + l2s[k] * h));
        }
        const double push = beta_ - 1.0, pull = 2.0 - beta_;
        double gap = slope + (has_l2_ ? paid_for(outer, inner, nullptr, 0.0) : 0.0);
        if (push > 0.0) gap += most(push * bend(c, beta_ - 2.0) * (sums.model_push + sums.floor_push));
        if (pull > 0.0) gap += most(pull * bend(c, beta_ - 3.0) * (sums.model_pull + sums.floor_pull));
        if (sums.floor_push + sums.floor_pull > 0.0) gap += most(gap_of_floors(c, inner));
        // At a model that is rounded the tangent is that of a point nearby: its distance counts squared, and times that
        // of the dual point.
        constexpr double of_powers = 4.0 * unit_roundoff;
        const double nearby = terms > 0.0 ? frame_.rounding.model : 0.0;  // a background alone is not rounded
        double rounding = rounding_of_slope() * terms;
        if (push > 0.0) rounding += nearby * sums.model_push * (push * nearby + std::fabs(inner - 1.0) + of_powers);
        if (pull > 0.0) rounding += nearby * sums.model_pull * (pull * nearby + std::fabs(outer - 1.0) + of_powers);
        rounding_ = rounding + of_feasibility * rounding_of_slope() * terms;
        return gap + rounding;
    }

    // Return what the components that pay add: the sum of excess_k^2 / (2 l2_k).
    double paid_for(double outer, double inner, const double* direction, double shift) const {
        double paid = 0.0;
        for (Index k = 0; k < n_; ++k) {
            if (!pays(k)) continue;
            const double shifted = direction != nullptr ? shift * least_along(direction, k) : 0.0;
            const double excess = outer * most(frame_.A[k]) - inner * least_push(k) - least(frame_.l1[k]) - shifted;
            if (excess > 0.0) paid += 0.5 * excess * excess / frame_.l2[k];
        }
        return most(paid);
    }

    // Return what the bins add whose slopes are those of a floor above their model.
    double gap_of_floors(double c, double inner) const {
        if (beta_ == 1.0) return frame_.sums.floor_pull > 0.0 ? infinity : 0.0;
        const double of_push = frame_.sums.floor_push * (1.0 - 1.0 / beta_) * inner * c;
        return of_push + frame_.sums.floor_pull * (2.0 - beta_) / (beta_ - 1.0) * inner;
    }

    // Return a bound on the error of the sum over components, relative to the sum of its absolute terms.
    double rounding_of_slope() const {
        constexpr Index of_a_term = 8;
        return frame_.rounding.products + unit_roundoff * static_cast<double>(n_ + of_a_term);
    }

    // Return the integral of s^power (s - 1) from 1 to c, which is not negative, rounded up.
    static double bend(double c, double power) {
        constexpr double near = 0.05;  // where the series takes over: the formula would lose three digits
        constexpr int n_terms = 12;    // near^12 is below the rounding; unrolled, the quotients are constants
        constexpr double rounding = 16.0 * unit_roundoff;
        const double step = c - 1.0;
        if (std::fabs(step) < near) {
            double factor = 1.0, sum = 0.5;
            for (int n = 1; n < n_terms; ++n) {
                factor *= step * (power - (n - 1)) * (1.0 / n);
                sum += factor * (1.0 / (n + 2));
            }
            return (1.0 + rounding) * step * step * sum;
        }
        const double upper = integral(c, power + 1.0), lower = integral(c, power);
        return upper - lower + rounding * (std::fabs(upper) + std::fabs(lower));
    }

    // Return the integral of s^power from 1 to c.
    static double integral(double c, double power) {
        const double exponent = power + 1.0;
        return exponent == 0.0 ? std::log(c) : std::expm1(exponent * std::log(c)) / exponent;
    }

    // ---- Least squares has more dual points: weight (x - v - shift d) for any direction d >= 0: the data, the model
    // and ones are tried.

    // Return the gap of such a point, from W' (weight d) and sum of weight d^2.
    double gap_of_shifted_residual(const double* direction, double energy) {
        double shift = 0.0;
        for (Index k = 0; k < n_; ++k) {
            const double excess = most(frame_.A[k]) - least_push(k) - least(frame_.l1[k]);
            if (!must_be_feasible(k) || !(excess > 0.0)) continue;
            if (least_along(direction, k) <= 0.0) return infinity;
            shift = larger(shift, excess / least_along(direction, k));
        }
        shift = most(shift);
        const double *RESTRICT hs = frame_.h, *RESTRICT As = frame_.A, *RESTRICT Bs = frame_.B;
        const double *RESTRICT l1s = frame_.l1, *RESTRICT l2s = frame_.l2, *RESTRICT ds = direction;
        const double of_differences = of_differences_ * (direction == frame_.B ? 1.0 + shift : 1.0);
        double slope = 0.0, terms = 0.0;
        VECTORIZED_SUM(slope, terms)
        for (Index k = 0; k < n_; ++k) {
            const double h = hs[k], penalty = l1s[k] + 0.5 * l2s[k] * h, pushed = Bs[k] + shift * ds[k];
            slope += h * (penalty - As[k] + pushed);
            terms += h * (penalty + As[k] + pushed + of_differences * (As[k] + l1s[k] + l2s[k] * h));
        }
        const double nearby = terms > 0.0 ? frame_.rounding.model : 0.0;
        const double distance = shift * std::sqrt(energy) + nearby * std::sqrt(frame_.sums.model_push);
        const double rounding = rounding_of_slope() * terms;
        rounding_ = (1.0 + of_feasibility) * rounding;
        const double paid = has_l2_ ? paid_for(1.0, 1.0, direction, shift) : 0.0;
        return slope + rounding + paid + most(0.5 * distance * distance);
    }

    double least_along(const double* direction, Index k) const {
        return direction == frame_.B ? least_push(k) : least(direction[k]);
    }

    // A dual point that is feasible in spite of rounding costs about so many times the rounding of the slope.
    static constexpr double of_feasibility = 4.0;

    const Frame& frame_;
    Index n_;
    double beta_, of_differences_;
    bool has_l2_ = false;
    Feasible feasible_ = Feasible::where_without_l2;
    double rounding_ = 0.0, rounding_of_best_ = 0.0;
};

// Write the sums that involve the model, from the slopes at the present model.
inline void sum_slopes(Frame& frame, const Basis& basis) {
    const double beta = basis.beta;
    if (!is_convex(beta)) return;
    const Index size = basis.bin_stride;
    BinSums& sums = frame.sums;
    sums.model_push = beta > 1.0 ? dot(frame.model, frame.push, size) : 0.0;
    sums.model_pull = beta == 1.0 ? sums.data : beta < 2.0 ? dot(frame.model, frame.pull, size) : 0.0;
    if (beta == 2.0) return;
    const double *RESTRICT model = frame.model, *RESTRICT pull = frame.pull, *RESTRICT push = frame.push;
    double pushed = 0.0, pulled = 0.0;
    VECTORIZED_SUM(pushed, pulled)
    for (Index f = 0; f < size; ++f) {
        pushed += model[f] < model_floor ? push[f] : 0.0;
        pulled += model[f] < model_floor ? pull[f] : 0.0;
    }
    sums.floor_push = model_floor * pushed;
    sums.floor_pull = model_floor * pulled;
}

// Return a gap relative to the size of its frame. A frame of size 0 has a relative gap of 0, not NaN; an infinite gap
// is infinite whatever the size.
inline double relative_gap(const Frame& frame) {
    return frame.gap > 0.0 && frame.gap < infinity ? frame.gap / frame.sums.size : frame.gap;
}

// Write gap and criterion of a frame from A, B and the sums.
inline void certify(Frame& frame, const Basis& basis) {
    // Every Newton step rounds the activations and the model anew.
    const Index of_model = basis.n_components + 6 * frame.n_iter + 16;
    frame.rounding.model = unit_roundoff * static_cast<double>(of_model);
    Certificate certificate(frame, basis.n_components, basis.beta);
    frame.gap = certificate.gap();
    frame.is_at_rounding = frame.gap <= certificate.rounding_of_gap();
    frame.criterion = is_convex(basis.beta) ? relative_gap(frame) : certificate.kkt();
}

}  // namespace knownmf
