// CPU kernels of one (image, head): no tensors here, only strided memory.
//
// A query's samples are first planned together (cells and weights of up to 16 points, vectorised by
// the compiler), then gathered channel vector by channel vector. Sums run in a fixed order, so
// results do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "sample.h"
#include "vectors.h"

namespace msdetr::cpu {

constexpr int kChunk = 16;  // points planned together
constexpr int kCorners = 4;

// Constants of every (level, point), in the order of the sampling locations.
template <typename T>
struct Points {
  int count;
  std::vector<T> width;
  std::vector<T> height;
  std::vector<int32_t> row_cells;
  std::vector<int32_t> first_cell;
};

// Rows of `channels` values, one row per cell or query, `stride` values apart.
template <typename T>
struct Rows {
  T* data;
  int64_t stride;

  T* row(int64_t index) const { return data + index * stride; }
};

// A head's rows lie one per query, `stride` apart, which hardware prefetchers do not follow:
// without these hints waiting for them takes most of the time.
constexpr int64_t kQueriesAhead = 8;

template <int Write, typename T>
inline void prefetch_row(const Rows<T>& rows, int64_t query, int64_t count) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < count; i += kLine) {
    __builtin_prefetch(rows.row(query) + i, Write);
  }
}

template <typename T>
struct alignas(64) Plan {
  int32_t cell[kCorners][kChunk];
  T weight[kCorners][kChunk];
};

template <typename T>
inline void plan_cells(const Axis<T>& x, const Axis<T>& y, const Points<T>& points, int point,
                       int32_t* low_low, int32_t* low_high, int32_t* high_low,
                       int32_t* high_high) {
  const int32_t low_row = points.first_cell[point] + y.low * points.row_cells[point];
  const int32_t high_row = points.first_cell[point] + y.high * points.row_cells[point];
  *low_low = low_row + x.low;
  *low_high = low_row + x.high;
  *high_low = high_row + x.low;
  *high_high = high_row + x.high;
}

// Fills cells and weights (bilinear times attention) of `count` points from number `first` on.
template <typename T>
inline __attribute__((always_inline)) void plan_points(Plan<T>& plan, const Points<T>& points,
                                                       int first, int count, const T* locations,
                                                       const T* attention) {
#pragma GCC ivdep
  for (int i = 0; i < count; ++i) {
    const int point = first + i;
    const Axis<T> x = locate(locations[2 * point], points.width[point]);
    const Axis<T> y = locate(locations[2 * point + 1], points.height[point]);
    plan_cells(x, y, points, point, &plan.cell[0][i], &plan.cell[1][i], &plan.cell[2][i],
               &plan.cell[3][i]);
    const T low = y.low_weight * attention[point];
    const T high = y.high_weight * attention[point];
    plan.weight[0][i] = low * x.low_weight;
    plan.weight[1][i] = low * x.high_weight;
    plan.weight[2][i] = high * x.low_weight;
    plan.weight[3][i] = high * x.high_weight;
  }
}

// The same with the count known to the compiler where it is a usual one.
template <typename T>
inline void plan_chunk(Plan<T>& plan, const Points<T>& points, int first, int count,
                       const T* locations, const T* attention) {
  if (count == kChunk) {
    plan_points(plan, points, first, kChunk, locations, attention);
  } else if (count == kChunk / 2) {
    plan_points(plan, points, first, kChunk / 2, locations, attention);
  } else {
    plan_points(plan, points, first, count, locations, attention);
  }
}

// Sampling inputs or their gradients for one head: rows of 2 * points locations and points weights.
template <typename T>
struct Samples {
  Rows<T> locations;
  Rows<T> attention;
};

template <int Write, typename T>
inline void prefetch_samples(const Samples<T>& samples, int64_t query, int64_t points) {
  prefetch_row<Write>(samples.locations, query, 2 * points);
  prefetch_row<Write>(samples.attention, query, points);
}

// output[q] = sum over points and corners of weight * cells[cell], for Blocks * Lanes channels.
template <typename T, int Lanes, int Blocks>
void sample_forward(const Points<T>& points, Rows<const T> cells, Samples<const T> samples,
                    Rows<T> output, int64_t first_query, int64_t last_query) {
  using V = Vector<T, Lanes>;
  // Two additions start per cycle and take four: eight independent sums hide the latency.
  constexpr int kChains = std::clamp(8 / Blocks, 1, kCorners);
  Plan<T> plan;
  for (int64_t query = first_query; query < last_query; ++query) {
    const int64_t ahead = std::min(query + kQueriesAhead, last_query - 1);
    prefetch_samples<0>(samples, ahead, points.count);
    prefetch_row<1>(output, ahead, Blocks * Lanes);
    V sum[kChains][Blocks] = {};
    for (int first = 0; first < points.count; first += kChunk) {
      const int count = std::min(kChunk, points.count - first);
      plan_chunk(plan, points, first, count, samples.locations.row(query),
                 samples.attention.row(query));
      for (int i = 0; i < count; ++i) {
        for (int corner = 0; corner < kCorners; ++corner) {
          const T* cell = cells.row(plan.cell[corner][i]);
          const T weight = plan.weight[corner][i];
          for (int block = 0; block < Blocks; ++block) {
            sum[corner % kChains][block] += weight * load<T, Lanes>(cell + block * Lanes);
          }
        }
      }
    }
    for (int block = 0; block < Blocks; ++block) {
      V total = sum[0][block];
      for (int chain = 1; chain < kChains; ++chain) {
        total += sum[chain][block];
      }
      store<T, Lanes>(output.row(query) + block * Lanes, total);
    }
  }
}

// Lanes of the vectors for one head: a register's, or half of them where that holds all channels.
template <typename T>
int64_t vector_lanes(int64_t channels) {
  constexpr int64_t kLanes = kVectorBytes / sizeof(T);
  return channels <= kLanes / 2 ? kLanes / 2 : kLanes;
}

// Channels of one head, padded to whole vectors.
template <typename T>
int64_t padded_channels(int64_t channels) {
  const int64_t lanes = vector_lanes<T>(channels);
  return (channels + lanes - 1) / lanes * lanes;
}

// Calls run(integral_constant lanes, integral_constant blocks, first channel) for up to Blocks
// vectors of Lanes channels and returns how many channels these are.
template <int Lanes, int Blocks, typename Run>
int64_t run_group(int64_t first, int64_t padded, const Run& run) {
  if constexpr (Blocks > 1) {
    if (padded - first < Blocks * Lanes) {
      return run_group<Lanes, Blocks - 1>(first, padded, run);
    }
  }
  run(std::integral_constant<int, Lanes>(), std::integral_constant<int, Blocks>(), first);
  return Blocks * Lanes;
}

// Calls run(integral_constant lanes, integral_constant blocks, first channel) for groups of
// channels that cover `padded`.
template <typename T, typename Run>
void for_channel_groups(int64_t padded, const Run& run) {
  constexpr int kLanes = kVectorBytes / sizeof(T);
  constexpr int kMaxBlocks = 4;  // sums that fit into registers
  if (padded < kLanes) {
    run_group<kLanes / 2, 1>(0, padded, run);
    return;
  }
  for (int64_t first = 0; first < padded;) {
    first += run_group<kLanes, kMaxBlocks>(first, padded, run);
  }
}

template <typename T>
Rows<T> shifted(Rows<T> rows, int64_t offset) {
  return {rows.data + offset, rows.stride};
}

}  // namespace msdetr::cpu
