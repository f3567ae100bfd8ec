// The backward of one (image, head) on a CPU.
//
// A thread takes a tile of queries. Their samples are planned together, then scattered level by
// level: what neighbouring queries look at in one level stays in the first caches.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cpu_kernels.h"
#include "cpu_memory.h"

namespace msdetr::cpu {

// Points whose dot products fill whole vectors: kept in registers until they are summed.
constexpr int group_points(int lanes) { return std::max(1, lanes / kCorners); }

// Consecutive entries of the order in which queries are taken.
struct Tile {
  const int32_t* queries;
  int count;
};

// What every sample of a tile needs, level by level, in a level query by query, there corner by
// corner: numbers of 4 * points each, one after another.
template <typename T>
struct TileData {
  int levels;
  int points;  // of one level
  int queries;
  T* data;

  T* at(int level, int query) const {
    return data + (static_cast<int64_t>(level) * queries + query) * kCorners * points;
  }
};

// Copies numbers of consecutive points between [corner][kChunk] and a tile's data.
template <bool ToTile, typename T>
inline void copy_chunk(const TileData<T>& tile, int query, int first, int count,
                       T (*chunk)[kChunk]) {
  for (int i = 0; i < count;) {
    const int level = (first + i) / tile.points;
    const int point = (first + i) % tile.points;
    const int run = std::min(tile.points - point, count - i);
    T* slice = tile.at(level, query) + point;
    for (int corner = 0; corner < kCorners; ++corner) {
      T* other = slice + corner * tile.points;
      T* from = ToTile ? chunk[corner] + i : other;
      T* to = ToTile ? other : chunk[corner] + i;
      if (run == 4) {
        std::memcpy(to, from, 4 * sizeof(T));  // one instruction for the usual number
      } else {
        std::copy_n(from, run, to);
      }
    }
    i += run;
  }
}

// Scratch of one thread for tiles of up to `queries` queries.
template <typename T>
class Scratch {
 public:
  Scratch(int queries, int levels, int points, int64_t padded)
      : levels_(levels),
        points_(points),
        cells_(queries * levels * points * kCorners),
        weights_(queries * levels * points * kCorners),
        rows_(queries * padded),
        stride_(padded) {}

  TileData<int32_t> cells(int queries) const { return {levels_, points_, queries, cells_.data()}; }
  TileData<T> weights(int queries) const { return {levels_, points_, queries, weights_.data()}; }
  // One row of the output's gradient per query.
  Rows<T> rows() const { return {rows_.data(), stride_}; }

