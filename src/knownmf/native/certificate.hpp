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
        : frame_(frame), n_(n_components), beta_(beta), feasible_(Feasible::where_without_l2) {}

    // Return a bound on P(h) - min P; NaN outside 1 <= beta <= 2.
    double gap() {
        if (!is_convex(beta_)) return not_a_number;
        double best = infinity;
        for (const Feasible feasible : {Feasible::where_without_l2, Feasible::everywhere}) {
            feasible_ = feasible;
            const double least = least_feasible_scale();
            if (0.0 < least && least < infinity) best = smaller(best, gap_of_scaled_model(least));
            if (least < 1.0) best = smaller(best, gap_of_scaled_model(1.0));
            if (beta_ == 2.0) best = smaller(best, best_gap_of_shifted_residuals());
            if (!has_l2()) break;
        }
        return larger(best, 0.0);
    }

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

    // Return the least c >= 0 with c^(beta-2) A_k - c^(beta-1) B_k <= l1_k for every k that must be feasible.
    double least_feasible_scale() const {
        double scale = 0.0;
        for (Index k = 0; k < n_; ++k) {
            const double A = frame_.A[k], l1 = frame_.l1[k];
            const double B = larger(frame_.B[k], 0.0);  // least squares may round it to below 0
            if (!must_be_feasible(k) || A == 0.0) continue;
            if (A == infinity || (B == 0.0 && (l1 == 0.0 || beta_ == 2.0) && A > l1)) return infinity;
            if (l1 == 0.0) {
                scale = larger(scale, A / B);
            } else if (beta_ == 1.0) {
                scale = larger(scale, A / (B + l1));
            } else if (beta_ == 2.0) {
                scale = larger(scale, (A - l1) / B);
            } else {
                scale = root_between(A, B, l1, scale);
            }
        }
        return scale;
    }

    // Return the least c >= `scale` with A - c B - l1 c^(2-beta) <= 0, a convex function that falls: Newton's method
    // from the left never passes its root. Infinity where the root is too many orders of magnitude away.
    double root_between(double A, double B, double l1, double scale) const {
        constexpr int most_steps = 50;
        double c = scale;
        for (int i = 0; i < most_steps; ++i) {
            const double excess = A - c * B - l1 * std::pow(c, 2.0 - beta_);
            if (excess <= 1e-15 * A) return c;
            const double bend = c > 0.0 ? l1 * (2.0 - beta_) * std::pow(c, 1.0 - beta_) : infinity;
            c = c > 0.0 ? c + excess / (B + bend) : 1e-3 * A / (B + l1);
        }
        return infinity;
    }

    // Return the gap of the dual point that the model times c gives. With S1 = h'B + background_push and
    // S2 = h'A + background_pull it is, for beta > 1 (the limit for beta = 1 has a logarithm),
    //
    //     l1'h + l2'h^2 / 2 + S1 (1/beta + (1 - 1/beta) c^beta) - S2 (c^(beta-1) - (c^(beta-1) - 1) / (beta-1))
    //     - (c^(beta-1) background_push - c^(beta-2) background_pull) + sum over k that pay of excess_k^2 / (2 l2_k)
    double gap_of_scaled_model(double c) const {
        const BinSums& sums = frame_.sums;
        const double inner = std::pow(c, beta_ - 1.0), outer = std::pow(c, beta_ - 2.0);
        double gap = 0.0, S1 = sums.background_push, S2 = sums.background_pull;
        for (Index k = 0; k < n_; ++k) {
            const double h = frame_.h[k], A = frame_.A[k], B = frame_.B[k], l1 = frame_.l1[k], l2 = frame_.l2[k];
            S1 += h * B;
            S2 += h * A;
            gap += h * (l1 + 0.5 * l2 * h);
            const double excess = outer * A - inner * B - l1;
            if (excess > 0.0 && pays(k)) gap += 0.5 * excess * excess / l2;
        }
        if (beta_ == 1.0) {
            gap += sums.floor_pull == 0.0 ? S1 - sums.data * (1.0 - std::log(c)) : infinity;
        } else {
            gap += S1 * (1.0 / beta_ + (1.0 - 1.0 / beta_) * inner * c);
            gap += sums.floor_push * (1.0 - 1.0 / beta_) * inner * c;
            gap += sums.floor_pull * (2.0 - beta_) / (beta_ - 1.0) * inner;
            gap -= S2 * (inner - std::expm1((beta_ - 1.0) * std::log(c)) / (beta_ - 1.0));
        }
        return gap - (inner * sums.background_push - outer * sums.background_pull);
    }

    // Least squares has more dual points: weight (x - v - shift d) for any direction d >= 0; here the data, the model
    // and ones.
    double best_gap_of_shifted_residuals() const {
        double model_energy = frame_.sums.background_push;
        for (Index k = 0; k < n_; ++k) model_energy += frame_.h[k] * frame_.B[k];
        const double along_data = gap_of_shifted_residual(frame_.A, frame_.sums.energy);
        const double along_model = gap_of_shifted_residual(frame_.B, model_energy);
        const double along_ones = gap_of_shifted_residual(frame_.weighted_sums, frame_.sums.weight);
        return smaller(along_data, smaller(along_model, along_ones));
    }

    // Return the gap of such a point, from W' (weight d) and sum of weight d^2.
    double gap_of_shifted_residual(const double* direction, double energy) const {
        double shift = 0.0;
        for (Index k = 0; k < n_; ++k) {
            const double excess = frame_.A[k] - frame_.B[k] - frame_.l1[k];
            if (!must_be_feasible(k) || !(excess > 0.0)) continue;
            if (direction[k] <= 0.0) return infinity;
            shift = larger(shift, excess / direction[k]);
        }
        double gap = 0.5 * shift * shift * energy;
        for (Index k = 0; k < n_; ++k) {
            const double h = frame_.h[k], A = frame_.A[k], B = frame_.B[k], l1 = frame_.l1[k], l2 = frame_.l2[k];
            gap += h * (l1 + 0.5 * l2 * h - A + B + shift * direction[k]);
            const double excess = A - B - l1 - shift * direction[k];
            if (excess > 0.0 && pays(k)) gap += 0.5 * excess * excess / l2;
        }
        return gap;
    }

    const Frame& frame_;
    Index n_;
    double beta_;
    Feasible feasible_;
};

