// Products of rows with a basis, and the symmetric product that gives a curvature: where most of the time goes.
//
// Every element of a result is summed in an order of its own that does not depend on the other rows of the call. A
// frame's answer therefore has the same bits whichever frames are computed with it.
#pragma once

#include <cstring>

#include "memory.hpp"

namespace knownmf {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif
// A tile of sums lives in vector registers: four rows by as many columns as leave registers for the factors.
constexpr int tile_rows = 4;
constexpr int tile_columns = vector_bytes == 64 ? 6 : 3;

template <class T, int n_bytes>
struct Register {
    typedef T Lanes __attribute__((vector_size(n_bytes)));
};
template <class T>
using Vector = typename Register<T, vector_bytes>::Lanes;
template <class T>
constexpr Index lanes = vector_bytes / static_cast<Index>(sizeof(T));

template <class T>
inline Vector<T> load(const T* source) {
    Vector<T> values;
    std::memcpy(&values, source, sizeof values);
    return values;
}

template <class T>
inline void store(const Vector<T>& values, T* target) {
    std::memcpy(target, &values, sizeof values);
}

// Return the sum of the lanes of a vector, by halves, which stay in registers.
template <class T, int n_bytes>
inline T sum_of_lanes(const typename Register<T, n_bytes>::Lanes& values) {
    if constexpr (n_bytes > 2 * static_cast<int>(sizeof(T))) {
        typename Register<T, n_bytes / 2>::Lanes low, high;
        std::memcpy(&low, &values, sizeof low);
        std::memcpy(&high, reinterpret_cast<const char*>(&values) + sizeof low, sizeof high);
        return sum_of_lanes<T, n_bytes / 2>(low + high);
    } else {
        return values[0] + values[1];
    }
}

// Write out[i][j] = rows[i] . columns[j] for one tile; `width` is a multiple of the lanes.
template <class T, int n_rows, int n_columns>
inline void tile_of_dots(const T* const* rows, const T* const* columns, Index width, T* const* out) {
    Vector<T> sums[n_rows][n_columns] = {};
    for (Index f = 0; f < width; f += lanes<T>) {
        Vector<T> row[n_rows];
        for (int i = 0; i < n_rows; ++i) row[i] = load(rows[i] + f);
        for (int j = 0; j < n_columns; ++j) {
            const Vector<T> column = load(columns[j] + f);
            for (int i = 0; i < n_rows; ++i) sums[i][j] += row[i] * column;
        }
    }
    for (int i = 0; i < n_rows; ++i)
        for (int j = 0; j < n_columns; ++j) out[i][j] = sum_of_lanes<T, vector_bytes>(sums[i][j]);
}

static_assert(tile_rows == 4, "the functions below list the numbers of rows of a tile");

// Do the same for up to `tile_columns` columns. Fewer than that are computed one at a time, in the same order of sums.
template <class T, int n_rows>
inline void dots_of_some(const T* const* rows, const T* const* columns, Index n_columns, Index width, T* const* out) {
    if (n_columns == tile_columns) {
        tile_of_dots<T, n_rows, tile_columns>(rows, columns, width, out);
        return;
    }
    for (Index j = 0; j < n_columns; ++j) {
        T* single[n_rows];
        for (int i = 0; i < n_rows; ++i) single[i] = out[i] + j;
        tile_of_dots<T, n_rows, 1>(rows, columns + j, width, single);
    }
}

// Write out[i][j] = rows[i] . (row j of `columns`) for all i and j; `columns` has rows of length `width`, padded.
template <class T>
inline void products_of_rows(const T* const* rows, Index n_rows, const T* columns, Index n_columns, Index width,
                             T* const* out) {
    for (Index j = 0; j < n_columns; j += tile_columns) {
        const T* column[tile_columns];
        const Index n = smaller<Index>(tile_columns, n_columns - j);
        for (Index c = 0; c < n; ++c) column[c] = columns + (j + c) * width;
        for (Index i = 0; i < n_rows; i += tile_rows) {
            T* target[tile_rows];
            const Index n_left = smaller<Index>(tile_rows, n_rows - i);
            for (Index r = 0; r < n_left; ++r) target[r] = out[i + r] + j;
            if (n_left == 4) dots_of_some<T, 4>(rows + i, column, n, width, target);
            if (n_left == 3) dots_of_some<T, 3>(rows + i, column, n, width, target);
            if (n_left == 2) dots_of_some<T, 2>(rows + i, column, n, width, target);
            if (n_left == 1) dots_of_some<T, 1>(rows + i, column, n, width, target);
        }
    }
}

// Write the lower triangle of Q[p][q] = left[p] . right[q] for p >= q, n rows each, where it is symmetric. It ends
// early where the caller wants no more.
template <class T>
inline void lower_products(const T* const* left, const T* const* right, Index n, Index width, T* Q, Index stride,
                           const volatile std::int32_t& interrupted) {
    for (Index q = 0; q < n && interrupted == 0; q += tile_columns) {
        const Index n_columns = smaller<Index>(tile_columns, n - q);
        for (Index p = q; p < n; p += tile_rows) {
            T* target[tile_rows];
            const Index n_rows = smaller<Index>(tile_rows, n - p);
            for (Index r = 0; r < n_rows; ++r) target[r] = Q + (p + r) * stride + q;
            if (n_rows == 4) dots_of_some<T, 4>(left + p, right + q, n_columns, width, target);
            if (n_rows == 3) dots_of_some<T, 3>(left + p, right + q, n_columns, width, target);
            if (n_rows == 2) dots_of_some<T, 2>(left + p, right + q, n_columns, width, target);
            if (n_rows == 1) dots_of_some<T, 1>(left + p, right + q, n_columns, width, target);
        }
    }
}

// Add sum_p coefficients[i][p] * (row p of `basis`) to `n_columns` vectors of out[i], one tile.
template <class T, int n_rows, int n_columns>
inline void tile_of_combinations(const T* const* coefficients, Index depth, const T* basis, Index stride,
                                 T* const* out) {
    Vector<T> sums[n_rows][n_columns];
    for (int i = 0; i < n_rows; ++i)
        for (int j = 0; j < n_columns; ++j) sums[i][j] = load(out[i] + j * lanes<T>);
    for (Index p = 0; p < depth; ++p) {
        const T* row = basis + p * stride;
        Vector<T> part[n_columns];
        for (int j = 0; j < n_columns; ++j) part[j] = load(row + j * lanes<T>);
        for (int i = 0; i < n_rows; ++i) {
            const T coefficient = coefficients[i][p];
            for (int j = 0; j < n_columns; ++j) sums[i][j] += coefficient * part[j];
        }
    }
    for (int i = 0; i < n_rows; ++i)
        for (int j = 0; j < n_columns; ++j) store<T>(sums[i][j], out[i] + j * lanes<T>);
}

// The same for up to `tile_rows` rows.
template <class T, int n_columns>
inline void combinations_of_some(const T* const* coefficients, Index n_rows, Index depth, const T* basis, Index stride,
                                 T* const* out) {
    if (n_rows == 4) tile_of_combinations<T, 4, n_columns>(coefficients, depth, basis, stride, out);
    if (n_rows == 3) tile_of_combinations<T, 3, n_columns>(coefficients, depth, basis, stride, out);
    if (n_rows == 2) tile_of_combinations<T, 2, n_columns>(coefficients, depth, basis, stride, out);
    if (n_rows == 1) tile_of_combinations<T, 1, n_columns>(coefficients, depth, basis, stride, out);
}

// Add sum_p coefficients[i][p] * (row p of `basis`) to out[i] for every row i; rows of `basis` are `stride` apart and
// `width`, a multiple of the lanes, of each is used. All rows i use a few columns of the basis before the next ones are
// read.
template <class T>
inline void combine_rows(const T* const* coefficients, Index n_rows, Index depth, const T* basis, Index stride,
                         Index width, T* const* out) {
    for (Index f = 0; f < width;) {
        const bool whole_tile = f + tile_columns * lanes<T> <= width;
        for (Index i = 0; i < n_rows; i += tile_rows) {
            T* target[tile_rows];
            const Index n = smaller<Index>(tile_rows, n_rows - i);
            for (Index r = 0; r < n; ++r) target[r] = out[i + r] + f;
            if (whole_tile) {
                combinations_of_some<T, tile_columns>(coefficients + i, n, depth, basis + f, stride, target);
            } else {
                combinations_of_some<T, 1>(coefficients + i, n, depth, basis + f, stride, target);
            }
        }
        f += (whole_tile ? tile_columns : 1) * lanes<T>;
    }
}

// Return the inner product of two rows.
template <class T>
inline T dot(const T* RESTRICT a, const T* RESTRICT b, Index size) {
    T total = 0;
    VECTORIZED_SUM(total)
    for (Index k = 0; k < size; ++k) total += a[k] * b[k];
    return total;
}

// Add amount * row to out.
template <class T>
inline void add_multiple(T amount, const T* RESTRICT row, T* RESTRICT out, Index size) {
    for (Index k = 0; k < size; ++k) out[k] += amount * row[k];
}

// Add sum_k h[k] * (row k of `atoms`) to v, four active atoms at a time; zeros cost nothing.
inline void add_active(const double* h, Index n_components, const double* atoms, Index stride, double* RESTRICT v,
                       Index width) {
    const double* row[4];
    double amount[4];
    Index n = 0;
    for (Index k = 0; k < n_components; ++k) {
        if (h[k] == 0.0) continue;
        row[n] = atoms + k * stride;
        amount[n++] = h[k];
        if (n < 4) continue;
        const double *RESTRICT a = row[0], *RESTRICT b = row[1], *RESTRICT c = row[2], *RESTRICT d = row[3];
        const double ha = amount[0], hb = amount[1], hc = amount[2], hd = amount[3];
        for (Index f = 0; f < width; ++f) v[f] += (ha * a[f] + hb * b[f]) + (hc * c[f] + hd * d[f]);
        n = 0;
    }
    for (Index i = 0; i < n; ++i) {
        const double* RESTRICT a = row[i];
        const double ha = amount[i];
        for (Index f = 0; f < width; ++f) v[f] += ha * a[f];
    }
}

}  // namespace knownmf
