// CUDA kernels of multi-scale deformable attention.
//
// A block serves one (image, head) and a tile of queries. All its threads first plan the tile's
// samples into shared memory, one sample each; then groups of lanes gather, every lane a vector of
// neighbouring channels of one query. Blocks of one head follow each other, and where queries are
// the cells themselves a tile is a patch of the map, so that neighbours share what they read.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda_plan.cuh"

namespace msdetr::cuda {

// `Count` neighbouring channels, moved as one access.
template <typename Element, int Count>
struct alignas(sizeof(Element) * Count) Pack {
  Element item[Count];
};

template <typename T, int Count, typename Element>
__device__ void load_channels(T (&to)[Count], const Element* from) {
  const Pack<Element, Count> pack = *reinterpret_cast<const Pack<Element, Count>*>(from);
#pragma unroll
  for (int i = 0; i < Count; ++i) {
    to[i] = static_cast<T>(pack.item[i]);
  }
}

template <int Count, typename T, typename Element>
__device__ void store_channels(Element* to, const T (&from)[Count]) {
  Pack<Element, Count> pack;
#pragma unroll
  for (int i = 0; i < Count; ++i) {
    pack.item[i] = static_cast<Element>(from[i]);
  }
  *reinterpret_cast<Pack<Element, Count>*>(to) = pack;
}

// Where value gradients are summed. Plain: floating-point atomics, in whatever order they arrive.
template <typename T>
struct AtomicSum {
  T* data;

  template <int Count>
  __device__ void add(int64_t index, T weight, const T (&grad)[Count]) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    constexpr bool kFours = sizeof(T) == 4 && Count % 4 == 0;
#else
    constexpr bool kFours = false;
#endif
    if constexpr (kFours) {
#pragma unroll
      for (int i = 0; i < Count; i += 4) {
        atomicAdd(reinterpret_cast<float4*>(data + index + i),
                  make_float4(weight * grad[i], weight * grad[i + 1], weight * grad[i + 2],
                              weight * grad[i + 3]));
      }
    } else {
#pragma unroll
      for (int i = 0; i < Count; ++i) {
        atomicAdd(data + index + i, weight * grad[i]);
      }
    }
  }
};

// 2^exponent such that sums bounded by `*bound` fit into 62 bits; also correct for a bound of zero.
__device__ inline int fixed_point_exponent(const double* bound) {
  return *bound > 0 ? 61 - ilogb(*bound) : 0;
}

// Deterministic: integers, whose sum does not depend on the order.
template <typename T>
struct FixedPointSum {
  unsigned long long* data;
  const double* bound;

  template <int Count>
  __device__ void add(int64_t index, T weight, const T (&grad)[Count]) const {
    const int exponent = fixed_point_exponent(bound);
#pragma unroll
    for (int i = 0; i < Count; ++i) {
      const double scaled = scalbn(static_cast<double>(weight * grad[i]), exponent);
      atomicAdd(data + index + i, static_cast<unsigned long long>(llrint(scaled)));
    }
  }
};

// Each group of `Lanes` threads takes the slots group, group + groups, ... of a tile.
template <typename T, int Lanes>
struct Groups {
  static constexpr int kGroups = kThreads / Lanes;
  static constexpr int kSlots = (kTile<T> + kGroups - 1) / kGroups;

  __device__ static int lane() { return threadIdx.x % Lanes; }
  __device__ static int slot(int turn) { return threadIdx.x / Lanes + turn * kGroups; }
  // The groups of a warp stay together: past the end of a tile there are only whole warps.
  static_assert(kTile<T> % (32 / Lanes) == 0 && kGroups % (32 / Lanes) == 0);
};

constexpr unsigned kWholeWarp = 0xffffffffu;

