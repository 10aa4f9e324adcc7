// The proof that comes with every answer: the duality gap of a frame, and its KKT residual.
//
// For 1 <= beta <= 2 the problem of a frame is convex, and because W is not negative the model times a number c gives a
// feasible point of the dual that needs nothing beyond A and B. Any feasible point bounds the distance to the optimum,
// P(h) - min P <= gap, however h was found. With limits or an L2 penalty, an excess of the dual constraints has a price
// instead of being forbidden. docs/solver.md derives the formulas.
#pragma once

#include <initializer_list>

#include "limits.hpp"

namespace knownmf {

// The components for which a dual point has to be feasible. A component with an L2 penalty, an upper bound or a total
// may violate feasibility at a price. If the penalty is tiny or the limit is far away, rounding makes this price large:
// points are tried that are feasible where no activation is near its bound, and for all components.
enum class Feasible { where_without_price, where_not_at_upper, everywhere };

class Certificate {
   public:
    Certificate(const Frame& frame, const Basis& basis)
        : frame_(frame),
          basis_(basis),
          n_(basis.n_components),
          beta_(basis.beta),
          of_differences_(frame.rounding.of_differences ? 1.0 : 0.0) {}

    // Return a bound on P(h) - min P that holds for the numbers as they are, rounding included; NaN outside
    // 1 <= beta <= 2.
    double gap() {
        if (!is_convex(beta_)) return not_a_number;
        double best = infinity;
        has_l2_ = has_l2();
        for (const Feasible feasible :
             {Feasible::where_without_price, Feasible::where_not_at_upper, Feasible::everywhere}) {
            if (feasible == Feasible::where_not_at_upper && !frame_.has_upper) continue;
            if (feasible == Feasible::everywhere && (!(has_l2_ || is_limited(frame_)) || has_fixed_total(frame_)))
                break;
            feasible_ = feasible;
            const double least = least_feasible_scale();
            if (0.0 < least && least < infinity) keep_smaller(best, gap_of_scaled_model(least));
            if (least < 1.0) keep_smaller(best, gap_of_scaled_model(1.0));
            if (beta_ == 2.0 && best > rounding_of_best_ && !total_has_price()) {
                keep_smaller(best, gap_of_shifted_residual(frame_.A, frame_.sums.energy));
                keep_smaller(best, gap_of_shifted_residual(frame_.B, frame_.sums.model_push));
                keep_smaller(best, gap_of_shifted_residual(frame_.weighted_sums, frame_.sums.weight));
            }
        }
        return best;
    }

    // After gap(): about how much of it rounding may cause. A gap of that size cannot become smaller.
    double rounding_of_gap() const { return rounding_of_best_; }

    // Return how far the frame is from the Karush-Kuhn-Tucker conditions, free of every scale:
    //
    //     max_k |min(share_k, slope_k / (B_k + l1_k))|,    share_k = h_k (B_k + l1_k) / max_j h_j (B_j + l1_j)
    //
    // The slope is the gradient, and units_k times the multiplier of a total. For a slope below zero, the share is that
    // of the upper bound less h_k.
    double kkt() const {
        double largest = 0.0, worst = 0.0;
        const double multiplier = multiplier_of(frame_, basis_, [this](Index k) { return gradient(k); });
        for (Index k = 0; k < n_; ++k) largest = larger(largest, frame_.h[k] * (frame_.B[k] + frame_.l1[k]));
        for (Index k = 0; k < n_; ++k) {
            if (!frame_.allowed[k]) continue;
            const double scale = frame_.B[k] + frame_.l1[k], h = frame_.h[k];
            const double slope = gradient(k) + multiplier * basis_.units[k];
            if (scale > 0.0) {
                const double left = slope < 0.0 ? upper_of(frame_, k) - h : h;
                const double share = left == 0.0 ? 0.0 : largest > 0.0 ? left * scale / largest : infinity;
                const double steepness = std::fabs(slope / scale);
                const double residual = steepness < share ? steepness : share;
                if (slope != slope || !(residual < infinity)) return infinity;
                worst = larger(worst, residual);
            } else if (!(slope >= 0.0) && !has_total(frame_)) {
                return infinity;
            }
        }
        return worst;
    }

   private:
    double gradient(Index k) const { return frame_.B[k] + frame_.l1[k] - frame_.A[k] + frame_.l2[k] * frame_.h[k]; }

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

    // Whether the total of the frame has a price; the excess of all components is then counted at that price first.
    bool total_has_price() const { return has_total(frame_) && feasible_ != Feasible::everywhere; }

