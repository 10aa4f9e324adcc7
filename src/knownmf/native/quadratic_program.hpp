// The nonnegative quadratic program that every Newton step and every least-squares frame comes down to:
//
//     minimize 1/2 z'Qz + q'z    over z >= 0,    Q symmetric with a unit diagonal
//
// There may be upper bounds, z <= upper, and a fixed sum, row'z = total with row > 0; variables that matter for the sum
// only then have a diagonal of zero. The gradient is y = Qz + q; with a sum, the slope of a variable is y + multiplier
// row. A ladder of three methods; on failure, one rung down:
//
// 1. Coordinate sweeps guess which variables lie between their bounds ("passive"). They never raise the objective.
// 2. Block principal pivoting [J. Kim and H. Park, SIAM J. Sci. Comput. 33(6), 2011; with upper bounds: J. Judice and
//    F. Pires, Computers & Operations Research 21(5), 1994]: solve for the passive variables, let all that are on the
//    wrong side change sides, and repeat. A trial is one Cholesky factorization; a few are usual.
// 3. An active-set method [C. Lawson and R. Hanson, Solving Least Squares Problems, 1974], from zero, or with limits
//    from what the sweeps found or the cheapest variables that have the sum: one variable at a time, with an updated
//    factorization. It lowers the objective with every step and cannot cycle, also where atoms are nearly dependent.
#pragma once

#include "passive_set.hpp"

namespace knownmf {

class QuadraticProgram : public PassiveSet {
   public:
    // Move z to the minimizer. `ridge` is added to the diagonal while a factorization is tried, and its effect taken
    // back.
    //
    // Returns whether the minimizer was found and Q is positive among its passive variables; else z is no worse than
    // what the sweeps found, or with a sum than the start.
    bool minimize(double ridge) {
        constexpr int most_sweeps = 10;  // ad hoc: they usually end before, where they leave the support as it is
        compute_gradient();
        double lowest = 0.0;
        if (has_total) {  // sweeps leave the sum
            set_up_total();
            copy(z, guess_, n);
            lowest = value();
        }
        for (int n_done = 0; n_done < most_sweeps && !is_interrupted() && sweep();) ++n_done;
        if (!has_total) {
            copy(z, guess_, n);
            lowest = value();
        }
        copy(z, swept_, n);
        bool positive = true;
        if (pivot(ridge, &positive) && has_right_sum() && is_no_higher_than(lowest)) return true;
        const bool found = exchange_one_by_one();
        if (has_total) keep_limits();
        // A variable far smaller than the others has lost its digits among theirs; sweeps give it its own.
        constexpr int last_sweeps = 100;  // ad hoc: these programs are rare, and a sweep is cheap
        for (int n_done = 0; n_done < last_sweeps && !has_total && !is_interrupted(); ++n_done) sweep();
        compute_gradient();  // sweeps add their rounding up
        if (has_right_sum() && is_no_higher_than(lowest)) return found && positive;
        copy(guess_, z, n);
        compute_gradient();
        return false;
    }

    // Move the passive variables to where slopes that the caller knows more exactly vanish, as far as they stay within
    // their bounds.
    void step_within_support(const double* slopes) {
        const Index n_passive = list_passive();
        if (!factorize_passive(n_passive, 0.0)) return;
        for (Index i = 0; i < n_passive; ++i) packed_[i] = -slopes[passive_[i]];
        solve_with_total(n_passive, missing_total());
        for (Index i = 0; i < n_passive; ++i) z[passive_[i]] = within_bounds(passive_[i], z[passive_[i]] + packed_[i]);
        if (has_total) keep_limits();
    }

   private:
    double value() const {
        double sum = 0.0;
        for (Index k = 0; k < n; ++k) sum += 0.5 * z[k] * (y_[k] + q[k]);
        return sum;
    }

    bool is_no_higher_than(double lowest) {
        constexpr double rounding = 1e-14;
        return value() <= lowest + rounding * std::fabs(lowest);
    }

