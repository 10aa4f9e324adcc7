// The beta-divergence of data x and model v, and the two halves of its slope.
//
//     d(x | v) = (x^beta + (beta - 1) v^beta - beta x v^(beta - 1)) / (beta (beta - 1))
//
// with the limits x log(x / v) - x + v (Kullback-Leibler, beta = 1) and x / v - log(x / v) - 1 (Itakura-Saito, beta =
// 0). [C. Fevotte and J. Idier, Neural Computation 23(9), 2011]
#pragma once

#include <cmath>
#include <cstring>

#include "memory.hpp"

namespace knownmf {

// Below beta = 1, data under this share of the frame's largest value are raised to it: there a zero bin would make the
// objective (beta <= 0) or its slope (beta < 1) infinite. 1e-15 is -300 dB in amplitude.
constexpr double zero_floor = 1e-15;

// Slopes are computed as if the model were at least this, in units of the frame's scale, which keeps v^-3 finite.
constexpr double model_floor = 1e-100;
// In single precision, pull may still overflow for beta < 1: updates leave an activation as it is if its ratio is
// infinite or NaN, and Newton steps go on from there.
template <class T>
constexpr T slope_floor = static_cast<T>(sizeof(T) == sizeof(double) ? model_floor : 1e-30);

inline bool is_convex(double beta) { return 1.0 <= beta && beta <= 2.0; }

// Return r - 1 - log(r) for the ratio r = a / b of positive numbers, without cancellation around 1 and without a
// branch, so that loops over it are vectorized; r > 1e-590.
//
// The ratio is (1 + u) 2^n with 1 + u between the square roots of 1/2 and 2, and log(1 + u) = 2 (s + s^3/3 + s^5/5 +
// ...) with s = u / (2 + u), of which the first term leaves u^2 / (2 + u) of u.
inline double minus_log(double a, double b) {
    constexpr double log_of_two = 0.6931471805599453;
    constexpr double lift = 0x1p960;  // brings a ratio that is too small for a mantissa of its own into range
    const bool small = a < 1e-300 * b;
    const double ratio = a * (small ? lift : 1.0) / b;
    std::int64_t bits;
    std::memcpy(&bits, &ratio, sizeof bits);
    // The high half of the bits holds the exponent; 0x3FE6A09E is that of the square root of 1/2.
    const std::int32_t exponent = (static_cast<std::int32_t>(bits >> 32) - 0x3FE6A09E) >> 20;
    const std::int64_t mantissa_bits = bits - static_cast<std::int64_t>(static_cast<std::uint64_t>(exponent) << 52);
    double mantissa;
    std::memcpy(&mantissa, &mantissa_bits, sizeof mantissa);
    const double u = exponent == 0 ? (a - b) / b : mantissa - 1.0;
    const double s = u / (2.0 + u), square = s * s;
    double series = 1.0 / 21.0;
    for (int n = 19; n > 1; n -= 2) series = series * square + 1.0 / n;
    const double log_of_power = (exponent - (small ? 960.0 : 0.0)) * log_of_two;
    return u * u / (2.0 + u) - 2.0 * s * square * series + ((small ? 0.0 : ratio) - mantissa) - log_of_power;
}

// Return x log(x / v) - x + v. The limit for x / v -> 0 is v.
inline double kullback_leibler(double x, double v) {
    const bool inside = (x > 0.0) & (v > 0.0);
    const double value = x * minus_log(inside ? v : 1.0, inside ? x : 1.0);
    const double outside = ((x < v) | (x == 0.0)) ? v : infinity;
    return (inside & (value < infinity)) ? value : outside;
}

// Return x / v - log(x / v) - 1.
inline double itakura_saito(double x, double v) {
    const bool inside = (x > 0.0) & (v > 0.0);
    const double value = minus_log(inside ? x : 1.0, inside ? v : 1.0);
    return inside ? value : x == v ? 0.0 : infinity;
}

// Return d(1 | e^u) for a small u by its series, the sum over n >= 2 of u^n / n! (beta^(n-1) - (beta-1)^(n-1)).
inline double divergence_near_one(double u, double beta) {
    double total = 0.0, power = u, first = 1.0, second = 1.0;
    for (int n = 2; n < 11; ++n) {
        power *= u / n;
        first *= beta;
        second *= beta - 1.0;
        total += power * (first - second);
    }
    return total;
}

// Return d(x | v) of one bin for x, v >= 0: infinite where the formula says so, never NaN.
inline double divergence(double x, double v, double beta) {
    if (beta == 2.0) return 0.5 * (x - v) * (x - v);
    if (beta == 1.0) return kullback_leibler(x, v);
    if (beta == 0.0) return itakura_saito(x, v);
    if (x == v) return 0.0;
    if ((v == 0.0 && (beta < 0.0 || (beta < 1.0 && x > 0.0))) || (x == 0.0 && beta < 0.0)) return infinity;
    // Closer than this the formula loses more than four digits, and the series has all of them.
    constexpr double near = 0.03;
    if (x > 0.0 && std::fabs(v - x) < near * x) {
        return std::pow(x, beta) * divergence_near_one(std::log1p((v - x) / x), beta);
    }
    if (x > 0.0 && v > 0.0) {
        // If x and v differ by many orders of magnitude, one term is much larger than the others, whose factors may
        // overflow or become 0: use that term alone.
        constexpr double far = 50.0;  // e^-50 is less than the rounding of 1
        const double ratio = v / x;   // beyond the limits below it may have lost digits, or be 0 or infinite
        const double u = 1e-300 < ratio && ratio < 1e300 ? std::log(ratio) : std::log(v) - std::log(x);
        if (std::fabs(u) > far && beta * u > far && u > 0.0) return std::pow(v, beta) / beta;
        if (std::fabs(u) > far && (beta - 1.0) * u > far) {
            const double root = std::pow(v, 0.5 * (beta - 1.0));  // its square alone may overflow
            return root * x * root / (1.0 - beta);
        }
        // Without cancellation where beta is next to 0 or 1.
        const double bracket = std::expm1(beta * u) / beta - std::expm1((beta - 1.0) * u) / (beta - 1.0);
        return std::pow(x, beta) * larger(bracket, 0.0);
    }
    return v > 0.0 ? std::pow(v, beta) / beta : std::pow(x, beta) / (beta * (beta - 1.0));
}

// Return d(x | v), for a beta outside [1, 2], but for a part that does not depend on v:
//
//     (v^beta - 1) / beta - x (v^(beta-1) - 1) / (beta-1)
//
// which keeps its digits where beta is next to 0 or 1.
inline double model_cost(double x, double v, double beta) {
    if (v == 0.0) return beta > 1.0 ? x / (beta - 1.0) - 1.0 / beta : infinity;
    if (beta == 0.0) return std::log(v) + x / v - x;
    const double u = std::log(v);
    constexpr double largest_exponent = 700.0;                 // e^709 is the largest double
    if ((beta - 1.0) * u > largest_exponent) return infinity;  // the last term is much larger than the others
    return std::expm1(beta * u) / beta - x * std::expm1((beta - 1.0) * u) / (beta - 1.0);
}

// Return the sum of weight d(x | v) over the bins that have a weight, whatever the others hold.
inline double total_divergence(const double* RESTRICT x, const double* RESTRICT v, const double* RESTRICT weight,
                               double beta, Index size) {
    double total = 0.0;
    if (beta == 2.0) {
        VECTORIZED_SUM(total)
        for (Index f = 0; f < size; ++f)
            total += weight[f] > 0.0 ? 0.5 * weight[f] * (x[f] - v[f]) * (x[f] - v[f]) : 0.0;
    } else if (beta == 1.0) {
        VECTORIZED_SUM(total)
        for (Index f = 0; f < size; ++f) total += weight[f] > 0.0 ? weight[f] * kullback_leibler(x[f], v[f]) : 0.0;
    } else if (beta == 0.0) {
        VECTORIZED_SUM(total)
        for (Index f = 0; f < size; ++f) total += weight[f] > 0.0 ? weight[f] * itakura_saito(x[f], v[f]) : 0.0;
    } else {
        for (Index f = 0; f < size; ++f) total += weight[f] > 0.0 ? weight[f] * divergence(x[f], v[f], beta) : 0.0;
    }
    return total;
}

// Return the divergence of some data from their weighted mean, the best model that is the same in every bin, whatever
// beta is; NaN if all data are equal or there are none. Data that are NaN or have no weight do not count. `weight(f)`
// is the weight of x[f], and `weight_of_zeros` that of zeros that the data do not list. [A. Banerjee, X. Guo and H.
// Wang, IEEE Transactions on Information Theory 51(7), 2005]
template <class Weight>
inline double null_divergence(const double* RESTRICT x, Weight weight, Index size, double weight_of_zeros,
                              double beta) {
    const auto counts = [&](Index f) { return (weight(f) > 0.0) & (x[f] == x[f]); };
    Index first = 0;
    while (first < size && !counts(first)) ++first;
    if (first == size) return not_a_number;
    const double reference = weight_of_zeros > 0.0 ? 0.0 : x[first];
    double floor = -infinity;
    if (beta < 1.0) {
        for (Index f = first; f < size; ++f)
            if (counts(f)) floor = larger(floor, zero_floor * x[f]);
    }
    double total = 0.0, sum = 0.0;
    double n_others = 0.0;  // data that differ from the reference
    VECTORIZED_SUM(total, sum, n_others)
    for (Index f = first; f < size; ++f) {
        const double m = counts(f) ? weight(f) : 0.0, value = counts(f) ? larger(x[f], floor) : 0.0;
        total += m;
        sum += m * value;
        n_others += counts(f) & (x[f] != reference) ? 1.0 : 0.0;
    }
    if (n_others == 0.0) return not_a_number;
    const double mean = sum / (total + weight_of_zeros);
    const auto sum_of = [&](auto cost) {
        double costs = 0.0;
        VECTORIZED_SUM(costs)
        for (Index f = first; f < size; ++f) costs += counts(f) ? weight(f) * cost(larger(x[f], floor)) : 0.0;
        return costs + (weight_of_zeros > 0.0 ? weight_of_zeros * cost(0.0) : 0.0);
    };
    if (beta == 2.0) return sum_of([mean](double value) { return 0.5 * (value - mean) * (value - mean); });
    if (beta == 1.0) return sum_of([mean](double value) { return kullback_leibler(value, mean); });
    return sum_of([mean, beta](double value) { return divergence(value, mean, beta); });
}

// Return base^exponent. Multiples of one half, which are what users ask for, take a square root instead of a logarithm.
class Power {
   public:
    explicit Power(double exponent) : exponent_(exponent), halves_(static_cast<int>(2.0 * exponent)) {
        is_half_ = 2.0 * exponent == halves_ && -8 <= halves_ && halves_ <= 8;
    }

