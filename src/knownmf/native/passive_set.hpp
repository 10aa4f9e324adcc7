// The variables of a quadratic program, their limits, and the factor of the matrix of those between their bounds, which
// are called passive.
//
// With a fixed sum, Q + stiffness row row' is factorized in place of Q. Among variables with the right sum that changes
// nothing, and it is positive where Q is positive along all changes that keep the sum.
#pragma once

#include "cholesky.hpp"
#include "products.hpp"

namespace knownmf {

// A gradient below this share of its own terms is rounding.
constexpr double gradient_rounding = 1e-14;

class PassiveSet {
   public:
    double* Q = nullptr;  // (n, stride) of the caller, or the program's own
    double* q = nullptr;
    double* z = nullptr;      // in: where to start, within the limits; out: the minimizer
    double* upper = nullptr;  // read if has_upper; infinite where a variable has no bound
    double* row = nullptr;    // read if has_total
    double total = 0.0;
    bool has_upper = false, has_total = false;
    Index n = 0, stride = 0;
    const volatile std::int32_t* interrupted = nullptr;  // ends a long search early; z is then of no use

    // Make room for n variables without upper bounds or a sum; return whether there was enough memory.
    [[nodiscard]] bool reserve(Index n_variables) {
        n = n_variables;
        stride = padded(n);
        if (!factor_.reserve(n * stride) || !numbers_.reserve(10 * stride) || !lists_.reserve(4 * stride)) return false;
        double* rest = numbers_.begin();
        for (double** place : {&q, &z, &upper, &row, &y_, &guess_, &swept_, &packed_, &inverse_, &along_row_}) {
            *place = rest;
            rest += stride;
        }
        passive_ = lists_.begin();
        wrong_ = passive_ + stride;
        merged_ = wrong_ + stride;
        refused_ = merged_ + stride;
        has_upper = has_total = false;
        stiffness_ = multiplier_ = multiplier_terms_ = 0.0;
        return true;
    }

    // Make room for a matrix of the program's own, too.
    [[nodiscard]] bool reserve_matrix(Index n_variables) {
        if (!reserve(n_variables) || !matrix_.reserve(n * stride)) return false;
        Q = matrix_.begin();
        return true;
    }

    Index bytes() const { return factor_.bytes() + matrix_.bytes() + numbers_.bytes() + lists_.bytes(); }

    // The gradient at z, after minimize().
    const double* gradient() const { return y_; }

    bool is_at_upper(Index k) const { return has_upper && z[k] >= upper[k]; }

   protected:
    bool is_interrupted() const { return *interrupted != 0; }

    bool is_limited() const { return has_upper || has_total; }

    void compute_gradient() {
        copy(q, y_, n);
        for (Index k = 0; k < n; ++k)
            if (z[k] != 0.0) add_column(k, z[k]);
    }

    void add_column(Index k, double amount) {
        const double* RESTRICT column = Q + k * stride;
        double* RESTRICT y = y_;
        for (Index j = 0; j < n; ++j) y[j] += amount * column[j];
    }

    // ---- Limits

    double within_bounds(Index k, double value) const {
        const double positive = larger(value, 0.0);
        return has_upper ? smaller(positive, upper[k]) : positive;
    }

    // List the variables between their bounds, in ascending order; return how many there are.
    Index list_passive() {
        Index n_passive = 0;
        for (Index k = 0; k < n; ++k)
            if (z[k] > 0.0 && !is_at_upper(k)) passive_[n_passive++] = k;
        return n_passive;
    }

    // Choose the stiffness, of the size of Q, and guess the multiplier: the mean of the slopes, by shares of the sum.
    void set_up_total() {
        double largest = 0.0, slopes = 0.0, sum = 0.0;
        for (Index k = 0; k < n; ++k) {
            largest = larger(largest, row[k]);
            if (is_at_upper(k)) continue;
            slopes += z[k] * y_[k];
            sum += z[k] * row[k];
        }
        stiffness_ = 1.0 / (largest * largest);
        multiplier_ = sum > 0.0 ? -slopes / sum : 0.0;
    }

    // Return what the sum lacks of the total.
    double missing_total() const {
        double missing = total;
        for (Index k = 0; has_total && k < n; ++k) missing -= row[k] * z[k];
        return missing;
    }

    bool has_right_sum() const {
        constexpr double rounding = 1e-13;
        return !has_total || std::fabs(missing_total()) <= rounding * total;
    }

    double element(Index i, Index j) const {
        const double value = Q[i * stride + j];
        return has_total ? value + stiffness_ * row[i] * row[j] : value;
    }

    // Return the slope of a variable: that of the objective along it, at the price of the sum.
    double slope(Index k) const { return has_total ? y_[k] + multiplier_ * row[k] : y_[k]; }

    double rounding_of_slope(Index k) const {
        const double terms = std::fabs(q[k]) + std::fabs(y_[k] - q[k]);
        return gradient_rounding * (has_total ? terms + multiplier_terms_ * row[k] : terms);
    }

