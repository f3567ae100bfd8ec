// What a block of the CUDA kernels works on: its tile of queries, and their samples planned into
// shared memory.
#pragma once

#include <cstdint>

#include "sample.h"
#include "sizes.h"

namespace msdetr::cuda {

constexpr int kThreads = 256;
constexpr int kChunk = 16;  // points planned together
constexpr int kMaxLevels = 16;
constexpr int kTileWidth = 8;

// Queries of a tile: fewer for float64, whose plan takes more shared memory.
template <typename T>
constexpr int kTile = sizeof(T) == 8 ? 32 : 64;

struct Levels {
  int count;
  int height[kMaxLevels];
  int width[kMaxLevels];
  int first_cell[kMaxLevels];
  int first_tile[kMaxLevels];
};

// One call. Where there are as many queries as cells, they are taken to be the cells in order: that
// only decides which ones share a block. `stride` is the distance between neighbouring cells.
struct Problem {
  Levels levels;
  int64_t cells;
  int64_t queries;
  int heads;
  int channels;
  int points_per_level;
  int tiles;
  bool queries_are_cells;

  __host__ __device__ int samples() const { return levels.count * points_per_level; }
  __host__ __device__ int stride() const { return heads * channels; }
};

// `level_sizes`: height and width of every level, at most kMaxLevels of them.
template <typename T>
Problem describe(const Sizes& sizes, const int64_t* level_sizes) {
  Problem problem{};
  constexpr int kTileHeight = kTile<T> / kTileWidth;
  int64_t first_cell = 0;
  int64_t first_tile = 0;
  for (int level = 0; level < sizes.levels; ++level) {
    const int64_t height = level_sizes[2 * level];
    const int64_t width = level_sizes[2 * level + 1];
    problem.levels.height[level] = static_cast<int>(height);
    problem.levels.width[level] = static_cast<int>(width);
    problem.levels.first_cell[level] = static_cast<int>(first_cell);
    problem.levels.first_tile[level] = static_cast<int>(first_tile);
    first_cell += height * width;
    const int64_t tiles_across = (width + kTileWidth - 1) / kTileWidth;
    first_tile += (height + kTileHeight - 1) / kTileHeight * tiles_across;
  }
  problem.levels.count = static_cast<int>(sizes.levels);
  problem.cells = sizes.cells;
  problem.queries = sizes.queries;
  problem.heads = static_cast<int>(sizes.heads);
  problem.channels = static_cast<int>(sizes.channels);
  problem.points_per_level = static_cast<int>(sizes.points);
  problem.queries_are_cells = sizes.queries == sizes.cells;
  problem.tiles = static_cast<int>(problem.queries_are_cells
                                       ? first_tile
                                       : (sizes.queries + kTile<T> - 1) / kTile<T>);
  return problem;
}

template <typename T>
struct alignas(4 * sizeof(T)) Corners {
  T item[4];
};

// Shared memory of a block. The row length keeps lane groups on different banks.
template <typename T>
struct Plan {
  int query[kTile<T>];
  Corners<int> cell[kTile<T>][kChunk + 1];
  Corners<T> weight[kTile<T>][kChunk + 1];
};

// Query number `slot` of a tile, or -1 past the end.
__device__ inline int query_of(const Problem& problem, int tile, int slot, int tile_queries) {
  if (!problem.queries_are_cells) {
    const int64_t query = static_cast<int64_t>(tile) * tile_queries + slot;
    return query < problem.queries ? static_cast<int>(query) : -1;
  }
  const Levels& levels = problem.levels;
  int level = 0;
  while (level + 1 < levels.count && tile >= levels.first_tile[level + 1]) {
    ++level;
  }
  const int width = levels.width[level];
  const int tiles_across = (width + kTileWidth - 1) / kTileWidth;
  const int local = tile - levels.first_tile[level];
  const int x = local % tiles_across * kTileWidth + slot % kTileWidth;
  const int y = local / tiles_across * (tile_queries / kTileWidth) + slot / kTileWidth;
  return x < width && y < levels.height[level] ? levels.first_cell[level] + y * width + x : -1;
}

// Index of a (query, head)'s first sample among all weights.
__device__ inline int64_t first_sample(const Problem& problem, int pair, int query) {
  const int64_t image = pair / problem.heads;
  const int64_t row = (image * problem.queries + query) * problem.heads + pair % problem.heads;
  return row * problem.samples();
}

// Index of a (row, head)'s first channel in a [B, rows, M, D] tensor.
__device__ inline int64_t first_channel(const Problem& problem, int pair, int64_t rows,
                                        int64_t row) {
  const int64_t image = pair / problem.heads;
  return ((image * rows + row) * problem.heads + pair % problem.heads) * problem.channels;
}

template <typename T>
__device__ void locate_sample(const Problem& problem, int point, const T* location, Axis<T>& x,
                              Axis<T>& y) {
  const int level = point / problem.points_per_level;
  x = locate(location[0], static_cast<T>(problem.levels.width[level]));
  y = locate(location[1], static_cast<T>(problem.levels.height[level]));
}

// Calls visit(slot, i, index of the sample) for this thread's share of a chunk's samples.
template <typename T, typename Visit>
__device__ void for_samples(const Problem& problem, const Plan<T>& plan, int pair, int first,
                            const Visit& visit) {
  for (int item = threadIdx.x; item < kTile<T> * kChunk; item += kThreads) {
    const int slot = item / kChunk;
    const int i = item % kChunk;
    const int query = plan.query[slot];
    if (query >= 0 && first + i < problem.samples()) {
      visit(slot, i, first_sample(problem, pair, query) + first + i);
    }
  }
}

template <typename T>
__device__ void plan_chunk(const Problem& problem, Plan<T>& plan, int pair, int first,
                           const T* locations, const T* attention) {
  for_samples(problem, plan, pair, first, [&](int slot, int i, int64_t sample) {
    Axis<T> x;
    Axis<T> y;
    locate_sample(problem, first + i, locations + 2 * sample, x, y);
    const int level = (first + i) / problem.points_per_level;
    const int width = problem.levels.width[level];
    const int low_row = problem.levels.first_cell[level] + y.low * width;
    const int high_row = problem.levels.first_cell[level] + y.high * width;
    const T low = y.low_weight * attention[sample];
    const T high = y.high_weight * attention[sample];
    plan.cell[slot][i] = {{low_row + x.low, low_row + x.high, high_row + x.low, high_row + x.high}};
    plan.weight[slot][i] = {{low * x.low_weight, low * x.high_weight, high * x.low_weight,
                             high * x.high_weight}};
  });
}

template <typename T>
__device__ void plan_queries(const Problem& problem, Plan<T>& plan, int tile) {
  for (int slot = threadIdx.x; slot < kTile<T>; slot += kThreads) {
    plan.query[slot] = query_of(problem, tile, slot, kTile<T>);
  }
}

}  // namespace msdetr::cuda
