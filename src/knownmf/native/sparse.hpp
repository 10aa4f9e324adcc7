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
        return solver_.bytes() + least_squares_.bytes() + frames_.bytes() + numbers_.bytes() + filled_.bytes() +
               models_.bytes() + single_.bytes() + over_components_.bytes() + allowed_.bytes();
    }

    // Solve all frames of a sparse block.
    [[nodiscard]] Status solve(const Basis& basis, const Observations& block, const Options& options, Answer& answer) {
        const Index at_once = basis.beta == 2.0 ? group_size : 1;
        Weights all{0.0, 0};
        for (Index f = 0; f < basis.n_bins; ++f) all.add(basis.weights[f]);
        Status status = done;
        for (Index first = 0; first < block.n_frames && status == done; first += at_once) {
            if (*options.interrupted != 0) return interrupted;
            const Index last = smaller(first + at_once, block.n_frames);
            status = basis.beta == 2.0 ? solve_least_squares(basis, block, first, last, options, answer)
                                       : solve_gathered(basis, block, first, options, answer);
            for (Index t = first; t < last; ++t) set_null_divergence(basis, block, t, all, answer);
        }
        return status;
    }

   private:
    // The weights of some bins: their sum, and how many are not zero.
    struct Weights {
        double sum;
        Index n;

        void add(double weight) {
            sum += weight;
            n += weight > 0.0;
        }
    };

    static void set_null_divergence(const Basis& basis, const Observations& block, Index t, const Weights& all,
                                    Answer& answer) {
        const Index start = block.starts[t], n_entries = block.starts[t + 1] - start;
        const std::int32_t* bins = block.entry_bins + start;
        const auto weight = [&basis, bins](Index j) { return basis.weights[bins[j]]; };
        Weights filled{0.0, 0};
        for (Index j = 0; j < n_entries; ++j) filled.add(weight(j));
        const double empty = filled.n < all.n ? larger(all.sum - filled.sum, 0.0) : 0.0;
        answer.null_divergence[t] = null_divergence(block.entries + start, weight, n_entries, empty, basis.beta);
    }

    // ---- Kullback-Leibler

    [[nodiscard]] Status solve_gathered(const Basis& basis, const Observations& block, Index t, const Options& options,
                                        Answer& answer) {
        const Index n_entries = block.starts[t + 1] - block.starts[t];
        const std::int32_t* bins = block.entry_bins + block.starts[t];
        Basis local;
        if (!gather(basis, bins, n_entries, local)) return out_of_memory;
        Observations frame{};
        frame.n_frames = 1;
        frame.data = block.entries + block.starts[t];
        frame.support = row_of(block.support, t, basis.n_components, nullptr);
        frame.start = row_of(block.start, t, basis.n_components, nullptr);
        frame.l2 = row_of(block.l2, t, basis.n_components, nullptr);
        frame.upper = row_of(block.upper, t, basis.n_components, nullptr);
        frame.total = row_of(block.total, t, 1, nullptr);
        frame.total_is_most = block.total_is_most;
        const double* own_l1 = row_of(block.l1, t, basis.n_components, nullptr);
        for (Index k = 0; k < basis.n_components; ++k)
            local.l1[k] += own_l1 != nullptr ? own_l1[k] * basis.units[k] : basis.l1[k];
        Answer one = answer;
        one.H += t * basis.n_components;
        one.gap += t, one.relative_gap += t, one.kkt += t, one.objective += t, one.n_iter += t, one.converged += t;
        one.null_divergence += t;  // replaced by that of all bins
        return solver_.solve(local, frame, options, rounding_of_weighted_sums(basis.n_bins), one);
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
            local.l1[k] = larger(basis.weighted_sums[k] - local.weighted_sums[k], 0.0);
        return true;
    }

    // ---- Least squares

    // Solve some frames. They pass over the basis together: of a large one, a few bins stay in the cache for all of
    // them.
    [[nodiscard]] Status solve_least_squares(const Basis& basis, const Observations& block, Index first, Index last,
                                             const Options& options, Answer& answer) {
        const Index stride = basis.component_stride, of_components = rows_over_components * stride;
        if (!least_squares_.reserve(basis) || !frames_.reserve(group_size) ||
            !filled_.reserve(group_size * bins_at_once) || !models_.reserve(group_size * bins_at_once) ||
            !over_components_.reserve(group_size * of_components) || !allowed_.reserve(group_size * stride)) {
            return out_of_memory;
        }
        for (Index t = first; t < last; ++t) {
            const Index i = t - first;
            place(frames_[i], nullptr, 0, over_components_.begin() + i * of_components, stride,
                  allowed_.begin() + i * stride);
            load_sums(frames_[i], block, t, basis);
        }
        for_each_entry(basis, block, first, last, &SparseSolver::add_to_prices, &SparseSolver::add_block_to_prices);
        for (Index i = 0; i < last - first; ++i) {
            Frame& frame = frames_[i];
            const Status status = least_squares_.solve(frame, basis, options, false, block.l2 != nullptr);
            if (status != done) return status;
            if (options.round_to_single != 0) least_squares_.round(frame, basis, false);
            const Index n_entries = block.starts[first + i + 1] - block.starts[first + i];
            set_rounding_of_gram(frame, basis, unit_roundoff * static_cast<double>(n_entries));
            const double of_both = dot(frame.h, least_squares_.offset(), basis.n_components);
            const double of_activations = dot(frame.h, frame.B, basis.n_components) - of_both;
            frame.sums.model_push = of_activations + 2.0 * of_both + (frame.sums.size - frame.sums.energy);
            certify(frame, basis);
            // The squared error is, elsewhere than at the entries, the model's energy there: that everywhere less that
            // at the entries.
            frame.squared_error = 0.0;
            frame.energy_elsewhere = of_activations;
        }
        for_each_entry(basis, block, first, last, &SparseSolver::add_to_error, &SparseSolver::add_block_to_error);
        for (Index i = 0; i < last - first; ++i) {
            const Frame& frame = frames_[i];
            const double error = frame.squared_error + larger(frame.energy_elsewhere, 0.0);
            const double kkt = Certificate(frame, basis).kkt();
            const double objective = 0.5 * error + penalties(frame, basis.n_components);
            write_answer(frame, basis, objective, kkt, frame.criterion <= options.tol, answer);
        }
        return done;
    }

    // Write scale, sums and components of frame t.
    static void load_sums(Frame& frame, const Observations& block, Index t, const Basis& basis) {
        frame.number = t;
        frame.has_data = true;
        double largest = 0.0;
        for (Index j = block.starts[t]; j < block.starts[t + 1]; ++j) {
            if (basis.weights[block.entry_bins[j]] > 0.0) largest = larger(largest, std::fabs(block.entries[j]));
        }
        frame.exponent = exponent_of(largest > 0.0 ? largest : size_of_total(block, t, basis));
        const double scale = inverse_scale_of(frame);
        double data = 0.0, energy = 0.0, size = 0.0, weight = 0.0;
        for (Index j = block.starts[t]; j < block.starts[t + 1]; ++j) {
            const double x = block.entries[j] * scale, weight_of_bin = basis.weights[block.entry_bins[j]];
            const double positive = larger(x, 0.0);
            data += weight_of_bin * positive;
            energy += weight_of_bin * positive * positive;
            size += weight_of_bin * x * x;
        }
        for (Index f = 0; f < basis.n_bins; ++f) weight += basis.weights[f];
        frame.sums = BinSums{weight, data, energy, size, 0.0, 0.0, 0.0, 0.0};
        frame.has_negative_data = size > energy;
        copy(basis.weighted_sums, frame.weighted_sums, basis.component_stride);
        load_components(frame, block, basis, false);
    }

    // A few entries of a frame: weight x, weight, and the rows of the transposed basis at their bins.
    struct Entries {
        static constexpr Index most = 4;
        double x[most], weight[most];
        const double* row[most];
        Index n;
    };

    // What is done with entries: a few at a time, or all in a block of bins at once, for frames that fill it.
    using Visit = void (*)(Frame&, const Entries&, const Basis&);
    using VisitBlock = void (SparseSolver::*)(Index n_filled, Index begin, Index end, const Basis&);

    // 512 bins of 64 components take 256 kB: they stay in a second-level cache for all frames that visit them.
    static constexpr Index bins_at_once = 512;

    // Visit all entries of some frames, bins in ascending order.
    void for_each_entry(const Basis& basis, const Observations& block, Index first, Index last, Visit visit,
                        VisitBlock visit_block) {
        // A block with an entry in more than one of so many bins is filled with its zeros; measured: from 5 to 7.
        constexpr Index bins_per_entry = 5;
        Index next[group_size] = {};
        for (Index t = first; t < last; ++t) next[t - first] = block.starts[t];
        for (Index begin = 0; begin < basis.n_bins; begin += bins_at_once) {
            const Index stop = smaller(begin + bins_at_once, basis.n_bins);
            Index n_filled = 0;
            for (Index t = first; t < last; ++t) {
                const Index j = next[t - first], end = entry_at(block, j, block.starts[t + 1], stop);
                Frame& frame = frames_[t - first];
                if (bins_per_entry * (end - j) > stop - begin) {
                    fill_in(block, frame, n_filled, begin, j, end);
                    filled_frames_[n_filled++] = &frame;
                } else {
                    visit_few(basis, block, frame, j, end, visit);
                }
                next[t - first] = end;
            }
            if (n_filled > 0) (this->*visit_block)(n_filled, begin, stop, basis);
        }
    }

    // Return the first entry from j on, before `end`, at a bin of at least `bin`.
    static Index entry_at(const Observations& block, Index j, Index end, Index bin) {
        while (j < end) {
            const Index middle = j + (end - j) / 2;
            if (block.entry_bins[middle] < bin) {
                j = middle + 1;
            } else {
                end = middle;
            }
        }
        return j;
    }

    // Visit the entries from j to `end` of a frame.
    static void visit_few(const Basis& basis, const Observations& block, Frame& frame, Index j, Index end,
                          Visit visit) {
        const double scale = inverse_scale_of(frame);
        while (j < end) {
            Entries some;
            for (some.n = 0; some.n < Entries::most && j < end; ++some.n, ++j) {
                some.x[some.n] = block.entries[j] * scale;
                some.weight[some.n] = basis.weights[block.entry_bins[j]];
                some.row[some.n] = basis.bins + block.entry_bins[j] * basis.component_stride;
            }
            visit(frame, some, basis);
        }
    }

    // Write the entries from j to `end` of a frame, and zeros between them, to row i of filled_.
    void fill_in(const Observations& block, const Frame& frame, Index i, Index begin, Index j, Index end) {
        const double scale = inverse_scale_of(frame);
        double* row = filled_.begin() + i * bins_at_once;
        fill(row, bins_at_once, 0.0);
        for (; j < end; ++j) row[block.entry_bins[j] - begin] = block.entries[j] * scale;
    }

    // Add what a block of bins has to A of the frames that fill it; what of it is negative, to B.
    void add_block_to_prices(Index n_filled, Index begin, Index end, const Basis& basis) {
        const Index stride = basis.component_stride;
        const double* rows = basis.bins + begin * stride;
        Index n_negative = 0;
        for (Index i = 0; i < n_filled; ++i) {
            if (!filled_frames_[i]->has_negative_data) continue;
            double *row = filled_.begin() + i * bins_at_once, *negative = models_.begin() + n_negative * bins_at_once;
            for (Index f = begin; f < end; ++f) {
                negative[f - begin] = basis.weights[f] * larger(-row[f - begin], 0.0);
                row[f - begin] = larger(row[f - begin], 0.0);
            }
            sources_[n_negative] = negative;
            targets_[n_negative++] = filled_frames_[i]->B;
        }
        if (n_negative > 0) combine_rows<double>(sources_, n_negative, end - begin, rows, stride, stride, targets_);
        for (Index i = 0; i < n_filled; ++i) {
            double* row = filled_.begin() + i * bins_at_once;
            for (Index f = begin; f < end; ++f) row[f - begin] *= basis.weights[f];
            sources_[i] = row;
            targets_[i] = filled_frames_[i]->A;
        }
        combine_rows<double>(sources_, n_filled, end - begin, rows, stride, stride, targets_);
    }

    // Add the squared error of a block of bins to that of the frames that fill it. Its zeros count as entries.
    void add_block_to_error(Index n_filled, Index begin, Index end, const Basis& basis) {
        for (Index i = 0; i < n_filled; ++i) {
            sources_[i] = filled_frames_[i]->h;
            targets_[i] = models_.begin() + i * bins_at_once;
        }
        const Index stride = basis.component_stride;
        products_of_rows<double>(sources_, n_filled, basis.bins + begin * stride, end - begin, stride, targets_);
        for (Index i = 0; i < n_filled; ++i) {
            const double *RESTRICT x = filled_.begin() + i * bins_at_once, *RESTRICT model = targets_[i];
            const double* RESTRICT weight = basis.weights + begin;
            double error = 0.0, energy = 0.0;
            VECTORIZED_SUM(error, energy)
            for (Index f = 0; f < end - begin; ++f) {
                error += weight[f] * (x[f] - model[f]) * (x[f] - model[f]);
                energy += weight[f] * model[f] * model[f];
            }
            filled_frames_[i]->squared_error += error;
            filled_frames_[i]->energy_elsewhere -= energy;
        }
    }

    // Add what some entries have to A; what of it is negative, to B.
    static void add_to_prices(Frame& frame, const Entries& some, const Basis& basis) {
        double* RESTRICT A = frame.A;
        if (frame.has_negative_data) {
            for (Index i = 0; i < some.n; ++i) {
                double* out = some.x[i] < 0.0 ? frame.B : A;
                add_multiple(some.weight[i] * std::fabs(some.x[i]), some.row[i], out, basis.component_stride);
            }
            return;
        }
        if (some.n < Entries::most) {
            for (Index i = 0; i < some.n; ++i)
                add_multiple(some.weight[i] * some.x[i], some.row[i], A, basis.component_stride);
            return;
        }
        const double *RESTRICT a = some.row[0], *RESTRICT b = some.row[1], *RESTRICT c = some.row[2],
                               *RESTRICT d = some.row[3];
        const double xa = some.weight[0] * some.x[0], xb = some.weight[1] * some.x[1];
        const double xc = some.weight[2] * some.x[2], xd = some.weight[3] * some.x[3];
        for (Index k = 0; k < basis.component_stride; ++k) A[k] += (xa * a[k] + xb * b[k]) + (xc * c[k] + xd * d[k]);
    }

    // Add the squared error of some entries, and take the energy of their models from that elsewhere.
    static void add_to_error(Frame& frame, const Entries& some, const Basis& basis) {
        double model[Entries::most] = {};
        double* out[Entries::most] = {model, model + 1, model + 2, model + 3};
        const double* h = frame.h;
        if (some.n == Entries::most) {
            tile_of_dots<double, Entries::most, 1>(some.row, &h, basis.component_stride, out);
        } else {
            for (Index i = 0; i < some.n; ++i)
                tile_of_dots<double, 1, 1>(some.row + i, &h, basis.component_stride, out + i);
        }
        for (Index i = 0; i < some.n; ++i) {
            const double residual = some.x[i] - model[i];
            frame.squared_error += some.weight[i] * residual * residual;
            frame.energy_elsewhere -= some.weight[i] * model[i] * model[i];
        }
    }

    Solver solver_;
    LeastSquares least_squares_;
    Buffer<Frame> frames_;
    Frame* filled_frames_[group_size] = {};
    const double* sources_[group_size] = {};
    double* targets_[group_size] = {};
    Buffer<double> numbers_, over_components_, filled_, models_;
    Buffer<float> single_;
    Buffer<bool> allowed_;
};

}  // namespace knownmf
