// CPU implementation of msdetr::ms_deform_attn and its backward.
//
// Each head's values are packed into rows of their own (padded to whole vectors, widened to the
// type of the sums), unless there are so few queries that packing would cost more than it saves.
// The backward gives every (image, head) to one thread, which owns that head's value gradient:
// no atomics, and the same sums in the same order whatever the number of threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <type_traits>

#include "checks.h"
#include "cpu_backward.h"
#include "cpu_kernels.h"
#include "cpu_memory.h"
#include "cpu_tiling.h"

namespace msdetr::cpu {
namespace {

template <typename T>
Points<T> describe_points(const Sizes& sizes, at::IntArrayRef level_sizes) {
  Points<T> points{static_cast<int>(sizes.samples()), {}, {}, {}, {}};
  int64_t first_cell = 0;
  for (size_t level = 0; level < level_sizes.size(); level += 2) {
    const int64_t height = level_sizes[level];
    const int64_t width = level_sizes[level + 1];
    points.height.insert(points.height.end(), sizes.points, static_cast<T>(height));
    points.width.insert(points.width.end(), sizes.points, static_cast<T>(width));
    points.row_cells.insert(points.row_cells.end(), sizes.points, static_cast<int32_t>(width));
    points.first_cell.insert(points.first_cell.end(), sizes.points,
                             static_cast<int32_t>(first_cell));
    first_cell += height * width;
  }
  return points;
}

// Strided views of one call's tensors, head by head. Value is the stored type, T that of the sums.
template <typename Value, typename T>
struct Call {
  Sizes sizes;
  at::IntArrayRef level_sizes;
  Points<T> points;
  int64_t padded;
  // Rows can be used where they are: same type, no padding.
  bool plain_rows;

  Call(const Sizes& call_sizes, at::IntArrayRef call_level_sizes)
      : sizes(call_sizes),
        level_sizes(call_level_sizes),
        points(describe_points<T>(call_sizes, call_level_sizes)),
        padded(padded_channels<T>(call_sizes.channels)),
        plain_rows(std::is_same_v<Value, T> && padded == call_sizes.channels) {}

  int64_t pairs() const { return sizes.images * sizes.heads; }

  // Rows of [B, rows, M, width] that belong to one (image, head).
  template <typename Element>
  Rows<Element> head(Element* data, int64_t rows, int64_t width, int64_t pair) const {
    const int64_t image = pair / sizes.heads;
    const int64_t stride = sizes.heads * width;
    return {data + image * rows * stride + pair % sizes.heads * width, stride};
  }

  Samples<const T> samples(const T* locations, const T* attention, int64_t pair) const {
    return {head(locations, sizes.queries, 2 * sizes.samples(), pair),
            head(attention, sizes.queries, sizes.samples(), pair)};
  }

