#pragma once

#include <cstdint>

namespace msdetr {

// Sizes of one call, in the letters of the Python side.
struct Sizes {
  int64_t images;
  int64_t cells;
  int64_t heads;
  int64_t channels;
  int64_t queries;
  int64_t levels;
  int64_t points;

  int64_t samples() const { return levels * points; }
};

}  // namespace msdetr