    double operator()(double base) const { return is_half_ ? by_roots(base) : std::pow(base, exponent_); }

   private:
    double by_roots(double base) const {
        const double unit = halves_ < 0 ? 1.0 / base : base;
        const int halves = halves_ < 0 ? -halves_ : halves_;
        double power = halves % 2 != 0 ? std::sqrt(unit) : 1.0;
        for (int n = 0; n < halves / 2; ++n) power *= unit;
        return power;
    }

    double exponent_;
    int halves_;
    bool is_half_;
};

// Write the two halves of the weighted slope of a frame, which is push - pull:
//
//     pull = weight x v^(beta-2),    push = weight v^(beta-1)
//
// W' pull and W' push are the A and B of the certificate.
template <class T>
inline void slopes(const T* RESTRICT x, const T* RESTRICT v, const T* RESTRICT weight, double beta, T* RESTRICT pull,
                   T* RESTRICT push, Index size) {
    constexpr T floor = slope_floor<T>;
    if (beta == 2.0) {
        for (Index f = 0; f < size; ++f) {
            pull[f] = weight[f] * x[f];
            push[f] = weight[f] * v[f];
        }
    } else if (beta == 1.0) {
        for (Index f = 0; f < size; ++f) {
            pull[f] = weight[f] * x[f] / larger(v[f], floor);
            push[f] = weight[f];
        }
    } else if (beta == 0.0) {
        for (Index f = 0; f < size; ++f) {
            const T inverse = T(1) / larger(v[f], floor);
            pull[f] = weight[f] * x[f] * inverse * inverse;
            push[f] = weight[f] * inverse;
        }
    } else {
        const Power power(beta - 2.0);
        for (Index f = 0; f < size; ++f) {
            const double model = beta < 2.0 ? larger(v[f], floor) : v[f];
            const double factor = weight[f] * power(model);
            pull[f] = static_cast<T>(factor * x[f]);
            push[f] = static_cast<T>(factor * model);
        }
    }
}

}  // namespace knownmf
