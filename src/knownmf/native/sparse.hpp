// Frames of a sparse matrix, each solved over the bins where it is not zero.
//
// Under Kullback-Leibler an empty bin costs its model, so that all empty bins together are an L1 penalty: a frame is
// solved as a dense one over its own bins, with the atoms gathered there. Under least squares the Gram matrix knows the
// empty bins: the products of the entries with the atoms are all that is needed of the data.
#pragma once

#include "solver.hpp"

namespace knownmf {

class SparseSolver {
   public:
    Index bytes() const {
        return solver_.bytes() + least_squares_.bytes() + numbers_.bytes() + single_.bytes() + over_bins_.bytes() +
               over_components_.bytes();
    }

    // Solve all frames of a sparse block.
    [[nodiscard]] Status solve(const Basis& basis, const Observations& block, const Options& options, Answer& answer) {
        Status status = done;
        for (Index t = 0; t < block.n_frames && status == done; ++t) {
            if (*options.interrupted != 0) return interrupted;
            const Index first = block.starts[t], n_entries = block.starts[t + 1] - first;
            const std::int32_t* bins = block.entry_bins + first;
            const double* entries = block.entries + first;
            status = basis.beta == 2.0 ? solve_least_squares(basis, block, t, bins, entries, n_entries, options, answer)
                                       : solve_gathered(basis, block, t, bins, entries, n_entries, options, answer);
        }
        return status;
    }

   private:
    // ---- Kullback-Leibler

    [[nodiscard]] Status solve_gathered(const Basis& basis, const Observations& block, Index t,
                                        const std::int32_t* bins, const double* entries, Index n_entries,
                                        const Options& options, Answer& answer) {
        Basis local;
        if (!gather(basis, bins, n_entries, local)) return out_of_memory;
        Observations frame{};
        frame.n_frames = 1;
        frame.data = entries;
        frame.support = row_of(block.support, t, basis.n_components, nullptr);
        frame.start = row_of(block.start, t, basis.n_components, nullptr);
        Answer one = answer;
        one.H += t * basis.n_components;
        one.gap += t, one.relative_gap += t, one.kkt += t, one.objective += t, one.n_iter += t, one.converged += t;
        return solver_.solve(local, frame, options, one);
    }

    // Make a basis of what the atoms hold at the given bins.
    [[nodiscard]] bool gather(const Basis& basis, const std::int32_t* bins, Index n_entries, Basis& local) {
        const Index n_components = basis.n_components, stride = basis.component_stride;
        const Index bin_stride = padded(larger(n_entries, Index{1}));
        if (!numbers_.reserve(n_components * bin_stride + 2 * bin_stride + 2 * stride) ||
            !single_.reserve(n_components * bin_stride + bin_stride * stride)) {
            return false;
        }
        local = basis;
        local.n_bins = n_entries;
        local.bin_stride = bin_stride;
        local.gram = nullptr;
        local.atoms = numbers_.begin();
        local.weights = local.atoms + n_components * bin_stride;
        local.reach = local.weights + bin_stride;
        local.weighted_sums = local.reach + bin_stride;
        local.l1 = local.weighted_sums + stride;
        local.atoms_single = single_.begin();
        local.bins_single = local.atoms_single + n_components * bin_stride;
        fill(local.atoms, n_components * bin_stride + 2 * bin_stride, 0.0);
        fill(local.atoms_single, n_components * bin_stride, 0.0f);
        for (Index f = 0; f < n_entries; ++f) {
            const double* source = basis.bins + bins[f] * stride;
            local.weights[f] = basis.weights[bins[f]];
            local.reach[f] = basis.reach[bins[f]];
            convert(source, local.bins_single + f * stride, stride);
            for (Index k = 0; k < n_components; ++k) {
                local.atoms[k * bin_stride + f] = source[k];
                local.atoms_single[k * bin_stride + f] = static_cast<float>(source[k]);
            }
        }
        const double* weights = local.weights;
        products_of_rows<double>(&weights, 1, local.atoms, n_components, bin_stride, &local.weighted_sums);
        // An empty bin costs its model.
        for (Index k = 0; k < n_components; ++k)
            local.l1[k] = basis.l1[k] + larger(basis.weighted_sums[k] - local.weighted_sums[k], 0.0);
        return true;
    }

