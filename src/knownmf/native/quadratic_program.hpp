// The nonnegative quadratic program that every Newton step and every least-squares frame comes down to:
//
//     minimize 1/2 z'Qz + q'z    over z >= 0,    Q symmetric with a unit diagonal
//
// Its gradient is y = Qz + q. A ladder of three methods; on failure, one rung down:
//
// 1. Coordinate sweeps guess which variables are positive ("passive"). They never raise the objective.
// 2. Block principal pivoting [J. Kim and H. Park, SIAM J. Sci. Comput. 33(6), 2011]: solve for the passive variables,
//    let all that have the wrong sign change sides, and repeat. A trial is one Cholesky factorization; a few are usual.
// 3. An active-set method [C. Lawson and R. Hanson, Solving Least Squares Problems, 1974], from zero: one variable at a
//    time, with an updated factorization. It lowers the objective with every step and cannot cycle, also where atoms
//    are nearly dependent.
#pragma once

#include "cholesky.hpp"
#include "products.hpp"

namespace knownmf {

// A gradient below this share of its own terms is rounding.
constexpr double gradient_rounding = 1e-14;

class QuadraticProgram {
   public:
    double* Q = nullptr;  // (n, stride) of the caller, or the program's own
    double* q = nullptr;
    double* z = nullptr;  // in: where to start; out: the minimizer
    Index n = 0, stride = 0;
    const volatile std::int32_t* interrupted = nullptr;  // ends a long search early; z is then of no use

    // Make room for n variables; return whether there was enough memory.
    [[nodiscard]] bool reserve(Index n_variables) {
        n = n_variables;
        stride = padded(n);
        if (!factor_.reserve(n * stride) || !numbers_.reserve(6 * stride) || !lists_.reserve(4 * stride)) return false;
        q = numbers_.begin();
        z = q + stride;
        y_ = z + stride;
        guess_ = y_ + stride;
        packed_ = guess_ + stride;
        inverse_ = packed_ + stride;
        passive_ = lists_.begin();
        wrong_ = passive_ + stride;
        merged_ = wrong_ + stride;
        refused_ = merged_ + stride;
        return true;
    }

    // Make room for a matrix of the program's own, too.
    [[nodiscard]] bool reserve_matrix(Index n_variables) {
        if (!reserve(n_variables) || !matrix_.reserve(n * stride)) return false;
        Q = matrix_.begin();
        return true;
    }

    Index bytes() const { return factor_.bytes() + matrix_.bytes() + numbers_.bytes() + lists_.bytes(); }

    // Move z to the minimizer. `ridge` is added to the diagonal while a factorization is tried, and its effect taken
    // back.
    //
    // Returns whether the minimizer was found and Q is positive among its passive variables; else z is no worse than
    // what the sweeps found.
    bool minimize(double ridge) {
        constexpr int most_sweeps = 10;  // ad hoc: they usually end before, where they leave the support as it is
        compute_gradient();
        for (int n_done = 0; n_done < most_sweeps && !is_interrupted() && sweep();) ++n_done;
        copy(z, guess_, n);
        const double lowest = value();
        bool positive = true;
        if (pivot(ridge, &positive) && is_no_higher_than(lowest)) return true;
        copy(guess_, z, n);
        const bool found = exchange_one_by_one();
        // A variable far smaller than the others has lost its digits among theirs; sweeps give it its own.
        constexpr int last_sweeps = 100;  // ad hoc: these programs are rare, and a sweep is cheap
        for (int n_done = 0; n_done < last_sweeps && !is_interrupted(); ++n_done) sweep();
        compute_gradient();  // sweeps add their rounding up
        if (is_no_higher_than(lowest)) return found && positive;
        copy(guess_, z, n);
        compute_gradient();
        return false;
    }