template <typename Value, typename T, int Count, int Lanes>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const __grid_constant__ Problem problem, const Value* __restrict__ value,
                   const T* __restrict__ locations, const T* __restrict__ attention,
                   Value* __restrict__ output) {
  using Group = Groups<T, Lanes>;
  __shared__ Plan<T> plan;
  const int pair = blockIdx.x / problem.tiles;
  plan_queries(problem, plan, blockIdx.x % problem.tiles);
  const Value* head = value + first_channel(problem, pair, problem.cells, 0);
  for (int base = 0; base < problem.channels; base += Lanes * Count) {
    const int channel = base + Group::lane() * Count;
    T sum[Group::kSlots][Count] = {};
    for (int first = 0; first < problem.samples(); first += kChunk) {
      __syncthreads();
      plan_chunk(problem, plan, pair, first, locations, attention);
      __syncthreads();
      const int count = min(kChunk, problem.samples() - first);
#pragma unroll
      for (int turn = 0; turn < Group::kSlots; ++turn) {
        const int slot = Group::slot(turn);
        if (slot >= kTile<T> || plan.query[slot] < 0 || channel >= problem.channels) {
          continue;
        }
#pragma unroll 4
        for (int i = 0; i < count; ++i) {
          const Corners<int> cell = plan.cell[slot][i];
          const Corners<T> weight = plan.weight[slot][i];
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
            T row[Count];
            load_channels(row, head + static_cast<int64_t>(cell.item[corner]) * problem.stride() +
                                   channel);
#pragma unroll
            for (int c = 0; c < Count; ++c) {
              sum[turn][c] += weight.item[corner] * row[c];
            }
          }
        }
      }
    }
#pragma unroll
    for (int turn = 0; turn < Group::kSlots; ++turn) {
      const int slot = Group::slot(turn);
      if (slot < kTile<T> && plan.query[slot] >= 0 && channel < problem.channels) {
        store_channels<Count>(output + first_channel(problem, pair, problem.queries,
                                                     plan.query[slot]) + channel,
                              sum[turn]);
      }
    }
  }
}

// Sums four numbers over a group of lanes; that of corner k ends in the lanes of its quarter.
// Halving what is kept in every step takes log2(Lanes) + 1 shuffles instead of 4 * log2(Lanes).
// Whole warps take part, which makes a shuffle one instruction.
template <int Lanes, typename T>
__device__ T sum_corners(const T (&dot)[4], int lane) {
  static_assert(Lanes >= 4);
  const bool last_half = lane & (Lanes / 2);
  const bool last_quarter = lane & (Lanes / 4);
  const T sent_first = last_half ? dot[0] : dot[2];
  const T sent_second = last_half ? dot[1] : dot[3];
  const T first =
      (last_half ? dot[2] : dot[0]) + __shfl_xor_sync(kWholeWarp, sent_first, Lanes / 2);
  const T second =
      (last_half ? dot[3] : dot[1]) + __shfl_xor_sync(kWholeWarp, sent_second, Lanes / 2);
  const T sent = last_quarter ? first : second;
  T sum = (last_quarter ? second : first) + __shfl_xor_sync(kWholeWarp, sent, Lanes / 4);
#pragma unroll
  for (int offset = Lanes / 8; offset > 0; offset /= 2) {
    sum += __shfl_xor_sync(kWholeWarp, sum, offset);
  }
  return sum;
}

// One sample: scatters into the value gradient, and returns the dot products of the output gradient
// with the corners. All rows are asked for before any is used, so that their latencies overlap.
template <int Count, typename Value, typename T, typename Sum>
__device__ void scatter_sample(const Corners<int64_t>& offset, const Corners<T>& weight,
                               const Value* head, int64_t head_index, const T (&grad)[Count],
                               const Sum& grad_value, T (&dot)[4]) {
  T row[4][Count];
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
    load_channels(row[corner], head + offset.item[corner]);
  }
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
#pragma unroll
    for (int c = 0; c < Count; ++c) {
      dot[corner] += grad[c] * row[corner][c];
    }
    if (weight.item[corner] != T(0)) {
      grad_value.add(head_index + offset.item[corner], weight.item[corner], grad);
    }
  }
}

// One query's samples of a chunk: scatters into the value gradient, and replaces the planned
// weights by the dot products of the output gradient with the corners. Lanes that are not `active`
// have no query or no channel and only keep the warp whole.
template <int Count, int Lanes, typename Value, typename T, typename Sum>
__device__ void scatter_query(const Problem& problem, Plan<T>& plan, int slot, int count,
                              bool active, const Value* head, int64_t head_index, int channel,
                              const T (&grad)[Count], const Sum& grad_value) {
  using Group = Groups<T, Lanes>;
  for (int i = 0; i < count; ++i) {
    T dot[4] = {};
    if (active) {
      const Corners<int> cell = plan.cell[slot][i];
      const Corners<T> weight = plan.weight[slot][i];
      Corners<int64_t> offset;
#pragma unroll
      for (int corner = 0; corner < 4; ++corner) {
        offset.item[corner] = static_cast<int64_t>(cell.item[corner]) * problem.stride() + channel;
      }
      scatter_sample(offset, weight, head, head_index, grad, grad_value, dot);
    }
    const T sum = sum_corners<Lanes>(dot, Group::lane());
    __syncwarp();  // all lanes have read the weights
    if (Group::lane() % (Lanes / 4) == 0) {
      plan.weight[slot][i].item[Group::lane() / (Lanes / 4)] = sum;
    }
  }
}

