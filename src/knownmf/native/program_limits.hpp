// The limits of a frame, as those of a quadratic program over some of its components.
#pragma once

#include "limits.hpp"
#include "quadratic_program.hpp"

namespace knownmf {

// Whether the program of a frame has one more variable, which costs nothing: what its sum lacks of the total.
inline bool needs_slack(const Frame& frame) { return has_total(frame) && frame.total_is_most; }

// How variable i of a program stands for an activation: h = base[i] + z[i] unit, where the unit is that of component
// components[i] if there is no base.
struct Scaling {
    const Index* components;
    Index n;
    const double* units;  // by component, or, if there is a base, by variable
    const double* base;   // null: zero

    double unit(Index i) const { return base != nullptr ? units[i] : units[components[i]]; }
};

// Give a program, whose variables but the slack have their start, the limits of a frame. Its q holds slopes at the
// price `multiplier` of the total.
inline void set_limits(QuadraticProgram& program, const Frame& frame, const Basis& basis, const Scaling& scaling,
                       double multiplier) {
    program.has_upper = frame.has_upper;
    program.has_total = has_total(frame);
    double missing = frame.total, largest = 0.0, sum = 0.0;
    for (Index i = 0; i < scaling.n; ++i) {
        const Index k = scaling.components[i];
        const double base = scaling.base != nullptr ? scaling.base[i] : 0.0, unit = scaling.unit(i);
        program.upper[i] = larger(upper_of(frame, k) - base, 0.0) / unit;
        program.z[i] = smaller(program.z[i], program.upper[i]);
        program.row[i] = basis.units[k] * unit;
        missing -= basis.units[k] * base;
        sum += program.row[i] * program.z[i];
        largest = larger(largest, program.row[i]);
    }
    program.total = missing;
    if (!needs_slack(frame)) return;
    const Index last = scaling.n;
    for (Index i = 0; i <= last; ++i) program.Q[i * program.stride + last] = program.Q[last * program.stride + i] = 0.0;
    program.q[last] = multiplier * largest;
    program.upper[last] = infinity;
    program.row[last] = largest;
    program.z[last] = larger(missing - sum, 0.0) / largest;
}

}  // namespace knownmf
