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

#include <cstdlib>
#include <memory>
#include <new>
#include <tuple>
#include <type_traits>

#include "checks.h"
#include "cpu_kernels.h"

namespace msdetr::cpu {
namespace {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// Memory of whole cache lines, not initialised.
template <typename T>
class Buffer {
 public:
  explicit Buffer(int64_t count) {
    if (count > 0) {
      const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
      memory_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
      if (memory_ == nullptr) {
        throw std::bad_alloc();
      }
    }
  }
  T* data() const { return memory_.get(); }

 private:
  std::unique_ptr<T[], Free> memory_;
};

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

// Channels of one head, padded to whole vectors.
template <typename T>
int64_t padded_channels(int64_t channels) {
  const int64_t lanes = sizeof(T) == 8 || channels <= 8 ? 8 : 16;
  return (channels + lanes - 1) / lanes * lanes;
}

template <typename From, typename To>
void copy_rows(Rows<const From> from, Rows<To> to, int64_t rows, int64_t from_channels,
               int64_t to_channels) {
  const int64_t shared = std::min(from_channels, to_channels);
  for (int64_t row = 0; row < rows; ++row) {
    const From* source = from.row(row);
    To* target = to.row(row);
    for (int64_t channel = 0; channel < shared; ++channel) {
      target[channel] = static_cast<To>(source[channel]);
    }
    std::fill(target + shared, target + to_channels, To(0));
  }
}

// Calls run(integral_constant lanes, integral_constant blocks, first channel) for groups of
// channels that cover `padded`.
template <typename T, typename Run>
void for_channel_groups(int64_t padded, const Run& run) {
  const auto group = [&](auto lanes, int64_t first) -> int64_t {
    const int64_t blocks = (padded - first) / decltype(lanes)::value;
    if (blocks >= 4) {
      run(lanes, std::integral_constant<int, 4>(), first);
      return 4 * decltype(lanes)::value;
    }
    if (blocks >= 2) {
      run(lanes, std::integral_constant<int, 2>(), first);
      return 2 * decltype(lanes)::value;
    }
    run(lanes, std::integral_constant<int, 1>(), first);
    return decltype(lanes)::value;
  };
  for (int64_t first = 0; first < padded;) {
    if constexpr (sizeof(T) == 8) {
      first += group(std::integral_constant<int, 8>(), first);
    } else if (padded == 8) {
      first += group(std::integral_constant<int, 8>(), first);
    } else {
      first += group(std::integral_constant<int, 16>(), first);
    }
  }
}

template <typename T>
Rows<T> shifted(Rows<T> rows, int64_t offset) {
  return {rows.data + offset, rows.stride};
}

// Strided views of one call's tensors, head by head. Value is the stored type, T that of the sums.
template <typename Value, typename T>
struct Call {
  Sizes sizes;
  Points<T> points;
  int64_t padded;
  // Rows can be used where they are: same type, no padding.
  bool plain_rows;

