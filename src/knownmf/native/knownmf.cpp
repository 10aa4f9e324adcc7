// The interface that knownmf/native.py calls, as plain C functions. The only file that is compiled by itself.
#include <new>

#include "cpu_level.hpp"
#include "learning.hpp"
#include "prepare.hpp"
#include "sparse.hpp"

#if defined(_WIN32)
#define KNOWNMF_EXPORT extern "C" __declspec(dllexport)
#else
#define KNOWNMF_EXPORT extern "C" __attribute__((visibility("default")))
#endif

// Return the hash of the sources that the library was compiled from; the build defines it.
KNOWNMF_EXPORT const char* knownmf_source_hash() { return KNOWNMF_SOURCE_HASH; }

// Return the name and version of the compiler; the build defines it.
KNOWNMF_EXPORT const char* knownmf_compiler() { return KNOWNMF_COMPILER; }

// Return the level of the x86-64 psABI that this processor supports, 1 to 4; 0 on other processors.
KNOWNMF_EXPORT int knownmf_cpu_level() { return knownmf::cpu_level(); }

using knownmf::Answer;
using knownmf::Basis;
using knownmf::Index;
using knownmf::Observations;
using knownmf::Options;

// ---- Solving

// Everything that a thread needs to solve blocks: made once, used for one block at a time.
struct Workspace {
    knownmf::Solver dense;
    knownmf::SparseSolver sparse;
};

// Fill the arrays of a basis from W; see prepare.hpp. Returns a status.
KNOWNMF_EXPORT int knownmf_prepare(Basis* basis, const double* W, const volatile std::int32_t* interrupted) {
    return knownmf::prepare(*basis, W, interrupted);
}

// Return a new workspace, null if there is no memory for it.
KNOWNMF_EXPORT Workspace* knownmf_new_workspace() {
    void* memory = std::malloc(sizeof(Workspace));
    return memory != nullptr ? new (memory) Workspace : nullptr;
}

KNOWNMF_EXPORT void knownmf_free_workspace(Workspace* workspace) {
    if (workspace == nullptr) return;
    workspace->~Workspace();
    std::free(workspace);
}

// Return how many bytes a workspace holds.
KNOWNMF_EXPORT Index knownmf_workspace_bytes(const Workspace* workspace) {
    return workspace->dense.bytes() + workspace->sparse.bytes();
}

// Solve a block of frames: dense, or sparse where it has entries. Writes: all arrays of the answer. Returns a status.
KNOWNMF_EXPORT int knownmf_solve(Workspace* workspace, const Basis* basis, const Observations* block,
                                 const Options* options, Answer* answer) {
    return block->starts != nullptr
               ? workspace->sparse.solve(*basis, *block, *options, *answer)
               : workspace->dense.solve(*basis, *block, *options, knownmf::rounding_of_weighted_sums(basis->n_bins),
                                        *answer);
}

// Write the sizes in bytes of Basis, Observations, Options and Answer, which the caller lays out as well.
KNOWNMF_EXPORT void knownmf_structure_sizes(Index* sizes) {
    sizes[0] = sizeof(Basis);
    sizes[1] = sizeof(Observations);
    sizes[2] = sizeof(Options);
    sizes[3] = sizeof(Answer);
}

// ---- Learning, in single and double precision; see learning.hpp. Matrices are frames-major and without padding; one
// with `n_...` = 1 rows stands for all frames.

// Return the share of a frame's largest value that smaller data are raised to for beta < 1; see divergences.hpp.
KNOWNMF_EXPORT double knownmf_zero_floor() { return knownmf::zero_floor; }

// Return the exponent with which an update is sure to lower the objective; see multiplicative.hpp.
KNOWNMF_EXPORT double knownmf_safe_power(double beta, int has_quadratic_penalty) {
    return knownmf::safe_power(beta, has_quadratic_penalty != 0);
}

KNOWNMF_EXPORT double knownmf_measure_single(const float* x, const float* weights, Index n_weights, const float* v,
                                             double beta, int with_cost, float* pull, float* push, Index n,
                                             Index size) {
    return knownmf::measure<float>(x, {weights, n_weights, size}, v, beta, with_cost != 0, pull, push, n);
}

KNOWNMF_EXPORT double knownmf_measure_double(const double* x, const double* weights, Index n_weights, const double* v,
                                             double beta, int with_cost, double* pull, double* push, Index n,
                                             Index size) {
    return knownmf::measure<double>(x, {weights, n_weights, size}, v, beta, with_cost != 0, pull, push, n);
}

KNOWNMF_EXPORT double knownmf_pull_of_activations_single(const float* entries, const std::int32_t* bins,
                                                         const std::int32_t* starts, Index n, const float* H,
                                                         const float* columns, Index n_components, float* pull) {
    return knownmf::pull_of_activations<float>({entries, bins, starts, n}, H, columns, n_components, pull);
}

KNOWNMF_EXPORT double knownmf_pull_of_activations_double(const double* entries, const std::int32_t* bins,
                                                         const std::int32_t* starts, Index n, const double* H,
                                                         const double* columns, Index n_components, double* pull) {
    return knownmf::pull_of_activations<double>({entries, bins, starts, n}, H, columns, n_components, pull);
}

KNOWNMF_EXPORT void knownmf_pull_of_basis_single(const float* entries, const std::int32_t* bins,
                                                 const std::int32_t* starts, Index n, const float* H,
                                                 const float* columns, Index n_components, float* pull) {
    knownmf::pull_of_basis<float>({entries, bins, starts, n}, H, columns, n_components, pull);
}

KNOWNMF_EXPORT void knownmf_pull_of_basis_double(const double* entries, const std::int32_t* bins,
                                                 const std::int32_t* starts, Index n, const double* H,
                                                 const double* columns, Index n_components, double* pull) {
    knownmf::pull_of_basis<double>({entries, bins, starts, n}, H, columns, n_components, pull);
}

KNOWNMF_EXPORT void knownmf_multiply_rows_single(float* Z, const float* A, const float* B, Index n_B, const float* l1,
                                                 Index n_l1, const float* l2, Index n_l2, double power, Index n,
                                                 Index size) {
    knownmf::multiply_rows<float>(Z, A, {B, n_B, size}, {l1, n_l1, size}, {l2, n_l2, size}, power, n);
}

KNOWNMF_EXPORT void knownmf_multiply_rows_double(double* Z, const double* A, const double* B, Index n_B,
                                                 const double* l1, Index n_l1, const double* l2, Index n_l2,
                                                 double power, Index n, Index size) {
    knownmf::multiply_rows<double>(Z, A, {B, n_B, size}, {l1, n_l1, size}, {l2, n_l2, size}, power, n);
}

KNOWNMF_EXPORT void knownmf_extrapolate_single(const float* ended, const float* here, const float* before, double share,
                                               float* out, Index size) {
    knownmf::extrapolate<float>(ended, here, before, share, out, size);
}

KNOWNMF_EXPORT void knownmf_extrapolate_double(const double* ended, const double* here, const double* before,
                                               double share, double* out, Index size) {
    knownmf::extrapolate<double>(ended, here, before, share, out, size);
}

KNOWNMF_EXPORT void knownmf_descend_rows(const double* Q, const double* q, double* Z, const bool* free_entries,
                                         Index n_free, int n_sweeps, double* gradient, Index n, Index size) {
    knownmf::descend_rows(Q, q, Z, {free_entries, n_free, size}, n_sweeps, gradient, n);
}