// Gradients of a chunk's locations and weights from the dot products; later channels add to them.
template <typename T>
__device__ void differentiate_chunk(const Problem& problem, const Plan<T>& plan, int pair,
                                    int first, bool accumulate, const T* locations,
                                    const T* attention, T* grad_locations, T* grad_attention) {
  for_samples(problem, plan, pair, first, [&](int slot, int i, int64_t sample) {
    Axis<T> x;
    Axis<T> y;
    locate_sample(problem, first + i, locations + 2 * sample, x, y);
    const int level = (first + i) / problem.points_per_level;
    const Corners<T> dot = plan.weight[slot][i];
    const SampleGradient<T> gradient =
        differentiate(x, y, dot.item[0], dot.item[1], dot.item[2], dot.item[3]);
    const T dx = attention[sample] * static_cast<T>(problem.levels.width[level]) * gradient.dx;
    const T dy = attention[sample] * static_cast<T>(problem.levels.height[level]) * gradient.dy;
    T* location = grad_locations + 2 * sample;
    grad_attention[sample] = gradient.weight + (accumulate ? grad_attention[sample] : T(0));
    location[0] = dx + (accumulate ? location[0] : T(0));
    location[1] = dy + (accumulate ? location[1] : T(0));
  });
}

template <typename T>
struct Gradients {
  T* locations;
  T* attention;
};

template <typename Value, typename T, int Count, int Lanes, typename Sum>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const __grid_constant__ Problem problem, const Value* __restrict__ value,
                    const T* __restrict__ locations, const T* __restrict__ attention,
                    const Value* __restrict__ grad_output, const Sum grad_value,
                    const Gradients<T> grads) {
  using Group = Groups<T, Lanes>;
  __shared__ Plan<T> plan;
  const int pair = blockIdx.x / problem.tiles;
  plan_queries(problem, plan, blockIdx.x % problem.tiles);
  const int64_t head_index = first_channel(problem, pair, problem.cells, 0);
  for (int base = 0; base < problem.channels; base += Lanes * Count) {
    const int channel = base + Group::lane() * Count;
    for (int first = 0; first < problem.samples(); first += kChunk) {
      __syncthreads();
      plan_chunk(problem, plan, pair, first, locations, attention);
      __syncthreads();
      const int count = min(kChunk, problem.samples() - first);
      for (int turn = 0; turn < Group::kSlots; ++turn) {
        const int slot = Group::slot(turn);
        if (slot >= kTile<T>) {
          continue;
        }
        const int query = plan.query[slot];
        const bool active = query >= 0 && channel < problem.channels;
        T grad[Count] = {};
        if (active) {
          load_channels(grad, grad_output + first_channel(problem, pair, problem.queries, query) +
                                  channel);
        }
        scatter_query<Count, Lanes>(problem, plan, slot, count, active, value + head_index,
                                    head_index, channel, grad, grad_value);
      }
      __syncthreads();
      differentiate_chunk(problem, plan, pair, first, base > 0, locations, attention,
                          grads.locations, grads.attention);
    }
  }
}

// Turns fixed-point sums into numbers; a bound that is not finite makes all of them NaN.
template <typename Value>
__global__ void __launch_bounds__(kThreads)
    from_fixed_point_kernel(int64_t count, const unsigned long long* __restrict__ sums,
                            const double* __restrict__ bound, Value* __restrict__ grad_value) {
  const int exponent = fixed_point_exponent(bound);
  const bool finite = isfinite(*bound);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += step) {
    const double sum = scalbn(static_cast<double>(static_cast<long long>(sums[i])), -exponent);
    using Wide = std::conditional_t<sizeof(Value) == 8, double, float>;
    grad_value[i] = static_cast<Value>(static_cast<Wide>(finite ? sum : nan("")));
  }
}

}  // namespace msdetr::cuda