    // ---- Least squares

    [[nodiscard]] Status solve_least_squares(const Basis& basis, const Observations& block, Index t,
                                             const std::int32_t* bins, const double* entries, Index n_entries,
                                             const Options& options, Answer& answer) {
        Basis local = basis;  // its bins are those of the entries
        local.n_bins = n_entries;
        local.bin_stride = padded(larger(n_entries, Index{1}));
        if (!least_squares_.reserve(local) || !over_bins_.reserve(rows_over_bins * local.bin_stride) ||
            !over_components_.reserve(rows_over_components * basis.component_stride) ||
            !allowed_.reserve(basis.component_stride)) {
            return out_of_memory;
        }
        Frame frame{};
        place(frame, over_bins_.begin(), local.bin_stride, over_components_.begin(), basis.component_stride,
              allowed_.begin());
        frame.number = t;
        load_entries(frame, block, basis, local, bins, entries);
        copy(basis.weighted_sums, frame.weighted_sums, basis.n_components);
        load_components(frame, block, basis, false);
        if (!frame.live) {
            write_silence(frame, local, answer);
            return done;
        }
        for (Index f = 0; f < n_entries; ++f) {
            const double amount = frame.weight[f] * frame.x[f];
            const double* RESTRICT row = basis.bins + bins[f] * basis.component_stride;
            double* RESTRICT A = frame.A;
            for (Index k = 0; k < basis.component_stride; ++k) A[k] += amount * row[k];
        }
        const Status status = least_squares_.solve(frame, basis, false);
        if (status != done) return status;
        if (options.round_to_single != 0) least_squares_.round(frame, basis, false);
        certify(frame, basis);
        const double kkt = Certificate(frame, basis.n_components, 2.0).kkt();
        const double objective =
            frame.constant + cost(frame, basis, bins, n_entries) + penalties(frame, basis.n_components);
        write_answer(frame, basis, objective, kkt, frame.criterion <= options.tol, answer);
        return done;
    }

    // Fill a frame with its entries, weights and reach, at its own scale.
    static void load_entries(Frame& frame, const Observations& block, const Basis& basis, const Basis& local,
                             const std::int32_t* bins, const double* entries) {
        const double* support = row_of(block.support, frame.number, basis.n_components, nullptr);
        load_row(entries, local.n_bins, frame.x, local.bin_stride);
        fill(frame.weight, local.bin_stride, 0.0);
        fill(frame.background, local.bin_stride, 0.0);
        fill(frame.reach, local.bin_stride, 0.0);
        for (Index f = 0; f < local.n_bins; ++f) {
            frame.weight[f] = basis.weights[bins[f]];
            const double* row = basis.bins + bins[f] * basis.component_stride;
            frame.reach[f] = support == nullptr ? basis.reach[bins[f]] : dot(support, row, basis.n_components);
        }
        frame.live = scale_frame(frame, local);
        // The dual point along ones has all bins, of which the empty ones were not gathered.
        frame.sums.weight = 0.0;
        for (Index f = 0; f < basis.n_bins; ++f) frame.sums.weight += basis.weights[f];
    }

    // Return the squared error: at the entries bin by bin, elsewhere the model's energy, which is that everywhere less
    // that at the entries.
    static double cost(const Frame& frame, const Basis& basis, const std::int32_t* bins, Index n_entries) {
        double error = 0.0, energy = dot(frame.h, frame.B, basis.n_components);
        for (Index f = 0; f < n_entries; ++f) {
            const double model = dot(frame.h, basis.bins + bins[f] * basis.component_stride, basis.n_components);
            const double residual = frame.x[f] - model;
            error += frame.weight[f] * residual * residual;
            energy -= frame.weight[f] * model * model;
        }
        return 0.5 * (error + larger(energy, 0.0));
    }

    Solver solver_;
    LeastSquares least_squares_;
    Buffer<double> numbers_, over_bins_, over_components_;
    Buffer<float> single_;
    Buffer<bool> allowed_;
};

}  // namespace knownmf
