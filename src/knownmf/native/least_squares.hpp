// Least squares where all frames share the weights: one Gram matrix serves them all, and everything happens in as many
// dimensions as there are components. The quadratic program is then the problem itself, so that every answer is exact.
#pragma once

#include "block.hpp"
#include "program_limits.hpp"

namespace knownmf {

// Write the bounds of the rounding errors of slopes that come from the Gram matrix, whose elements prepare.hpp adds up
// in chunks of bins; `of_data` is that of the products with the data.
inline void set_rounding_of_gram(Frame& frame, const Basis& basis, double of_data) {
    const Index of_gram = smaller(bins_of_gram, basis.n_bins) + basis.n_bins / bins_of_gram;
    const Index n_terms = of_gram + n_active(frame.h, basis.n_components) + 16;
    frame.rounding.products = of_data + unit_roundoff * static_cast<double>(n_terms);
    frame.rounding.of_differences = true;
}

class LeastSquares {
   public:
    [[nodiscard]] bool reserve(const Basis& basis) {
        return components_.reserve(3 * basis.component_stride) && bins_.reserve(basis.bin_stride) &&
               allowed_.reserve(basis.component_stride);
    }

    Index bytes() const {
        return components_.bytes() + bins_.bytes() + own_units_.bytes() + allowed_.bytes() + program_.bytes();
    }

    // Solve one frame, for which A = W' (weight x), and B = W' (weight background), are there. Writes h, B, and the
    // model, if the frame has one (of sparse frames `model` is not used). If the frame has L2 penalties of its own,
    // those of the basis must be zero.
    [[nodiscard]] Status solve(Frame& frame, const Basis& basis, const Options& options, bool dense,
                               bool has_own_l2 = false) {
        double* offset = components_.begin();
        copy(frame.B, offset, basis.n_components);
        if (!(has_own_l2 ? set_own_program(frame, basis) : set_program(frame, basis))) return out_of_memory;
        program_.interrupted = options.interrupted;
        for (Index i = 0; i < n_; ++i) {
            const Index k = allowed_[i];
            program_.q[i] = (frame.l1[k] - frame.A[k] + offset[k]) * units_[k];
            program_.z[i] = 0.0;
        }
        if (is_limited(frame)) start_within_limits(frame, basis);
        run(frame, basis);
        if (*options.interrupted != 0) return interrupted;
        if (dense) refine(frame, basis);
        return done;
    }

    // Round a solved frame's activations to single precision, and bring B and the model up to date.
    void round(Frame& frame, const Basis& basis, bool dense) {
        if (!round_to_single(frame, basis)) return;
        const double* offset = components_.begin();
        for (Index k = 0; k < basis.n_components; ++k) {
            // Both sides of the Gram matrix are scaled, and its diagonal holds the L2 penalties.
            double product = 0.0;
            const double* row = basis.gram + k * basis.component_stride;
            for (Index j = 0; j < basis.n_components; ++j)
                if (frame.h[j] != 0.0) product += row[j] * (frame.h[j] / basis.gram_units[j]);
            frame.B[k] = offset[k] + product / basis.gram_units[k] - basis.l2[k] * frame.h[k];
        }
        if (dense) update_residual(frame, basis);
    }

    // W' (weight background) of the frame that was solved last.
    const double* offset() const { return components_.begin(); }

   private:
    // Give the program the limits of the frame, and start it from activations that have the total.
    void start_within_limits(Frame& frame, const Basis& basis) {
        fill(frame.h, basis.n_components, 0.0);
        make_feasible(frame, basis);
        for (Index i = 0; i < n_; ++i) program_.z[i] = frame.h[allowed_[i]] / units_[allowed_[i]];
        const Scaling scaling{allowed_.begin(), n_, units_, nullptr};
        set_limits(program_, frame, basis, scaling, 0.0);
    }

    // Take the Gram matrix as it is, or what of it belongs to the components that the frame may use.
    [[nodiscard]] bool set_program(const Frame& frame, const Basis& basis) {
        list_allowed(frame, basis);
        units_ = basis.gram_units;
        if (n_ == basis.n_components && !needs_slack(frame)) {
            if (!program_.reserve(n_)) return false;
            program_.Q = basis.gram;
            return true;
        }
        if (!program_.reserve_matrix(n_ + needs_slack(frame))) return false;
        for (Index i = 0; i < n_; ++i)
            for (Index j = 0; j < n_; ++j)
                program_.Q[i * program_.stride + j] = basis.gram[allowed_[i] * basis.component_stride + allowed_[j]];
        return true;
    }