  // Whether gathering from the tensor itself beats packing each head first.
  bool gathers_in_place() const {
    return plain_rows && sizes.queries * sizes.samples() < sizes.cells;
  }
};

// A thread takes queries in bands, and each band for several heads in turn: their rows are
// neighbours in memory, while the cells that a band's queries look at stay in the caches.
constexpr int64_t kBandQueries = 64;
constexpr int64_t kGroupHeads = 8;

// Calls run(first pair, last pair) for groups of heads of one image.
template <typename Value, typename T, typename Run>
void for_head_groups(const Call<Value, T>& call, int64_t begin, int64_t end, const Run& run) {
  while (begin < end) {
    const int64_t image_end = (begin / call.sizes.heads + 1) * call.sizes.heads;
    const int64_t last = std::min({end, image_end, begin + kGroupHeads});
    run(begin, last);
    begin = last;
  }
}

// Calls run(first query, last query) for consecutive bands.
template <typename Run>
void for_bands(int64_t begin, int64_t end, const Run& run) {
  for (int64_t first = begin; first < end; first += kBandQueries) {
    run(first, std::min(end, first + kBandQueries));
  }
}

// Packs the cells of some heads of one image, head after head, each cell into a record of its own;
// what the values leave of a record becomes zeros.
template <typename Value, typename T>
void pack_heads(const Call<Value, T>& call, const Value* value, T* packed, int64_t record,
                int64_t first_pair, int64_t last_pair) {
  const auto first = call.head(value, call.sizes.cells, call.sizes.channels, first_pair);
  for (int64_t cell = 0; cell < call.sizes.cells; ++cell) {
    for (int64_t head = 0; head < last_pair - first_pair; ++head) {
      copy_row(first.row(cell) + head * call.sizes.channels,
               packed + (head * call.sizes.cells + cell) * record, call.sizes.channels, record);
    }
  }
}

// The reverse for the start of every record, into a tensor like the value.
template <typename Value, typename T>
void unpack_heads(const Call<Value, T>& call, const T* packed, int64_t record, Value* value,
                  int64_t first_pair, int64_t last_pair) {
  const auto first = call.head(value, call.sizes.cells, call.sizes.channels, first_pair);
  for (int64_t cell = 0; cell < call.sizes.cells; ++cell) {
    for (int64_t head = 0; head < last_pair - first_pair; ++head) {
      copy_row(packed + (head * call.sizes.cells + cell) * record,
               first.row(cell) + head * call.sizes.channels, call.sizes.channels,
               call.sizes.channels);
    }
  }
}

template <typename Value, typename T>
void forward_band(const Call<Value, T>& call, Rows<const T> cells, Samples<const T> samples,
                  Rows<Value> output, T* scratch, int64_t first_query, int64_t last_query) {
  Rows<T> sums{scratch - first_query * call.padded, call.padded};
  if constexpr (std::is_same_v<Value, T>) {
    if (call.plain_rows) {
      sums = output;
    }
  }
  for_channel_groups<T>(call.padded, [&](auto lanes, auto blocks, int64_t channel) {
    sample_forward<T, decltype(lanes)::value, decltype(blocks)::value>(
        call.points, shifted(cells, channel), samples, shifted(sums, channel), first_query,
        last_query);
  });
  if (!call.plain_rows) {
    for (int64_t query = first_query; query < last_query; ++query) {
      copy_row(sums.row(query), output.row(query), call.sizes.channels, call.sizes.channels);
    }
  }
}

template <typename Value, typename T>
void forward(const Call<Value, T>& call, const Value* value, const T* locations,
             const T* attention, Value* output) {
  const Sizes& sizes = call.sizes;
  const bool in_place = call.gathers_in_place();
  const int64_t head_size = in_place ? 0 : sizes.cells * call.padded;
  const Buffer<T> packed(call.pairs() * head_size);
  if (!in_place) {
    at::parallel_for(0, call.pairs(), 1, [&](int64_t begin, int64_t end) {
      for_head_groups(call, begin, end, [&](int64_t first, int64_t last) {
        pack_heads(call, value, packed.data() + first * head_size, call.padded, first, last);
      });
    });
  }
  const auto cells_of = [&](int64_t pair) {
    if constexpr (std::is_same_v<Value, T>) {
      if (in_place) {
        return call.head(value, sizes.cells, sizes.channels, pair);
      }
    }
    return Rows<const T>{packed.data() + pair * head_size, call.padded};
  };
  const auto sample_image = [&](int64_t image, int64_t begin, int64_t end, T* scratch) {
    for_bands(begin, end, [&](int64_t first, int64_t last) {
      for (int64_t head = 0; head < sizes.heads; ++head) {
        const int64_t pair = image * sizes.heads + head;
        forward_band(call, cells_of(pair), call.samples(locations, attention, pair),
                     call.head(output, sizes.queries, sizes.channels, pair), scratch, first, last);
      }
    });
  };
  const int64_t grain = std::max<int64_t>(1, 4096 / (call.points.count * sizes.heads));
  at::parallel_for(0, sizes.images * sizes.queries, grain, [&](int64_t begin, int64_t end) {
    const Buffer<T> scratch(call.plain_rows ? 0 : kBandQueries * call.padded);
    while (begin < end) {
      const int64_t image = begin / sizes.queries;
      const int64_t image_end = std::min(end, (image + 1) * sizes.queries);
      const int64_t before = image * sizes.queries;
      sample_image(image, begin - before, image_end - before, scratch.data());
      begin = image_end;
    }
  });
}

template <typename Value, typename T>
struct Gradients {
  Value* value;
  T* locations;
  T* attention;
};

// Inputs and results of one head's backward; rows of the output gradient start at query 0.
template <typename Value, typename T>
struct HeadBackward {
  Rows<const T> cells;
  Samples<const T> samples;
  Rows<const Value> grad_output;
  Rows<T> grad_cells;
  Samples<T> grad_samples;
};

template <typename Value, typename T>
void backward_tile(const Call<Value, T>& call, const HeadBackward<Value, T>& head,
                   const Scratch<T>& scratch, const Tile& tile) {
  const TileData<int32_t> cells = scratch.cells(tile.count);
  const TileData<T> weights = scratch.weights(tile.count);
  const Rows<T> rows = scratch.rows();
  const Rows<const T> grad_output{rows.data, rows.stride};
  for (int i = 0; i < tile.count; ++i) {
    copy_row(head.grad_output.row(tile.queries[i]), rows.row(i), call.sizes.channels, call.padded);
  }
  for_channel_groups<T>(call.padded, [&](auto lanes, auto blocks, int64_t channel) {
    constexpr int kLanes = decltype(lanes)::value;
    constexpr int kBlocks = decltype(blocks)::value;
    plan_tile(call.points, head.samples, tile, cells, weights);
    with_points(cells.points, [&](auto fixed) {
      scatter_tile<decltype(fixed)::value, T, kLanes, kBlocks>(
          cells, weights, shifted(head.cells, channel), shifted(grad_output, channel),
          shifted(head.grad_cells, channel));
    });
    const auto differentiate = channel == 0 ? differentiate_tile<false, T>
                                            : differentiate_tile<true, T>;
    differentiate(call.points, head.samples, tile, weights, head.grad_samples);
  });
}

template <typename Value, typename T>
void backward(const Call<Value, T>& call, const Value* value, const T* locations,
              const T* attention, const Value* grad_output, Gradients<Value, T> grads) {
  const Sizes& sizes = call.sizes;
  const bool in_place = call.gathers_in_place();
  // A cell's values and the sums of its gradient side by side: they are always used together.
  const int64_t record = 2 * call.padded;
  const int64_t head_size = in_place ? 0 : sizes.cells * record;
  const auto describe = [&](int64_t pair, T* packed) {
    const int64_t samples = sizes.samples();
    HeadBackward<Value, T> head{{packed, record},
                                call.samples(locations, attention, pair),
                                call.head(grad_output, sizes.queries, sizes.channels, pair),
                                {packed + call.padded, record},
                                {call.head(grads.locations, sizes.queries, 2 * samples, pair),
                                 call.head(grads.attention, sizes.queries, samples, pair)}};
    if constexpr (std::is_same_v<Value, T>) {
      if (in_place) {
        head.cells = call.head(value, sizes.cells, sizes.channels, pair);
        head.grad_cells = call.head(grads.value, sizes.cells, sizes.channels, pair);
      }
    }
    return head;
  };
  if (in_place) {
    // Heads add to the tensor where it is.
    const int64_t count = sizes.images * sizes.cells * sizes.heads * sizes.channels;
    at::parallel_for(0, count, 1 << 16, [&](int64_t begin, int64_t end) {
      std::fill(grads.value + begin, grads.value + end, Value(0));
    });
  }
  const Tiling tiling = tile_queries(sizes, call.level_sizes);
  at::parallel_for(0, call.pairs(), 1, [&](int64_t begin, int64_t end) {
    const int64_t max_heads = std::min({end - begin, kGroupHeads, sizes.heads});
    const Buffer<T> packed(max_heads * head_size);
    const Scratch<T> scratch(kTileQueries, static_cast<int>(sizes.levels),
                             static_cast<int>(sizes.points), call.padded);
    for_head_groups(call, begin, end, [&](int64_t first_pair, int64_t last_pair) {
      if (!in_place) {
        pack_heads(call, value, packed.data(), record, first_pair, last_pair);
      }
      for (int64_t index = 0; index < tiling.count(); ++index) {
        for (int64_t pair = first_pair; pair < last_pair; ++pair) {
          T* own = packed.data() + (pair - first_pair) * head_size;
          backward_tile(call, describe(pair, own), scratch, tiling.tile(index));
        }
      }
      if (!in_place) {
        unpack_heads(call, packed.data() + call.padded, record, grads.value, first_pair,
                     last_pair);
      }
    });
  });
}

template <typename Run>
void for_dtype(at::ScalarType dtype, const Run& run) {
  switch (dtype) {
    case at::kFloat:
      return run(float(), float());
    case at::kDouble:
      return run(double(), double());
    case at::kBFloat16:
      return run(c10::BFloat16(), float());
    case at::kHalf:
      return run(c10::Half(), float());
    default:
      TORCH_CHECK(false, "value must be float32, float64, bfloat16 or float16, got ", dtype);
  }
}

// Large results are mapped afresh by the C library for every call.
at::Tensor empty_result(at::IntArrayRef shape, const at::Tensor& like) {
  at::Tensor result = at::empty(shape, like.options());
  prefer_huge_pages(result.mutable_data_ptr(), result.nbytes());
  return result;
}

at::Tensor forward_cpu(const at::Tensor& value, at::IntArrayRef level_sizes,
                       const at::Tensor& locations, const at::Tensor& weights) {
  const Sizes sizes = check_inputs(value, level_sizes, locations, weights);
  const at::Tensor output =
      empty_result({sizes.images, sizes.queries, sizes.heads * sizes.channels}, value);
  if (output.numel() == 0 || sizes.points == 0) {
    return output.zero_();
  }
  for_dtype(value.scalar_type(), [&](auto stored, auto sum) {
    using Value = decltype(stored);
    using T = decltype(sum);
    forward(Call<Value, T>(sizes, level_sizes), value.contiguous().const_data_ptr<Value>(),
            locations.contiguous().const_data_ptr<T>(), weights.contiguous().const_data_ptr<T>(),
            output.mutable_data_ptr<Value>());
  });
  return output;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_cpu(const at::Tensor& grad_output,
                                                            const at::Tensor& value,
                                                            at::IntArrayRef level_sizes,
                                                            const at::Tensor& locations,
                                                            const at::Tensor& weights,
                                                            bool /*deterministic: always*/) {
  const Sizes sizes = check_inputs(value, level_sizes, locations, weights);
  check_tensor(grad_output, "grad_output",
               {sizes.images, sizes.queries, sizes.heads * sizes.channels}, value.scalar_type(),
               value.device());
  const at::Tensor grad_value = empty_result(value.sizes(), value);
  const at::Tensor grad_locations = empty_result(locations.sizes(), locations);
  const at::Tensor grad_weights = empty_result(weights.sizes(), weights);
  if (grad_output.numel() == 0 || sizes.points == 0) {
    return {grad_value.zero_(), grad_locations.zero_(), grad_weights.zero_()};
  }
  for_dtype(value.scalar_type(), [&](auto stored, auto sum) {
    using Value = decltype(stored);
    using T = decltype(sum);
    backward(Call<Value, T>(sizes, level_sizes), value.contiguous().const_data_ptr<Value>(),
             locations.contiguous().const_data_ptr<T>(), weights.contiguous().const_data_ptr<T>(),
             grad_output.contiguous().const_data_ptr<Value>(),
             Gradients<Value, T>{grad_value.mutable_data_ptr<Value>(),
                                 grad_locations.mutable_data_ptr<T>(),
                                 grad_weights.mutable_data_ptr<T>()});
  });
  return {grad_value, grad_locations, grad_weights};
}

}  // namespace

TORCH_LIBRARY_IMPL(msdetr, CPU, library) {
  library.impl("ms_deform_attn", &forward_cpu);
  library.impl("ms_deform_attn_backward", &backward_cpu);
}

}  // namespace msdetr::cpu