    // Move the positive variables to where slopes that the caller knows more exactly vanish, as far as they stay
    // positive.
    void step_within_support(const double* slopes) {
        Index n_passive = 0;
        for (Index k = 0; k < n; ++k)
            if (z[k] > 0.0) passive_[n_passive++] = k;
        if (!factorize_passive(n_passive, 0.0)) return;
        for (Index i = 0; i < n_passive; ++i) packed_[i] = -slopes[passive_[i]];
        solve_factorized(factor_.begin(), stride, n_passive, inverse_, packed_);
        for (Index i = 0; i < n_passive; ++i) z[passive_[i]] = larger(z[passive_[i]] + packed_[i], 0.0);
    }

    // The gradient at z, after minimize().
    const double* gradient() const { return y_; }

   private:
    bool is_interrupted() const { return *interrupted != 0; }

    void compute_gradient() {
        copy(q, y_, n);
        for (Index k = 0; k < n; ++k)
            if (z[k] != 0.0) add_column(k, z[k]);
    }

    void add_column(Index k, double amount) {
        const double* RESTRICT row = Q + k * stride;
        double* RESTRICT y = y_;
        for (Index j = 0; j < n; ++j) y[j] += amount * row[j];
    }

    double value() const {
        double total = 0.0;
        for (Index k = 0; k < n; ++k) total += 0.5 * z[k] * (y_[k] + q[k]);
        return total;
    }

    bool is_no_higher_than(double lowest) {
        constexpr double rounding = 1e-14;
        return value() <= lowest + rounding * std::fabs(lowest);
    }

    bool wants_to_grow(Index k) const {
        return y_[k] < -gradient_rounding * (std::fabs(q[k]) + std::fabs(y_[k] - q[k]));
    }

    // Minimize over one variable at a time, in turn. Returns whether any became zero or positive.
    bool sweep() {
        bool support_changed = false;
        for (Index k = 0; k < n; ++k) {
            const double end = larger(z[k] - y_[k] / Q[k * stride + k], 0.0), step = end - z[k];
            if (step == 0.0) continue;
            support_changed |= (z[k] > 0.0) != (end > 0.0);
            z[k] = end;
            add_column(k, step);
        }
        return support_changed;
    }

    // ---- Block principal pivoting

    bool pivot(double ridge, bool* positive) {
        // Exchanges in a row that do not lower the number of wrong variables [Kim and Park].
        constexpr int patience = 3;
        Index n_passive = 0, fewest = n + 1;
        for (Index k = 0; k < n; ++k)
            if (z[k] > 0.0) passive_[n_passive++] = k;
        for (int in_vain = 0;;) {
            *positive = solve_passive(n_passive, ridge);
            if (!*positive) return false;
            const Index n_wrong = find_wrong(n_passive);
            if (n_wrong == 0) {
                polish(n_passive);
                return true;
            }
            in_vain = n_wrong < fewest ? 0 : in_vain + 1;
            if (in_vain > patience) return false;
            fewest = smaller(fewest, n_wrong);
            n_passive = exchange(n_passive, n_wrong);
        }
    }

    // Factorize the matrix of the passive variables; return whether it is positive.
    bool factorize_passive(Index n_passive, double ridge) {
        double* R = factor_.begin();
        for (Index i = 0; i < n_passive; ++i) {
            const double* source = Q + passive_[i] * stride;
            double* RESTRICT row = R + i * stride;
            for (Index j = i; j < n_passive; ++j) row[j] = source[passive_[j]];
            row[i] += ridge;
        }
        return factorize(R, stride, n_passive, inverse_, interrupted);
    }

    // Minimize over the passive variables, all others at zero, if Q is positive among them; return whether it is.
    bool solve_passive(Index n_passive, double ridge) {
        if (!factorize_passive(n_passive, ridge)) return false;
        for (Index i = 0; i < n_passive; ++i) packed_[i] = -q[passive_[i]];
        solve_factorized(factor_.begin(), stride, n_passive, inverse_, packed_);
        fill(z, n, 0.0);
        for (Index i = 0; i < n_passive; ++i) z[passive_[i]] = packed_[i];
        compute_gradient();
        return true;
    }