    // Make a matrix of the Gram matrix and the L2 penalties of the frame.
    [[nodiscard]] bool set_own_program(const Frame& frame, const Basis& basis) {
        list_allowed(frame, basis);
        if (!program_.reserve_matrix(n_ + needs_slack(frame)) || !own_units_.reserve(basis.component_stride))
            return false;
        for (Index i = 0; i < n_; ++i) {
            const Index k = allowed_[i];
            const double share = basis.gram[k * basis.component_stride + k];  // 0 of an atom of zeros, else 1
            const double diagonal = share / (basis.gram_units[k] * basis.gram_units[k]) + frame.l2[k];
            own_units_[k] = diagonal > 0.0 ? 1.0 / std::sqrt(diagonal) : 1.0;
        }
        units_ = own_units_.begin();
        for (Index i = 0; i < n_; ++i) {
            double* row = program_.Q + i * program_.stride;
            const Index k = allowed_[i];
            const double* source = basis.gram + k * basis.component_stride;
            const double share = units_[k] / basis.gram_units[k];
            for (Index j = 0; j < n_; ++j)
                row[j] = source[allowed_[j]] * (share * (units_[allowed_[j]] / basis.gram_units[allowed_[j]]));
            row[i] = frame.l2[k] > 0.0 ? 1.0 : source[k];
        }
        return true;
    }

    void list_allowed(const Frame& frame, const Basis& basis) {
        n_ = 0;
        for (Index k = 0; k < basis.n_components; ++k)
            if (frame.allowed[k]) allowed_[n_++] = k;
    }

    void run(Frame& frame, const Basis& basis) {
        constexpr double ridge = 1e-14;
        program_.minimize(ridge);
        ++frame.n_iter;
        take_activations(frame, basis);
        for (Index i = 0; i < n_; ++i) {
            const Index k = allowed_[i];
            const double slope = program_.gradient()[i] / units_[k];
            frame.B[k] = slope + frame.A[k] - frame.l1[k] - frame.l2[k] * frame.h[k];
        }
    }

    void take_activations(Frame& frame, const Basis& basis) {
        fill(frame.h, basis.n_components, 0.0);
        for (Index i = 0; i < n_; ++i) {
            const Index k = allowed_[i];
            frame.h[k] =
                program_.is_at_upper(i) ? frame.upper[k] : smaller(program_.z[i] * units_[k], upper_of(frame, k));
        }
    }

    // Where the model is nearly exact, slopes from products of the data are mostly rounding: take them from the
    // residual, and step once more, as long as that lowers the residual.
    void refine(Frame& frame, const Basis& basis) {
        constexpr double nearly_exact = 1e-8;  // residual energy over energy; the products hold 1e-16
        constexpr int most_refinements = 3;
        double* best = components_.begin() + 2 * basis.component_stride;
        double energy = update_residual(frame, basis);
        if (energy < nearly_exact * frame.sums.energy) take_slopes(frame, basis);
        for (int n = 0; n < most_refinements && energy < nearly_exact * frame.sums.energy; ++n) {
            copy(frame.h, best, basis.n_components);
            for (Index i = 0; i < n_; ++i) {
                const Index k = allowed_[i];
                const double slope = frame.B[k] - frame.A[k] + frame.l1[k] + frame.l2[k] * frame.h[k];
                program_.q[i] = slope * units_[k];
            }
            if (needs_slack(frame)) program_.q[n_] = 0.0;
            program_.step_within_support(program_.q);
            take_activations(frame, basis);
            const double lowered = update_residual(frame, basis);
            if (!(lowered < energy)) {
                copy(best, frame.h, basis.n_components);
                update_residual(frame, basis);
                return;
            }
            energy = lowered;
            take_slopes(frame, basis);
        }
    }

    // Write B from the residual.
    void take_slopes(Frame& frame, const Basis& basis) {
        const double* residual = bins_.begin();
        double* excess = components_.begin() + basis.component_stride;
        products_of_rows<double>(&residual, 1, basis.atoms, basis.n_components, basis.bin_stride, &excess);
        for (Index k = 0; k < basis.n_components; ++k) frame.B[k] = frame.A[k] - excess[k];
    }

    // Recompute the model and weight (x - v) from the atoms; return the residual's energy.
    double update_residual(Frame& frame, const Basis& basis) {
        const Index size = basis.bin_stride;
        copy(frame.background, frame.model, size);
        add_active(frame.h, basis.n_components, basis.atoms, size, frame.model, size);
        double* residual = bins_.begin();
        double energy = 0.0;
        for (Index f = 0; f < size; ++f) residual[f] = frame.weight[f] * (frame.x[f] - frame.model[f]);
        VECTORIZED_SUM(energy)
        for (Index f = 0; f < size; ++f) energy += residual[f] * (frame.x[f] - frame.model[f]);
        return energy;
    }

    Index n_ = 0;
    const double* units_ = nullptr;  // the program is scaled by these on both sides, to a unit diagonal
    QuadraticProgram program_;
    Buffer<double> components_, bins_, own_units_;
    Buffer<Index> allowed_;
};

}  // namespace knownmf