 private:
  int levels_;
  int points_;
  Buffer<int32_t> cells_;
  Buffer<T> weights_;
  Buffer<T> rows_;
  int64_t stride_;
};

template <typename T>
void plan_tile(const Points<T>& points, Samples<const T> samples, const Tile& tile,
               const TileData<int32_t>& cells, const TileData<T>& weights) {
  Plan<T> plan;
  for (int i = 0; i < tile.count; ++i) {
    prefetch_samples<0>(samples, tile.queries[std::min<int64_t>(i + kQueriesAhead, tile.count - 1)],
                        points.count);
    const int64_t query = tile.queries[i];
    for (int first = 0; first < points.count; first += kChunk) {
      const int count = std::min(kChunk, points.count - first);
      plan_chunk(plan, points, first, count, samples.locations.row(query),
                 samples.attention.row(query));
      copy_chunk<true>(cells, i, first, count, plan.cell);
      copy_chunk<true>(weights, i, first, count, plan.weight);
    }
  }
}

// Calls run(integral_constant points) with 0 for an unusual number.
template <typename Run>
inline void with_points(int points, const Run& run) {
  if (points == 4) {
    run(std::integral_constant<int, 4>());
  } else {
    run(std::integral_constant<int, 0>());
  }
}

// Scatters weight * grad of up to Group points into the cells' gradients; the dot products of the
// gradient with the corners' values replace the weights.
template <int Fixed, typename T, int Lanes, int Blocks>
inline __attribute__((always_inline)) void scatter_points(const int32_t* cell, T* weight,
                                                          int points, int count,
                                                          Rows<const T> values,
                                                          Rows<T> grad_values,
                                                          const Vector<T, Lanes>* grad) {
  using V = Vector<T, Lanes>;
  constexpr int kGroup = group_points(Lanes);
  V partial[kCorners * kGroup] = {};
#pragma GCC unroll 4
  for (int i = 0; i < kGroup; ++i) {
    if (i >= count) {
      break;
    }
#pragma GCC unroll 4
    for (int corner = 0; corner < kCorners; ++corner) {
      const int32_t index = cell[corner * points + i];
      const T* row = values.row(index);
      T* grad_row = grad_values.row(index);
      const T share = weight[corner * points + i];
      V dot = grad[0] * load<T, Lanes>(row);
      store<T, Lanes>(grad_row, load<T, Lanes>(grad_row) + share * grad[0]);
#pragma GCC unroll 4
      for (int block = 1; block < Blocks; ++block) {
        dot += grad[block] * load<T, Lanes>(row + block * Lanes);
        store<T, Lanes>(grad_row + block * Lanes,
                        load<T, Lanes>(grad_row + block * Lanes) + share * grad[block]);
      }
      partial[corner * kGroup + i] = dot;
    }
  }
  alignas(64) T sums[kCorners * kGroup];
  for (int row = 0; row < kCorners * kGroup; row += Lanes) {
    store<T, Lanes>(sums + row, LaneSums<T, Lanes>::of(partial + row));
  }
  for (int corner = 0; corner < kCorners; ++corner) {
    for (int i = 0; i < count; ++i) {
      weight[corner * points + i] = sums[corner * kGroup + i];
    }
  }
}

// The same for all samples of a tile.
template <int Fixed, typename T, int Lanes, int Blocks>
void scatter_tile(const TileData<int32_t>& cells, const TileData<T>& weights, Rows<const T> values,
                  Rows<const T> grad_output, Rows<T> grad_values) {
  constexpr int kGroup = group_points(Lanes);
  const int points = Fixed > 0 ? Fixed : cells.points;
  for (int level = 0; level < cells.levels; ++level) {
    for (int query = 0; query < cells.queries; ++query) {
      Vector<T, Lanes> grad[Blocks];
      for (int block = 0; block < Blocks; ++block) {
        grad[block] = load<T, Lanes>(grad_output.row(query) + block * Lanes);
      }
      for (int first = 0; first < points; first += kGroup) {
        constexpr bool kWhole = Fixed > 0 && Fixed % kGroup == 0;
        const int count = kWhole ? kGroup : std::min(kGroup, points - first);
        scatter_points<Fixed, T, Lanes, Blocks>(cells.at(level, query) + first,
                                                weights.at(level, query) + first, points, count,
                                                values, grad_values, grad);
      }
    }
  }
}

// Writes (or adds) the gradients of `count` locations and weights, given all dot products.
template <bool Accumulate, typename T>
inline void differentiate_chunk(const Points<T>& points, int first, int count,
                                const T (*dots)[kChunk], const T* locations, const T* attention,
                                T* grad_locations, T* grad_attention) {
#pragma GCC ivdep
  for (int i = 0; i < count; ++i) {
    const int point = first + i;
    const Axis<T> x = locate(locations[2 * point], points.width[point]);
    const Axis<T> y = locate(locations[2 * point + 1], points.height[point]);
    const SampleGradient<T> gradient = differentiate(x, y, dots[0][i], dots[1][i],
                                                     dots[2][i], dots[3][i]);
    const T dx = attention[point] * points.width[point] * gradient.dx;
    const T dy = attention[point] * points.height[point] * gradient.dy;
    grad_attention[point] = gradient.weight + (Accumulate ? grad_attention[point] : T(0));
    grad_locations[2 * point] = dx + (Accumulate ? grad_locations[2 * point] : T(0));
    grad_locations[2 * point + 1] = dy + (Accumulate ? grad_locations[2 * point + 1] : T(0));
  }
}

template <bool Accumulate, typename T>
void differentiate_tile(const Points<T>& points, Samples<const T> samples, const Tile& tile,
                        const TileData<T>& dots, Samples<T> grad_samples) {
  alignas(64) T chunk[kCorners][kChunk];
  for (int i = 0; i < tile.count; ++i) {
    const int64_t query = tile.queries[i];
    for (int first = 0; first < points.count; first += kChunk) {
      const int count = std::min(kChunk, points.count - first);
      copy_chunk<false>(dots, i, first, count, chunk);
      differentiate_chunk<Accumulate>(points, first, count, chunk, samples.locations.row(query),
                                      samples.attention.row(query),
                                      grad_samples.locations.row(query),
                                      grad_samples.attention.row(query));
    }
  }
}

}  // namespace msdetr::cpu
