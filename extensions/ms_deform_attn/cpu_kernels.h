// CPU kernels of one (image, head): no tensors here, only strided memory.
//
// A query's samples are first planned together (cells and weights of up to 16 points, vectorised by
// the compiler), then gathered channel vector by channel vector. Sums run in a fixed order, so
// results do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
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

// Dot products of the output gradient with the corners of up to kChunk points.
template <typename T, int Lanes>
struct alignas(64) Dots {
  T partial[kCorners][kChunk][Lanes] = {};
  T sum[kCorners][kChunk];

  void reduce(int count) {
    for (int corner = 0; corner < kCorners; ++corner) {
      for (int i = 0; i < count; i += Lanes) {
        store<T, Lanes>(sum[corner] + i, LaneSums<T, Lanes>::of(partial[corner][i]));
      }
    }
  }
};

// Scatters weight * grad into the cells' gradients and leaves the partial dot products.
template <typename T, int Lanes, int Blocks>
inline void scatter_chunk(const Plan<T>& plan, int count, Rows<const T> cells, Rows<T> grad_cells,
                          const T* grad_output, Dots<T, Lanes>& dots) {
  using V = Vector<T, Lanes>;
  V grad[Blocks];
  for (int block = 0; block < Blocks; ++block) {
    grad[block] = load<T, Lanes>(grad_output + block * Lanes);
  }
  for (int i = 0; i < count; ++i) {
    for (int corner = 0; corner < kCorners; ++corner) {
      const T* cell = cells.row(plan.cell[corner][i]);
      T* grad_cell = grad_cells.row(plan.cell[corner][i]);
      const T weight = plan.weight[corner][i];
      V partial = {};
      for (int block = 0; block < Blocks; ++block) {
        partial += grad[block] * load<T, Lanes>(cell + block * Lanes);
        store<T, Lanes>(grad_cell + block * Lanes,
                        load<T, Lanes>(grad_cell + block * Lanes) + weight * grad[block]);
      }
      store<T, Lanes>(dots.partial[corner][i], partial);
    }
  }
}

// Writes (or adds) the gradients of `count` locations and weights, given all dot products.
template <bool Accumulate, typename T, int Lanes>
inline void differentiate_chunk(const Points<T>& points, int first, int count,
                                const Dots<T, Lanes>& dots, const T* locations, const T* attention,
                                T* grad_locations, T* grad_attention) {
#pragma GCC ivdep
  for (int i = 0; i < count; ++i) {
    const int point = first + i;
    const Axis<T> x = locate(locations[2 * point], points.width[point]);
    const Axis<T> y = locate(locations[2 * point + 1], points.height[point]);
    const SampleGradient<T> gradient = differentiate(x, y, dots.sum[0][i], dots.sum[1][i],
                                                     dots.sum[2][i], dots.sum[3][i]);
    const T dx = attention[point] * points.width[point] * gradient.dx;
    const T dy = attention[point] * points.height[point] * gradient.dy;
    grad_attention[point] = gradient.weight + (Accumulate ? grad_attention[point] : T(0));
    grad_locations[2 * point] = dx + (Accumulate ? grad_locations[2 * point] : T(0));
    grad_locations[2 * point + 1] = dy + (Accumulate ? grad_locations[2 * point + 1] : T(0));
  }
}

// Gradients of all queries for Blocks * Lanes channels: adds to those of the cells; writes, or for
// a later group of channels adds to, those of the samples.
template <bool Accumulate, typename T, int Lanes, int Blocks>
void sample_backward(const Points<T>& points, Rows<const T> cells, Samples<const T> samples,
                     Rows<const T> grad_output, Rows<T> grad_cells, Samples<T> grad_samples,
                     int64_t first_query, int64_t last_query) {
  Plan<T> plan;
  Dots<T, Lanes> dots;
  for (int64_t query = first_query; query < last_query; ++query) {
    const int64_t ahead = std::min(query + kQueriesAhead, last_query - 1);
    prefetch_samples<0>(samples, ahead, points.count);
    prefetch_row<0>(grad_output, ahead, Blocks * Lanes);
    prefetch_samples<1>(grad_samples, ahead, points.count);
    const T* locations = samples.locations.row(query);
    const T* attention = samples.attention.row(query);
    for (int first = 0; first < points.count; first += kChunk) {
      const int count = std::min(kChunk, points.count - first);
      plan_chunk(plan, points, first, count, locations, attention);
      scatter_chunk<T, Lanes, Blocks>(plan, count, cells, grad_cells, grad_output.row(query), dots);
      dots.reduce(count);
      differentiate_chunk<Accumulate>(points, first, count, dots, locations, attention,
                                      grad_samples.locations.row(query),
                                      grad_samples.attention.row(query));
    }
  }
}

}  // namespace msdetr::cpu
