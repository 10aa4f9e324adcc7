// Which level of the x86-64 psABI this processor and its operating system support.
//
// The levels and their features: https://gitlab.com/x86-psABIs/x86-64-ABI, section "Micro-Architecture Levels".
// The processor is asked directly. __builtin_cpu_supports depends on the compiler's runtime library to have been
// initialized, and answers "no" to everything where it was not.
#pragma once

#include <cstdint>

namespace knownmf {

#if defined(__x86_64__)

// The four registers in which cpuid answers.
struct CpuidAnswer {
    std::uint32_t eax, ebx, ecx, edx;
};

inline CpuidAnswer cpuid(std::uint32_t leaf) {
    CpuidAnswer answer{leaf, 0, 0, 0};  // Subleaf 0, in ecx.
    __asm__ volatile("cpuid" : "+a"(answer.eax), "=b"(answer.ebx), "+c"(answer.ecx), "=d"(answer.edx));
    return answer;
}

// Return which parts of the processor's state the operating system saves for each thread (the lower half of XCR0).
// Only to be called where cpuid reports OSXSAVE.
inline std::uint32_t saved_state() {
    std::uint32_t low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

constexpr std::uint32_t bit(int position) { return std::uint32_t{1} << position; }
constexpr bool has_all(std::uint32_t value, std::uint32_t bits) { return (value & bits) == bits; }

// Features of each level, by the leaf and the register of cpuid that reports them. A level includes those below it.
constexpr std::uint32_t v2_leaf1_ecx = bit(0)      // SSE3
                                       | bit(9)    // SSSE3
                                       | bit(13)   // CMPXCHG16B
                                       | bit(19)   // SSE4.1
                                       | bit(20)   // SSE4.2
                                       | bit(23);  // POPCNT
constexpr std::uint32_t v2_extended_ecx = bit(0);  // LAHF and SAHF
constexpr std::uint32_t v3_leaf1_ecx = bit(12)     // FMA
                                       | bit(22)   // MOVBE
                                       | bit(27)   // OSXSAVE: the operating system answers xgetbv
                                       | bit(28)   // AVX
                                       | bit(29);  // F16C
constexpr std::uint32_t v3_leaf7_ebx = bit(3)      // BMI1
                                       | bit(5)    // AVX2
                                       | bit(8);   // BMI2
constexpr std::uint32_t v3_extended_ecx = bit(5);  // LZCNT
constexpr std::uint32_t v4_leaf7_ebx = bit(16)     // AVX512F
                                       | bit(17)   // AVX512DQ
                                       | bit(28)   // AVX512CD
                                       | bit(30)   // AVX512BW
                                       | bit(31);  // AVX512VL

// The state that the operating system must save before a program may use the registers.
constexpr std::uint32_t ymm_state = bit(1) | bit(2);                       // xmm, upper halves of ymm
constexpr std::uint32_t zmm_state = ymm_state | bit(5) | bit(6) | bit(7);  // masks, upper halves of zmm, zmm16 to zmm31

constexpr std::uint32_t extended_leaf = 0x80000001;

// Return the level, 1 to 4. macOS allocates the state of zmm registers only once a program uses them, and reports 3.
inline int cpu_level() {
    const std::uint32_t last_leaf = cpuid(0).eax;
    const std::uint32_t leaf1_ecx = cpuid(1).ecx;
    const std::uint32_t leaf7_ebx = last_leaf >= 7 ? cpuid(7).ebx : 0;
    const std::uint32_t extended_ecx = cpuid(0x80000000).eax >= extended_leaf ? cpuid(extended_leaf).ecx : 0;

    if (!has_all(leaf1_ecx, v2_leaf1_ecx) || !has_all(extended_ecx, v2_extended_ecx)) return 1;
    if (!has_all(leaf1_ecx, v3_leaf1_ecx) || !has_all(leaf7_ebx, v3_leaf7_ebx) ||
        !has_all(extended_ecx, v3_extended_ecx) || !has_all(saved_state(), ymm_state)) {
        return 2;
    }
    return has_all(leaf7_ebx, v4_leaf7_ebx) && has_all(saved_state(), zmm_state) ? 4 : 3;
}

#else

// Return 0: the processor is not x86-64, and there is one build for it.
inline int cpu_level() { return 0; }

#endif

}  // namespace knownmf
