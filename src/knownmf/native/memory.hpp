// Sizes, status codes, and arrays that grow, which hold all numbers that the native code allocates.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <limits>

#define RESTRICT __restrict__
// The compiler may add up a reduction in any order that vector registers suggest; NaN and infinity keep their meaning.
#define VECTORIZED_SUM(...) _Pragma(VECTORIZED_SUM_TEXT(omp simd reduction(+ : __VA_ARGS__)))
#define VECTORIZED_SUM_TEXT(...) #__VA_ARGS__

namespace knownmf {

using Index = std::int64_t;
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
// The largest relative error of one rounded operation.
constexpr double unit_roundoff = 0.5 * std::numeric_limits<double>::epsilon();

// What a call returns to Python.
enum Status : int { done = 0, out_of_memory = 1, interrupted = 2 };

// The size in bytes of the widest vector register. Rows over bins and components begin at a multiple of it and are
// padded with zeros to the next one: loops over padded rows have no remainder, and a row is summed in the same order
// wherever it lies in memory.
constexpr Index alignment = 64;

// Return the length of a row of `size` numbers with its padding: a multiple of 16 floats (and so of 8 doubles).
constexpr Index padded(Index size) { return (size + 15) / 16 * 16; }

// An array of numbers that the native code owns. Its contents are lost when it grows.
template <class T>
class Buffer {
   public:
    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { std::free(memory_); }

    // Make room for `size` numbers. If the array has to grow, all of them become zero. Return whether there was enough
    // memory.
    [[nodiscard]] bool reserve(Index size) {
        if (size <= size_) return true;
        std::free(memory_);
        values_ = nullptr;
        memory_ = std::calloc(static_cast<std::size_t>(size) * sizeof(T) + alignment, 1);
        size_ = memory_ != nullptr ? size : 0;
        if (memory_ == nullptr) return false;
        // The pad in front of the first vector register boundary.
        const auto pad = static_cast<std::size_t>(alignment) - reinterpret_cast<std::uintptr_t>(memory_) % alignment;
        values_ = reinterpret_cast<T*>(static_cast<char*>(memory_) + pad);
        return true;
    }

    T* begin() const { return values_; }
    T& operator[](Index i) const { return values_[i]; }
    Index bytes() const { return size_ * static_cast<Index>(sizeof(T)); }

   private:
    void* memory_ = nullptr;
    T* values_ = nullptr;
    Index size_ = 0;
};

template <class T>
inline void copy(const T* RESTRICT source, T* RESTRICT target, Index size) {
    for (Index i = 0; i < size; ++i) target[i] = source[i];
}

// The same between precisions.
template <class Source, class Target>
inline void convert(const Source* RESTRICT source, Target* RESTRICT target, Index size) {
    for (Index i = 0; i < size; ++i) target[i] = static_cast<Target>(source[i]);
}

template <class T>
inline void fill(T* values, Index size, T value) {
    for (Index i = 0; i < size; ++i) values[i] = value;
}

template <class T>
inline T smaller(T a, T b) {
    return b < a ? b : a;
}

template <class T>
inline T larger(T a, T b) {
    return b > a ? b : a;
}

}  // namespace knownmf