    // Whether an excess of component k has a price of its own.
    bool has_price(Index k) const {
        if (feasible_ == Feasible::everywhere) return false;
        if (frame_.l2[k] > 0.0) return true;
        constexpr double near = 0.5;  // of the bound
        const double bound = upper_of(frame_, k);
        return bound < infinity && (feasible_ == Feasible::where_without_price || frame_.h[k] >= near * bound);
    }

    bool must_be_feasible(Index k) const { return frame_.allowed[k] && !has_price(k) && !total_has_price(); }

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
    //     sum_k h_k (l1_k + l2_k h_k / 2 + c^(beta-1) B_k - c^(beta-2) A_k) + price of the excesses
    //     + (beta-1) bend(c, beta-2) sum weight v^beta + (2-beta) bend(c, beta-3) sum weight x v^(beta-1)
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
        double gap = slope + (has_l2_ || is_limited(frame_) ? price_of_excesses(outer, inner, nullptr, 0.0) : 0.0);
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

    // ---- Prices. An excess e_k = c^(beta-2) A_k - c^(beta-1) B_k - l1_k costs the largest e_k h_k - l2_k h_k^2 / 2
    // within the limits of h_k. A total costs the least of
    //
    //     multiplier total + sum_k price of (e_k - multiplier units_k)
    //
    // over all multipliers; any multiplier gives a bound.

    // A dual point, for the excesses of its components.
    struct Point {
        double outer, inner;      // c^(beta-2) and c^(beta-1)
        const double* direction;  // null, or what it is shifted by
        double shift;
    };

    // Return an upper bound of the excess of component k.
    double excess_at(const Point& point, Index k) const {
        const double shifted = point.direction != nullptr ? point.shift * least_along(point.direction, k) : 0.0;
        return point.outer * most(frame_.A[k]) - point.inner * least_push(k) - least(frame_.l1[k]) - shifted;
    }

    // Return an upper bound of what is left of the excess of component k at a multiplier of the total.
    double rest_of(Index k, double multiplier) const {
        const double own = frame_.excess[k], taken = multiplier * basis_.units[k];
        if (multiplier == 0.0) return own;
        return own - taken + 2.0 * unit_roundoff * (std::fabs(own) + std::fabs(taken));
    }

    // Return the activation that an excess calls for, within the bounds of a component that has a price.
    double response(double excess, Index k) const {
        if (!(excess > 0.0)) return 0.0;
        const double l2 = frame_.l2[k], bound = upper_of(frame_, k);
        return l2 > 0.0 ? smaller(excess / l2, bound) : bound;
    }

    double price_of_excesses(double outer, double inner, const double* direction, double shift) const {
        const Point point{outer, inner, direction, shift};
        for (Index k = 0; k < n_; ++k) frame_.excess[k] = excess_at(point, k);
        const double multiplier = total_has_price() ? best_multiplier() : 0.0;
        if (!(std::fabs(multiplier) < infinity)) return infinity;
        double price = 0.0;
        for (Index k = 0; k < n_; ++k) {
            if (!frame_.allowed[k] || !has_price(k)) continue;
            const double rest = rest_of(k, multiplier);
            if (!(rest > 0.0)) continue;
            const double l2 = frame_.l2[k], bound = upper_of(frame_, k);
            price += l2 > 0.0 && rest <= l2 * bound ? 0.5 * rest * rest / l2 : bound * (rest - 0.5 * l2 * bound);
        }
        const double of_total = multiplier != 0.0 ? multiplier * frame_.total : 0.0;
        return most(price) + of_total + 2.0 * unit_roundoff * std::fabs(of_total);
    }