    // List the variables of the wrong sign, in ascending order: negative ones, and zeros that want to grow.
    Index find_wrong(Index n_passive) {
        double largest = 0.0;
        for (Index i = 0; i < n_passive; ++i) largest = larger(largest, z[passive_[i]]);
        Index n_wrong = 0, i = 0;
        for (Index k = 0; k < n; ++k) {
            const bool inside = i < n_passive && passive_[i] == k;
            if (inside) ++i;
            if (inside ? z[k] < -gradient_rounding * largest : wants_to_grow(k)) wrong_[n_wrong++] = k;
        }
        return n_wrong;
    }

    // Let every wrong variable change sides; return the new number of passive ones.
    Index exchange(Index n_passive, Index n_wrong) {
        Index i = 0, j = 0, n_merged = 0;
        while (i < n_passive || j < n_wrong) {
            if (j == n_wrong || (i < n_passive && passive_[i] < wrong_[j])) {
                merged_[n_merged++] = passive_[i++];
            } else if (i == n_passive || wrong_[j] < passive_[i]) {
                merged_[n_merged++] = wrong_[j++];
            } else {
                ++i, ++j;
            }
        }
        copy(merged_, passive_, n_merged);
        return n_merged;
    }

    // Take back what the ridge cost, by one more solve with the gradient that is left; make zeros of what is only
    // rounding.
    void polish(Index n_passive) {
        constexpr double rounding = 1e-13;
        for (Index i = 0; i < n_passive; ++i) packed_[i] = -y_[passive_[i]];
        solve_factorized(factor_.begin(), stride, n_passive, inverse_, packed_);
        for (Index i = 0; i < n_passive; ++i) z[passive_[i]] += packed_[i];
        for (Index k = 0; k < n; ++k)
            if (z[k] <= rounding * std::fabs(q[k])) z[k] = 0.0;
        compute_gradient();
    }

    // ---- The active-set method. passive_ is in the order in which variables entered, as the factor is.

    bool exchange_one_by_one() {
        Index n_passive = 0;
        fill(z, n, 0.0);
        fill(refused_, n, Index{0});
        compute_gradient();
        const Index most = 3 * n + 30;  // far more than it takes; SciPy's nnls stops at 3 n
        for (Index trial = 0; trial < most && !is_interrupted(); ++trial) {
            const Index entering = steepest();
            if (entering < 0) return true;
            const double before = value();
            if (append(n_passive, entering) || exchange_for(n_passive, entering)) n_passive = descend(n_passive + 1);
            if (value() < before) {
                fill(refused_, n, Index{0});
            } else {
                refused_[entering] = 1;  // it depends on the others, or its slope was rounding
            }
        }
        return false;
    }

    // Return the variable at zero whose growth lowers the objective fastest, -1 if there is none.
    Index steepest() const {
        Index best = -1;
        for (Index k = 0; k < n; ++k)
            if (refused_[k] == 0 && z[k] == 0.0 && wants_to_grow(k) && (best < 0 || y_[k] < y_[best])) best = k;
        return best;
    }

    // Minimize over the passive variables as far as they stay positive; those that reach zero leave. Returns how many
    // stay.
    Index descend(Index n_passive) {
        while (n_passive > 0) {
            for (Index i = 0; i < n_passive; ++i) packed_[i] = -q[passive_[i]];
            solve_factorized(factor_.begin(), stride, n_passive, inverse_, packed_);
            if (!is_finite(packed_, n_passive)) break;
            // The variable that reaches zero first ends the step; that it leaves is what ends this loop.
            double step = 1.0;
            Index first = -1;
            for (Index i = 0; i < n_passive; ++i) {
                const double now = z[passive_[i]];
                const double ratio = now > 0.0 ? now / (now - packed_[i]) : 0.0;
                if (packed_[i] > 0.0 || ratio > step) continue;
                step = ratio;
                first = i;
            }
            for (Index i = 0; i < n_passive; ++i) {
                double& now = z[passive_[i]];
                now = i == first ? 0.0 : larger(now + step * (packed_[i] - now), 0.0);
            }
            if (first < 0) break;
            for (Index i = n_passive - 1; i >= 0; --i)
                if (z[passive_[i]] <= 0.0) remove(n_passive--, i);
        }
        compute_gradient();
        return n_passive;
    }

