// Scratch memory of the CPU kernels, and the conversion of single rows.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace msdetr::cpu {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// Memory that is not initialised. Large buffers ask for huge pages: faulting in small ones takes as
// long as the work done on them.
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
#if defined(MADV_HUGEPAGE)
      if (alignment == kHugePage) {
        madvise(memory_.get(), bytes, MADV_HUGEPAGE);  // a hint: failure is no error
      }
#endif
    }
  }
  T* data() const { return memory_.get(); }

 private:
  static constexpr size_t kLine = 64;
  static constexpr size_t kHugePage = size_t{2} << 20;
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