    // Return a multiplier at which the total costs about the least. Components without a price of their own must not
    // have an excess left; beyond that, the cost is convex, and piecewise quadratic with breaks where the response of a
    // component reaches one of its bounds. The breaks are halved at their mean until none is left in the interval.
    double best_multiplier() const {
        double low = frame_.total_is_most ? 0.0 : -infinity, high = -infinity;
        for (Index k = 0; k < n_; ++k) {
            if (!frame_.allowed[k]) continue;
            const double wanted = frame_.excess[k] / basis_.units[k];
            const double rounded = wanted + 4.0 * unit_roundoff * std::fabs(wanted);
            // At the second multiplier the response of a component without a bound is the total.
            const double l2 = frame_.l2[k];
            if (!has_price(k)) low = larger(low, rounded);
            if (l2 > 0.0 && upper_of(frame_, k) == infinity)
                low = larger(low, wanted - l2 * frame_.total / (basis_.units[k] * basis_.units[k]));
            high = larger(high, rounded);
        }
        if (!(low < high)) return low > -infinity ? low : high;
        constexpr int most_halvings = 60;
        double excess_at_low = low > -infinity ? -shortage(low) : infinity;  // of the responses over the total
        if (excess_at_low <= 0.0) return low;
        for (int halving = 0; halving < most_halvings; ++halving) {
            double sum = 0.0;
            Index n_breaks = 0;
            for (Index k = 0; k < n_; ++k) {
                if (!frame_.allowed[k] || !has_price(k)) continue;
                const double own = frame_.excess[k], bound = upper_of(frame_, k), unit = basis_.units[k];
                const double first = own / unit, second = (own - frame_.l2[k] * bound) / unit;
                if (low < first && first < high) sum += first, ++n_breaks;
                if (frame_.l2[k] > 0.0 && low < second && second < high) sum += second, ++n_breaks;
            }
            if (n_breaks == 0) break;
            const double middle = sum / static_cast<double>(n_breaks);
            if (!(low < middle && middle < high)) break;
            const double excess_at_middle = -shortage(middle);
            (excess_at_middle > 0.0 ? low : high) = middle;
            if (excess_at_middle > 0.0) excess_at_low = excess_at_middle;
        }
        if (low == -infinity) return high;
        // Between breaks the responses fall linearly; at a break they may jump.
        const double middle = 0.5 * (low + high), fall = excess_at_low + shortage(middle);
        if (!(fall > 0.0)) return high;
        return smaller(low + excess_at_low / fall * (middle - low), high);
    }

    // Return what the total exceeds the responses at a multiplier by: the slope of the cost.
    double shortage(double multiplier) const {
        double sum = 0.0;
        for (Index k = 0; k < n_; ++k) {
            if (!frame_.allowed[k] || !has_price(k)) continue;
            sum += basis_.units[k] * response(frame_.excess[k] - multiplier * basis_.units[k], k);
        }
        return frame_.total - sum;
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
        const double paid = has_l2_ || frame_.has_upper ? price_of_excesses(1.0, 1.0, direction, shift) : 0.0;
        return slope + rounding + paid + most(0.5 * distance * distance);
    }

    double least_along(const double* direction, Index k) const {
        return direction == frame_.B ? least_push(k) : least(direction[k]);
    }

    // A dual point that is feasible in spite of rounding costs about so many times the rounding of the slope.
    static constexpr double of_feasibility = 4.0;

    const Frame& frame_;
    const Basis& basis_;
    Index n_;
    double beta_, of_differences_;
    bool has_l2_ = false;
    Feasible feasible_ = Feasible::where_without_price;
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
    return frame.gap > 0.0 && frame.gap < infinity ? frame.gap / frame.size : frame.gap;
}

// Return what the gap of a frame is relative to: the size of its data. With a fixed total, what the activations cost if
// that is larger, as they may be far larger than the data ask for; and at least a negligible share of what the total
// would cost if all activations were equal, as components of zero cost nothing.
inline double size_of(const Frame& frame, const Basis& basis) {
    if (!has_fixed_total(frame)) return frame.sums.size;
    constexpr double negligible = 1e-12;
    double cost = 0.0, units = 0.0, sums = 0.0;
    for (Index k = 0; k < basis.n_components; ++k) {
        cost += frame.h[k] * (frame.B[k] + frame.l1[k] + frame.l2[k] * frame.h[k]);
        if (!frame.allowed[k]) continue;
        units += basis.units[k];
        sums += frame.weighted_sums[k];
    }
    const double weight = frame.sums.weight;
    if (units == 0.0 || weight == 0.0) return larger(frame.sums.size, cost);
    // The model of equal activations costs at least as much as if it were the same in all bins. Where no component
    // reaches a bin, what a model next to zero costs is all there is.
    const double equal = weight * std::pow(frame.total / units * sums / weight, basis.beta);
    constexpr double next_to_zero = 1e-60;
    return larger(larger(frame.sums.size, cost), larger(negligible * equal, next_to_zero * weight));
}

// Write gap and criterion of a frame from A, B and the sums.
inline void certify(Frame& frame, const Basis& basis) {
    // Every Newton step rounds the activations and the model anew.
    const Index of_model = basis.n_components + 6 * frame.n_iter + 16;
    frame.rounding.model = unit_roundoff * static_cast<double>(of_model);
    frame.size = size_of(frame, basis);
    Certificate certificate(frame, basis);
    // Activations that single precision rounded away from a total may lie below the minimum.
    frame.gap = larger(certificate.gap(), 0.0);
    frame.is_at_rounding = frame.gap <= certificate.rounding_of_gap();
    frame.criterion = is_convex(basis.beta) ? relative_gap(frame) : certificate.kkt();
}

}  // namespace knownmf
