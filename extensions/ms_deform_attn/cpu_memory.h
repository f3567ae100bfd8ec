// Scratch memory of the CPU kernels, and the conversion of single rows.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace msdetr::cpu {

constexpr size_t kHugePage = size_t{2} << 20;

// Asks for huge pages where whole ones fit: faulting in small ones takes as long as the work done
// on them. A hint, so failure is no error.
inline void prefer_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#if defined(MADV_HUGEPAGE)
  const auto start = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t first = (start + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t last = (start + bytes) / kHugePage * kHugePage;
  if (first < last) {
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// Memory that is not initialised, in huge pages where it is large.
template <typename T>
class Buffer {
 public:
  explicit Buffer(int64_t count) {
    if (count > 0) {
      const size_t wanted = static_cast<size_t>(count) * sizeof(T);
      const size_t alignment = wanted < kHugePage ? kLine : kHugePage;
      const size_t bytes = (wanted + alignment - 1) / alignment * alignment;
      memory_.reset(static_cast<T*>(std::aligned_alloc(alignment, bytes)));
      if (memory_ == nullptr) {
        throw std::bad_alloc();
      }
      prefer_huge_pages(memory_.get(), bytes);
    }
  }
  T* data() const { return memory_.get(); }

 private:
  static constexpr size_t kLine = 64;
  std::unique_ptr<T[], Free> memory_;
};

// Converts a row; channels that the source lacks become zeros.
template <typename From, typename To>
void copy_row(const From* from, To* to, int64_t from_channels, int64_t to_channels) {
  const int64_t shared = std::min(from_channels, to_channels);
  for (int64_t channel = 0; channel < shared; ++channel) {
    to[channel] = static_cast<To>(from[channel]);
  }
  std::fill(to + shared, to + to_channels, To(0));
}

}  // namespace msdetr::cpu