// Write the sums that involve the background and the model, from the slopes at the present model.
inline void sum_slopes(Frame& frame, const Basis& basis) {
    const Index size = basis.bin_stride;
    frame.sums.background_push = dot(frame.background, frame.push, size);
    frame.sums.background_pull = dot(frame.background, frame.pull, size);
    if (!(1.0 <= basis.beta && basis.beta < 2.0)) return;
    const double *RESTRICT model = frame.model, *RESTRICT pull = frame.pull, *RESTRICT push = frame.push;
    double pushed = 0.0, pulled = 0.0;
    VECTORIZED_SUM(pushed, pulled)
    for (Index f = 0; f < size; ++f) {
        pushed += model[f] < model_floor ? push[f] : 0.0;
        pulled += model[f] < model_floor ? pull[f] : 0.0;
    }
    frame.sums.floor_push = model_floor * pushed;
    frame.sums.floor_pull = model_floor * pulled;
}

// Return a gap relative to the size of its frame. A frame of size 0 has a relative gap of 0, not NaN.
inline double relative_gap(const Frame& frame) { return frame.gap > 0.0 ? frame.gap / frame.sums.size : frame.gap; }

// Write gap and criterion of a frame from A, B and the sums.
inline void certify(Frame& frame, const Basis& basis) {
    Certificate certificate(frame, basis.n_components, basis.beta);
    frame.gap = certificate.gap();
    frame.criterion = is_convex(basis.beta) ? relative_gap(frame) : certificate.kkt();
}

}  // namespace knownmf