    bool wants_to_grow(Index k) const { return slope(k) < -rounding_of_slope(k); }
    bool wants_to_shrink(Index k) const { return slope(k) > rounding_of_slope(k); }

    // Choose the multiplier so that the slopes of the passive variables are as small as possible.
    void fit_multiplier(Index n_passive) {
        if (!has_total || n_passive == 0) return;
        double slopes = 0.0, terms = 0.0, sum = 0.0;
        for (Index i = 0; i < n_passive; ++i) {
            const Index k = passive_[i];
            slopes += row[k] * y_[k];
            terms += row[k] * (std::fabs(q[k]) + std::fabs(y_[k] - q[k]));
            sum += row[k] * row[k];
        }
        multiplier_ = -slopes / sum;
        multiplier_terms_ = terms / sum;
    }

    // Overwrite packed_ with the solution of the factorized system; with a sum, the one whose sum is `sum`.
    void solve_with_total(Index n_passive, double sum) {
        solve_factorized(factor_.begin(), stride, n_passive, inverse_, packed_);
        if (!has_total || n_passive == 0) return;
        for (Index i = 0; i < n_passive; ++i) along_row_[i] = row[passive_[i]];
        solve_factorized(factor_.begin(), stride, n_passive, inverse_, along_row_);
        double per_unit = 0.0;
        for (Index i = 0; i < n_passive; ++i) {
            sum -= row[passive_[i]] * packed_[i];
            per_unit += row[passive_[i]] * along_row_[i];
        }
        for (Index i = 0; i < n_passive; ++i) packed_[i] += sum / per_unit * along_row_[i];
    }

    // Bring variables that rounding moved out of their bounds back, and give what the sum lacks to the passive ones by
    // their size.
    void keep_limits() {
        for (Index k = 0; k < n; ++k) z[k] = within_bounds(k, z[k]);
        if (!has_total) return;
        const Index n_passive = list_passive();
        const double missing = missing_total();
        double sum = 0.0;
        for (Index i = 0; i < n_passive; ++i) sum += row[passive_[i]] * z[passive_[i]];
        for (Index i = 0; sum > 0.0 && i < n_passive; ++i) {
            const Index k = passive_[i];
            z[k] = within_bounds(k, z[k] + missing / sum * z[k]);
        }
    }

    // ---- The factor

    // Factorize the matrix of the passive variables; return whether it is positive.
    bool factorize_passive(Index n_passive, double ridge) {
        double* R = factor_.begin();
        for (Index i = 0; i < n_passive; ++i) {
            const double* source = Q + passive_[i] * stride;
            double* RESTRICT target = R + i * stride;
            for (Index j = i; j < n_passive; ++j) target[j] = source[passive_[j]];
            if (has_total) {
                const double pull = stiffness_ * row[passive_[i]];
                for (Index j = i; j < n_passive; ++j) target[j] += pull * row[passive_[j]];
            }
            target[i] += ridge;
        }
        return factorize(R, stride, n_passive, inverse_, interrupted);
    }

    // Add variable k to the factor; return false where it depends on the others.
    bool append(Index n_passive, Index k) {
        double* R = factor_.begin();
        for (Index i = 0; i < n_passive; ++i) packed_[i] = element(passive_[i], k);
        solve_forward(R, stride, n_passive, inverse_, packed_);
        const double diagonal = element(k, k);
        double pivot = diagonal;
        for (Index i = 0; i < n_passive; ++i) pivot -= packed_[i] * packed_[i];
        constexpr double dependent = 1e-13;  // of the diagonal: below, the solution would be mostly rounding
        if (!(pivot > dependent * diagonal)) return false;
        for (Index i = 0; i < n_passive; ++i) R[i * stride + n_passive] = packed_[i];
        R[n_passive * stride + n_passive] = std::sqrt(pivot);
        inverse_[n_passive] = 1.0 / R[n_passive * stride + n_passive];
        passive_[n_passive] = k;
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
            double *above = R + k * stride, *below = above + stride;
            const double length = std::hypot(above[k], below[k]);
            const double cosine = above[k] / length, sine = below[k] / length;
            for (Index j = k; j + 1 < n_passive; ++j) {
                const double u = above[j], l = below[j];
                above[j] = cosine * u + sine * l;
                below[j] = cosine * l - sine * u;
            }
            inverse_[k] = 1.0 / above[k];
        }
    }

    Buffer<double> matrix_, factor_, numbers_;
    Buffer<Index> lists_;
    double *y_ = nullptr, *guess_ = nullptr, *swept_ = nullptr, *packed_ = nullptr, *inverse_ = nullptr,
           *along_row_ = nullptr;
    Index *passive_ = nullptr, *wrong_ = nullptr, *merged_ = nullptr, *refused_ = nullptr;
    double stiffness_ = 0.0, multiplier_ = 0.0, multiplier_terms_ = 0.0;  // of the sum
};

}  // namespace knownmf
