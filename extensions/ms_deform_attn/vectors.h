// Vectors of a fixed number of lanes on the compiler's vector extension: the same source becomes
// AVX-512, AVX2 or NEON code, whichever the build targets.
#pragma once

#include <cstring>
#include <type_traits>
#include <utility>

namespace msdetr {

// Bytes of the vector registers that the build targets. The compiler splits wider vectors, but
// keeps arrays of split ones in memory instead of registers, which takes several times as long.
#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <typename T, int Lanes>
struct VectorOf {
  static_assert(Lanes * sizeof(T) <= kVectorBytes);
  typedef T type __attribute__((vector_size(Lanes * sizeof(T))));
};

template <typename T, int Lanes>
using Vector = typename VectorOf<T, Lanes>::type;

template <typename T, int Lanes>
inline Vector<T, Lanes> load(const T* from) {
  Vector<T, Lanes> result;
  std::memcpy(&result, from, sizeof(result));
  return result;
}

template <typename T, int Lanes>
inline void store(T* to, const Vector<T, Lanes>& from) {
  std::memcpy(to, &from, sizeof(from));
}

// Sums the lanes of `Lanes` rows at once: lane i of the result is the sum over row i.
//
// A vector that holds blocks of 2 * Width lanes, each the partial sums of one row, is merged with
// another one: every block is folded in half, and blocks of the two alternate. So `Lanes` sums cost
// `Lanes` - 1 merges of two shuffles and one addition.
template <typename T, int Lanes>
class LaneSums {
 public:
  using V = Vector<T, Lanes>;

  static V of(const V* rows) { return merged<1>(rows); }

 private:
  // The rows `rows[0]`, `rows[Width]`, `rows[2 * Width]`, ... folded down to blocks of `Width`.
  template <int Width>
  static V merged(const V* rows) {
    if constexpr (Width == Lanes) {
      return rows[0];
    } else {
      const V even = merged<2 * Width>(rows);
      const V odd = merged<2 * Width>(rows + Width);
      return fold<Width>(even, odd, std::make_integer_sequence<int, Lanes>());
    }
  }

  static constexpr int source(int lane, int width, int half) {
    const int block = lane / width;
    return (block % 2) * Lanes + (block / 2) * 2 * width + lane % width + half * width;
  }

  template <int Width, int... Lane>
  static V fold(const V& even, const V& odd, std::integer_sequence<int, Lane...>) {
#if defined(__clang__)
    return __builtin_shufflevector(even, odd, source(Lane, Width, 0)...) +
           __builtin_shufflevector(even, odd, source(Lane, Width, 1)...);
#else
    using Index = std::conditional_t<sizeof(T) == 8, long long, int>;
    constexpr Vector<Index, Lanes> low = {source(Lane, Width, 0)...};
    constexpr Vector<Index, Lanes> high = {source(Lane, Width, 1)...};
    return __builtin_shuffle(even, odd, low) + __builtin_shuffle(even, odd, high);
#endif
  }
};

}  // namespace msdetr