    // Minimize over one variable at a time, in turn; with a sum, the objective plus stiffness / 2 (row'z - total)^2 +
    // multiplier row'z. Returns whether any variable reached or left a bound.
    bool sweep() {
        if (is_limited()) return sweep_within_limits();
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

    bool sweep_within_limits() {
        double missing = missing_total();
        bool support_changed = false;
        for (Index k = 0; k < n; ++k) {
            const double pull = has_total ? row[k] * stiffness_ * missing : 0.0;
            const double end = within_bounds(k, z[k] - (slope(k) - pull) / element(k, k)), step = end - z[k];
            if (step == 0.0) continue;
            const bool was_at_upper = is_at_upper(k), was_positive = z[k] > 0.0;
            z[k] = end;
            support_changed |= was_at_upper != is_at_upper(k) || was_positive != (end > 0.0);
            add_column(k, step);
            if (has_total) missing -= row[k] * step;
        }
        return support_changed;
    }

    // ---- Block principal pivoting

    bool pivot(double ridge, bool* positive) {
        // Exchanges in a row that do not lower the number of wrong variables [Kim and Park].
        constexpr int patience = 3;
        Index n_passive = list_passive(), fewest = n + 1;
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

    // Minimize over the passive variables, all others at the bound where they are, if Q is positive among them; return
    // whether it is, and the sum can be reached.
    bool solve_passive(Index n_passive, double ridge) {
        if (has_total && n_passive == 0) return false;
        if (!factorize_passive(n_passive, ridge)) return false;
        if (has_upper) {
            for (Index i = 0; i < n_passive; ++i) z[passive_[i]] = 0.0;
            compute_gradient();
            for (Index i = 0; i < n_passive; ++i) packed_[i] = -y_[passive_[i]];
        } else {
            for (Index i = 0; i < n_passive; ++i) packed_[i] = -q[passive_[i]];
            fill(z, n, 0.0);
        }
        solve_with_total(n_passive, has_total ? missing_total() : 0.0);
        for (Index i = 0; i < n_passive; ++i) z[passive_[i]] = packed_[i];
        compute_gradient();
        fit_multiplier(n_passive);
        return true;
    }

    // List the variables on the wrong side, in ascending order: passive ones beyond a bound, and others that want to
    // leave theirs.
    Index find_wrong(Index n_passive) {
        double largest = 0.0;
        for (Index i = 0; i < n_passive; ++i) largest = larger(largest, z[passive_[i]]);
        Index n_wrong = 0, i = 0;
        for (Index k = 0; k < n; ++k) {
            const bool inside = i < n_passive && passive_[i] == k;
            if (inside) ++i;
            const bool is_wrong = inside           ? is_beyond_a_bound(k, largest)
                                  : is_at_upper(k) ? wants_to_shrink(k)
                                                   : wants_to_grow(k);
            if (is_wrong) wrong_[n_wrong++] = k;
        }
        return n_wrong;
    }

    bool is_beyond_a_bound(Index k, double largest) const {
        return z[k] < -gradient_rounding * largest || (has_upper && z[k] > upper[k] + gradient_rounding * largest);
    }

    // Let every wrong variable change sides: passive ones go to the bound that they are beyond. Returns the new number
    // of passive variables.
    Index exchange(Index n_passive, Index n_wrong) {
        for (Index i = 0; has_upper && i < n_passive; ++i) z[passive_[i]] = within_bounds(passive_[i], z[passive_[i]]);
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
        constexpr double rounding = 1e-13, of_total = 1e-20;
        for (Index i = 0; i < n_passive; ++i) packed_[i] = -slope(passive_[i]);
        solve_with_total(n_passive, has_total ? missing_total() : 0.0);
        for (Index i = 0; i < n_passive; ++i) z[passive_[i]] += packed_[i];
        for (Index k = 0; k < n; ++k)
            if (z[k] <= rounding * std::fabs(q[k]) || (has_total && row[k] * z[k] <= of_total * total)) z[k] = 0.0;
        if (is_limited()) keep_limits();
        compute_gradient();
        if (has_total) fit_multiplier(list_passive());
    }

    // ---- The active-set method. passive_ is in the order in which variables entered, as the factor is.

    bool exchange_one_by_one() {
        fill(refused_, n, Index{0});
        Index n_passive = begin();
        const Index most = 3 * n + 30;  // far more than it takes; SciPy's nnls stops at 3 n
        for (Index trial = 0; trial < most && !is_interrupted(); ++trial) {
            if (has_total && n_passive <= 1) n_passive = keep_one_that_can_shrink(n_passive);
            fit_multiplier(n_passive);
            const Index entering = steepest(n_passive);
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

    // Choose where to start, and the first passive variables; return how many these are. With limits, start from what
    // the sweeps found, unless it lacks some of the sum or its passive variables depend on each other; without, from
    // zero.
    Index begin() {
        if (is_limited()) {
            copy(swept_, z, n);
            keep_limits();
            const Index n_passive = list_passive();
            Index n_taken = 0;
            while (n_taken < n_passive && append(n_taken, passive_[n_taken])) ++n_taken;
            compute_gradient();
            if (n_taken == n_passive && has_right_sum()) return descend(n_passive);
        }
        fill(z, n, 0.0);
        compute_gradient();
        return has_total ? begin_with_total() : 0;
    }

    // With a sum, a lone passive variable at a bound could keep others from leaving theirs: make the variable passive
    // that shrinks at the least cost, for any other that grows. Returns the number of passive variables.
    Index keep_one_that_can_shrink(Index n_passive) {
        if (n_passive == 1 && z[passive_[0]] > 0.0 && !is_at_upper(passive_[0])) return 1;
        Index best = -1;
        for (Index k = 0; k < n; ++k)
            if (z[k] > 0.0 && (best < 0 || y_[k] * row[best] > y_[best] * row[k])) best = k;
        return best >= 0 && append(0, best) ? 1 : 0;
    }

    // Fill the sum with the variables of the smallest slopes, up to their bounds. The last of them is the first passive
    // variable. Returns the number of passive variables.
    Index begin_with_total() {
        double missing = total;
        for (Index n_filled = 0; n_filled < n; ++n_filled) {
            Index cheapest = -1;
            for (Index k = 0; k < n; ++k)
                if (z[k] == 0.0 && (cheapest < 0 || y_[k] * row[cheapest] < y_[cheapest] * row[k])) cheapest = k;
            const double share = missing / row[cheapest];
            z[cheapest] = within_bounds(cheapest, share);
            missing -= z[cheapest] * row[cheapest];
            const bool is_last = z[cheapest] >= share || n_filled == n - 1;
            if (!is_last && z[cheapest] > 0.0) continue;
            compute_gradient();
            return append(0, cheapest) ? 1 : 0;
        }
        return 0;
    }

    bool is_listed(Index k, Index n_passive) const {
        for (Index i = 0; i < n_passive; ++i)
            if (passive_[i] == k) return true;
        return false;
    }

    // Return the variable at a bound whose change lowers the objective fastest, -1 if there is none.
    Index steepest(Index n_passive) const {
        Index best = -1;
        double largest = 0.0;
        for (Index k = 0; k < n; ++k) {
            if (refused_[k] != 0 || (is_limited() && is_listed(k, n_passive))) continue;
            const bool enters = is_at_upper(k) ? wants_to_shrink(k) : z[k] == 0.0 && wants_to_grow(k);
            if (!enters || std::fabs(slope(k)) <= largest) continue;
            largest = std::fabs(slope(k));
            best = k;
        }
        return best;
    }

    // Minimize over the passive variables as far as they stay within their bounds; those that reach one leave, but with
    // a sum one variable stays. Returns how many stay.
    Index descend(Index n_passive) {
        const Index fewest = has_total ? 1 : 0;
        while (n_passive > 0) {
            if (is_limited()) {
                compute_gradient();
                for (Index i = 0; i < n_passive; ++i) packed_[i] = -slope(passive_[i]);
                solve_with_total(n_passive, has_total ? missing_total() : 0.0);
                for (Index i = 0; i < n_passive; ++i) packed_[i] += z[passive_[i]];
            } else {
                for (Index i = 0; i < n_passive; ++i) packed_[i] = -q[passive_[i]];
                solve_factorized(factor_.begin(), stride, n_passive, inverse_, packed_);
            }
            if (!is_finite(packed_, n_passive)) break;
            // The variable that reaches a bound first ends the step; that it leaves is what ends this loop.
            double step = 1.0, bound = 0.0;
            Index first = -1;
            for (Index i = 0; i < n_passive; ++i) {
                const Index k = passive_[i];
                const double now = z[k], end = packed_[i];
                const bool rises = has_upper && end > upper[k];
                if (end > 0.0 && !rises) continue;
                const double way = rises ? upper[k] - now : now, whole = rises ? end - now : now - end;
                const double ratio = way > 0.0 ? way / whole : 0.0;
                if (ratio > step) continue;
                step = ratio;
                first = i;
                bound = rises ? upper[k] : 0.0;
            }
            for (Index i = 0; i < n_passive; ++i) {
                double& now = z[passive_[i]];
                now = i == first ? bound : within_bounds(passive_[i], now + step * (packed_[i] - now));
            }
            if (first < 0) break;
            const Index before = n_passive;
            for (Index i = n_passive - 1; i >= 0 && n_passive > fewest; --i)
                if (z[passive_[i]] <= 0.0 || is_at_upper(passive_[i])) remove(n_passive--, i);
            if (n_passive == before) break;
        }
        compute_gradient();
        return n_passive;
    }

    static bool is_finite(const double* values, Index size) {
        double sum = 0.0;
        for (Index i = 0; i < size; ++i) sum += std::fabs(values[i]);
        return sum < infinity;
    }

    // Let variable k, which depends on the passive ones, enter for the one of them that reaches a bound first while k
    // moves and the others follow so that Qz and the sum stay as they are: q alone makes the objective fall on that
    // way. Returns whether k is in the factor.
    bool exchange_for(Index& n_passive, Index k) {
        double* change = y_;  // descend() computes the gradient anew
        const double direction = is_at_upper(k) ? -1.0 : 1.0;
        for (Index i = 0; i < n_passive; ++i) change[i] = direction * element(passive_[i], k);
        solve_factorized(factor_.begin(), stride, n_passive, inverse_, change);
        constexpr double least = 1e-9;  // a smaller change is rounding: k depends on others
        double end = has_upper ? upper[k] : infinity;
        Index first = -1;
        for (Index i = 0; i < n_passive; ++i) {
            const Index j = passive_[i];
            const bool rises = change[i] < 0.0;
            const double way = rises ? (has_upper ? upper[j] - z[j] : infinity) : z[j], speed = std::fabs(change[i]);
            if (!(speed > least && way < end * speed)) continue;
            end = way / speed;
            first = i;
        }
        const bool rises = first >= 0 && change[first] < 0.0;
        const Index leaving = first < 0 ? -1 : passive_[first];
        if (first < 0) {  // no passive variable reaches a bound; k may reach its other one
            for (Index i = 0; end < infinity && i < n_passive; ++i)
                z[passive_[i]] = within_bounds(passive_[i], z[passive_[i]] - end * change[i]);
            if (end < infinity) z[k] = direction > 0.0 ? upper[k] : 0.0;
            compute_gradient();
            return false;
        }
        remove(n_passive--, first);
        if (!append(n_passive, k)) {  // k also depends on the others: put back the variable that left
            if (append(n_passive, leaving)) {
                ++n_passive;
            } else {
                z[leaving] = rises ? upper[leaving] : 0.0;
            }
            compute_gradient();
            return false;
        }
        for (Index i = 0; i < n_passive; ++i) {
            const Index position = i < first ? i : i + 1;  // where it was before the removal
            double& now = z[passive_[i]];
            now = within_bounds(passive_[i], now - end * change[position]);
        }
        z[leaving] = rises ? upper[leaving] : 0.0;
        z[k] += direction * end;
        return true;
    }
};

}  // namespace knownmf