  Call(const Sizes& call_sizes, at::IntArrayRef level_sizes)
      : sizes(call_sizes),
        points(describe_points<T>(call_sizes, level_sizes)),
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

constexpr int64_t kBandQueries = 128;

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
    const Rows<const T> from{scratch, call.padded};
    const Rows<Value> to{output.row(first_query), output.stride};
    copy_rows(from, to, last_query - first_query, call.sizes.channels, call.sizes.channels);
  }
}

template <typename Value, typename T>
void forward(const Call<Value, T>& call, const Value* value, const T* locations,
             const T* attention, Value* output) {
  const Sizes& sizes = call.sizes;
  const bool in_place = call.gathers_in_place();
  const int64_t grain = std::max<int64_t>(1, 2048 / call.points.count);
  const auto run = [&](int64_t begin, int64_t end) {
    const Buffer<T> packed(in_place ? 0 : sizes.cells * call.padded);
    const Buffer<T> scratch(call.plain_rows ? 0 : kBandQueries * call.padded);
    Rows<const T> cells{packed.data(), call.padded};
    int64_t ready_pair = -1;
    while (begin < end) {
      const int64_t pair = begin / sizes.queries;
      const int64_t first = begin % sizes.queries;
      const int64_t last = std::min({sizes.queries, first + end - begin, first + kBandQueries});
      if (pair != ready_pair) {
        const Rows<const Value> rows = call.head(value, sizes.cells, sizes.channels, pair);
        if (!in_place) {
          copy_rows(rows, Rows<T>{packed.data(), call.padded}, sizes.cells, sizes.channels,
                    call.padded);
        } else if constexpr (std::is_same_v<Value, T>) {
          cells = rows;
        }
        ready_pair = pair;
      }
      forward_band(call, cells, call.samples(locations, attention, pair),
                   call.head(output, sizes.queries, sizes.channels, pair), scratch.data(), first,
                   last);
      begin += last - first;
    }
  };
  at::parallel_for(0, call.pairs() * sizes.queries, grain, run);
}

template <typename Value, typename T>
struct Gradients {
  Value* value;
  T* locations;
  T* attention;
};

// Backward of one (image, head) into `grad_cells`, which holds zeros.
template <typename Value, typename T>
void backward_head(const Call<Value, T>& call, Rows<const T> cells, Samples<const T> samples,
                   Rows<const T> grad_output, Rows<T> grad_cells, Samples<T> grad_samples) {
  for_channel_groups<T>(call.padded, [&](auto lanes, auto blocks, int64_t channel) {
    constexpr int kLanes = decltype(lanes)::value;
    constexpr int kBlocks = decltype(blocks)::value;
    const auto run = channel == 0 ? sample_backward<false, T, kLanes, kBlocks>
                                  : sample_backward<true, T, kLanes, kBlocks>;
    run(call.points, shifted(cells, channel), samples, shifted(grad_output, channel),
        shifted(grad_cells, channel), grad_samples, call.sizes.queries);
  });
}

template <typename Value, typename T>
void backward(const Call<Value, T>& call, const Value* value, const T* locations,
              const T* attention, const Value* grad_output, Gradients<Value, T> grads) {
  const Sizes& sizes = call.sizes;
  const bool in_place = call.gathers_in_place();
  const int64_t packed_size = in_place ? 0 : sizes.cells * call.padded;
  at::parallel_for(0, call.pairs(), 1, [&](int64_t begin, int64_t end) {
    const Buffer<T> packed(packed_size);
    const Buffer<T> packed_grad(packed_size);
    const Buffer<T> packed_output(call.plain_rows ? 0 : sizes.queries * call.padded);
    for (int64_t pair = begin; pair < end; ++pair) {
      const Rows<const Value> rows = call.head(value, sizes.cells, sizes.channels, pair);
      const Rows<Value> grad_rows = call.head(grads.value, sizes.cells, sizes.channels, pair);
      const Rows<const Value> output_rows =
          call.head(grad_output, sizes.queries, sizes.channels, pair);
      Rows<T> own_cells{packed.data(), call.padded};
      Rows<T> own_grads{packed_grad.data(), call.padded};
      Rows<T> own_output{packed_output.data(), call.padded};
      Rows<const T> cells{own_cells.data, own_cells.stride};
      Rows<const T> outputs{own_output.data, own_output.stride};
      Rows<T> grad_cells = own_grads;
      if (in_place) {
        if constexpr (std::is_same_v<Value, T>) {
          cells = rows;
          grad_cells = grad_rows;
        }
      } else {
        copy_rows(rows, own_cells, sizes.cells, sizes.channels, call.padded);
        std::fill_n(own_grads.data, packed_size, T(0));
      }
      if (call.plain_rows) {
        if constexpr (std::is_same_v<Value, T>) {
          outputs = output_rows;
        }
      } else {
        copy_rows(output_rows, own_output, sizes.queries, sizes.channels, call.padded);
      }
      const Samples<T> grad_samples{
          call.head(grads.locations, sizes.queries, 2 * sizes.samples(), pair),
          call.head(grads.attention, sizes.queries, sizes.samples(), pair)};
      backward_head(call, cells, call.samples(locations, attention, pair), outputs, grad_cells,
                    grad_samples);
      if (!in_place) {
        copy_rows(Rows<const T>{own_grads.data, own_grads.stride}, grad_rows, sizes.cells,
                  sizes.channels, sizes.channels);
      }
    }
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

at::Tensor forward_cpu(const at::Tensor& value, at::IntArrayRef level_sizes,
                       const at::Tensor& locations, const at::Tensor& weights) {
  const Sizes sizes = check_inputs(value, level_sizes, locations, weights);
  const at::Tensor output =
      at::empty({sizes.images, sizes.queries, sizes.heads * sizes.channels}, value.options());
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
  const at::Tensor grad_value = at::zeros(value.sizes(), value.options());
  const at::Tensor grad_locations = at::empty(locations.sizes(), locations.options());
  const at::Tensor grad_weights = at::empty(weights.sizes(), weights.options());
  if (grad_output.numel() == 0 || sizes.points == 0) {
    return {grad_value, grad_locations.zero_(), grad_weights.zero_()};
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