    static bool is_finite(const double* values, Index size) {
        double sum = 0.0;
        for (Index i = 0; i < size; ++i) sum += std::fabs(values[i]);
        return sum < infinity;
    }

    // Add variable k to the factor; return false where it depends on the others.
    bool append(Index n_passive, Index k) {
        double* R = factor_.begin();
        for (Index i = 0; i < n_passive; ++i) packed_[i] = Q[passive_[i] * stride + k];
        solve_forward(R, stride, n_passive, inverse_, packed_);
        double pivot = Q[k * stride + k];
        for (Index i = 0; i < n_passive; ++i) pivot -= packed_[i] * packed_[i];
        constexpr double dependent = 1e-13;  // of a unit diagonal: below, the solution would be mostly rounding
        if (!(pivot > dependent)) return false;
        for (Index i = 0; i < n_passive; ++i) R[i * stride + n_passive] = packed_[i];
        R[n_passive * stride + n_passive] = std::sqrt(pivot);
        inverse_[n_passive] = 1.0 / R[n_passive * stride + n_passive];
        passive_[n_passive] = k;
        return true;
    }

    // Let variable k, which depends on the passive ones, enter for the one of them that reaches zero first while k
    // grows and the others follow so that Qz stays as it is: q alone makes the objective fall on that way. Returns
    // whether k is in the factor.
    bool exchange_for(Index& n_passive, Index k) {
        double* change = y_;  // descend() computes the gradient anew
        for (Index i = 0; i < n_passive; ++i) change[i] = Q[passive_[i] * stride + k];
        solve_factorized(factor_.begin(), stride, n_passive, inverse_, change);
        constexpr double least = 1e-9;  // a smaller change is rounding: k depends on others
        double end = infinity;
        Index first = -1;
        for (Index i = 0; i < n_passive; ++i) {
            if (!(change[i] > least && z[passive_[i]] < end * change[i])) continue;
            end = z[passive_[i]] / change[i];
            first = i;
        }
        if (first < 0) {
            compute_gradient();
            return false;
        }
        const Index leaving = passive_[first];
        remove(n_passive--, first);
        if (!append(n_passive, k)) {  // k also depends on the others: put back the variable that left
            if (append(n_passive, leaving)) {
                ++n_passive;
            } else {
                z[leaving] = 0.0;
            }
            compute_gradient();
            return false;
        }
        for (Index i = 0; i < n_passive; ++i) {
            const Index position = i < first ? i : i + 1;  // where it was before the removal
            double& now = z[passive_[i]];
            now = larger(now - end * change[position], 0.0);
        }
        z[leaving] = 0.0;
        z[k] = end;
        return true;
    }

    // Remove the variable at `position` from the factor: shift the columns behind it, and rotate them to a triangle.
    void remove(Index n_passive, Index position) {
        double* R = factor_.begin();
        for (Index j = position; j + 1 < n_passive; ++j) {
            passive_[j] = passive_[j + 1];
            for (Index i = 0; i <= j + 1; ++i) R[i * stride + j] = R[i * stride + j + 1];
        }
        for (Index k = position; k + 1 < n_passive; ++k) {
            double *upper = R + k * stride, *lower = upper + stride;
            const double length = std::hypot(upper[k], lower[k]);
            const double cosine = upper[k] / length, sine = lower[k] / length;
            for (Index j = k; j + 1 < n_passive; ++j) {
                const double u = upper[j], l = lower[j];
                upper[j] = cosine * u + sine * l;
                lower[j] = cosine * l - sine * u;
            }
            inverse_[k] = 1.0 / upper[k];
        }
    }

    Buffer<double> matrix_, factor_, numbers_;
    Buffer<Index> lists_;
    double *y_ = nullptr, *guess_ = nullptr, *packed_ = nullptr, *inverse_ = nullptr;
    Index *passive_ = nullptr, *wrong_ = nullptr, *merged_ = nullptr, *refused_ = nullptr;
};

}  // namespace knownmf
