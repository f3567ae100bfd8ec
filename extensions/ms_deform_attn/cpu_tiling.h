// The order in which a backward takes queries.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "cpu_backward.h"
#include "sizes.h"

namespace msdetr::cpu {

constexpr int kTileSide = 8;
constexpr int kTileQueries = kTileSide * kTileSide;

// The order in which queries are taken, and where in it each tile starts; the last start ends it.
struct Tiling {
  std::vector<int32_t> order;
  std::vector<int32_t> starts;

  int64_t count() const { return static_cast<int64_t>(starts.size()) - 1; }
  Tile tile(int64_t index) const {
    return {order.data() + starts[index], starts[index + 1] - starts[index]};
  }
};

// Square patches of every level: with one query per cell, as in an encoder, a patch looks at cells
// near each other.
inline Tiling tile_cells(at::IntArrayRef level_sizes) {
  Tiling tiling;
  int64_t first_cell = 0;
  for (size_t level = 0; level < level_sizes.size(); level += 2) {
    const int64_t height = level_sizes[level];
    const int64_t width = level_sizes[level + 1];
    for (int64_t top = 0; top < height; top += kTileSide) {
      for (int64_t left = 0; left < width; left += kTileSide) {
        tiling.starts.push_back(static_cast<int32_t>(tiling.order.size()));
        for (int64_t row = top; row < std::min(height, top + kTileSide); ++row) {
          for (int64_t column = left; column < std::min(width, left + kTileSide); ++column) {
            tiling.order.push_back(static_cast<int32_t>(first_cell + row * width + column));
          }
        }
      }
    }
    first_cell += height * width;
  }
  tiling.starts.push_back(static_cast<int32_t>(tiling.order.size()));
  return tiling;
}

inline Tiling tile_queries(const Sizes& sizes, at::IntArrayRef level_sizes) {
  if (sizes.queries == sizes.cells) {
    return tile_cells(level_sizes);
  }
  Tiling tiling;
  tiling.order.resize(sizes.queries);
  std::iota(tiling.order.begin(), tiling.order.end(), 0);
  for (int64_t query = 0; query < sizes.queries; query += kTileQueries) {
    tiling.starts.push_back(static_cast<int32_t>(query));
  }
  tiling.starts.push_back(static_cast<int32_t>(sizes.queries));
  return tiling;
}

}  // namespace msdetr::cpu
