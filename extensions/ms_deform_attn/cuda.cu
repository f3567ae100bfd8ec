// CUDA implementation of msdetr::ms_deform_attn and its backward.
//
// Channels move in vectors of 16 bytes where their number and alignment allow, else in vectors of 4
// (half precision) or one by one. Value gradients are summed in float32 (float64 for float64
// values) by atomics, or as integers where a result that repeats exactly was asked for.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <type_traits>

#include "checks.h"
#include "cuda_kernels.cuh"

namespace msdetr::cuda {
namespace {

template <typename T>
Problem checked_problem(const Sizes& sizes, at::IntArrayRef level_sizes) {
  TORCH_CHECK(sizes.levels <= kMaxLevels, "at most ", kMaxLevels, " levels on CUDA, got ",
              sizes.levels);
  TORCH_CHECK(sizes.queries < INT32_MAX && sizes.heads * sizes.channels < INT32_MAX &&
                  sizes.samples() < INT32_MAX,
              "queries, heads * channels and levels * points must be below 2^31");
  return describe<T>(sizes, level_sizes.data());
}

// Blocks of a launch: every (image, head) and tile.
unsigned blocks(const Sizes& sizes, const Problem& problem) {
  const int64_t count = sizes.images * sizes.heads * problem.tiles;
  TORCH_CHECK(count <= INT32_MAX, "too many queries for one launch: ", count, " blocks");
  return static_cast<unsigned>(count);
}

bool is_aligned(const void* pointer, size_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

// Calls run(channels per lane, lanes) with the widest vectors that `channels` and `pointers` allow.
template <typename Value, typename Run>
void for_width(int channels, std::initializer_list<const void*> pointers, const Run& run) {
  const auto allowed = [&](int count) {
    return channels % count == 0 && std::all_of(pointers.begin(), pointers.end(), [&](auto* p) {
             return is_aligned(p, count * sizeof(Value));
           });
  };
  constexpr int kWide = 16 / sizeof(Value);
  using Wide = std::integral_constant<int, kWide>;
  using Four = std::integral_constant<int, 4>;
  using One = std::integral_constant<int, 1>;
  if (allowed(kWide)) {
    if (channels <= 4 * kWide) {
      run(Wide(), std::integral_constant<int, 4>());
    } else {
      run(Wide(), std::integral_constant<int, 8>());
    }
    return;
  }
  if constexpr (kWide > 4) {
    if (allowed(4)) {
      run(Four(), std::integral_constant<int, 8>());
      return;
    }
  }
  run(One(), std::integral_constant<int, 16>());
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

at::Tensor forward_cuda(const at::Tensor& value, at::IntArrayRef level_sizes,
                        const at::Tensor& sampling_locations, const at::Tensor& attention_weights) {
  const Sizes sizes = check_inputs(value, level_sizes, sampling_locations, attention_weights);
  const c10::cuda::CUDAGuard guard(value.device());
  const at::Tensor output =
      at::empty({sizes.images, sizes.queries, sizes.heads * sizes.channels}, value.options());
  if (output.numel() == 0 || sizes.points == 0) {
    return output.zero_();
  }
  const at::Tensor cells = value.contiguous();
  const at::Tensor locations = sampling_locations.contiguous();
  const at::Tensor attention = attention_weights.contiguous();
  for_dtype(value.scalar_type(), [&](auto stored, auto summed) {
    using Value = decltype(stored);
    using T = decltype(summed);
    const Problem problem = checked_problem<T>(sizes, level_sizes);
    const Value* from = cells.const_data_ptr<Value>();
    Value* to = output.mutable_data_ptr<Value>();
    for_width<Value>(problem.channels, {from, to}, [&](auto count, auto lanes) {
      forward_kernel<Value, T, decltype(count)::value, decltype(lanes)::value>
          <<<blocks(sizes, problem), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
              problem, from, locations.const_data_ptr<T>(), attention.const_data_ptr<T>(), to);
    });
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return output;
}

// Tensors of one backward call, all contiguous.
struct Backward {
  Sizes sizes;
  at::IntArrayRef level_sizes;
  at::Tensor value;
  at::Tensor locations;
  at::Tensor attention;
  at::Tensor grad_output;
  at::Tensor grad_locations;
  at::Tensor grad_attention;
};

template <typename Value, typename T, typename Count, typename Lanes, typename Sum>
void launch_backward(const Backward& call, const Problem& problem, Count, Lanes, const Sum& sum) {
  backward_kernel<Value, T, Count::value, Lanes::value, Sum>
      <<<blocks(call.sizes, problem), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
          problem, call.value.const_data_ptr<Value>(), call.locations.const_data_ptr<T>(),
          call.attention.const_data_ptr<T>(), call.grad_output.const_data_ptr<Value>(), sum,
          Gradients<T>{call.grad_locations.mutable_data_ptr<T>(),
                       call.grad_attention.mutable_data_ptr<T>()});
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename Value, typename T>
at::Tensor backward_by_atomics(const Backward& call) {
  const Problem problem = checked_problem<T>(call.sizes, call.level_sizes);
  const at::Tensor sums =
      at::zeros(call.value.sizes(), call.value.options().dtype(accumulate_dtype(call.value)));
  for_width<Value>(problem.channels,
                   {call.value.const_data_ptr(), call.grad_output.const_data_ptr()},
                   [&](auto count, auto lanes) {
                     launch_backward<Value, T>(call, problem, count, lanes,
                                               AtomicSum<T>{sums.mutable_data_ptr<T>()});
                   });
  return sums.to(call.value.scalar_type());
}

// Largest magnitude that a sum over samples can reach, as a float64 scalar on the device.
at::Tensor bound_of_sums(const Backward& call) {
  const double samples_per_cell = static_cast<double>(call.sizes.queries * call.sizes.points);
  const at::Tensor largest_grad = call.grad_output.abs().amax().to(at::kDouble);
  const at::Tensor largest_weight = call.attention.abs().amax().to(at::kDouble);
  return largest_grad.mul(largest_weight).mul(samples_per_cell);
}

template <typename Value, typename T>
at::Tensor backward_by_integers(const Backward& call) {
  const Problem problem = checked_problem<T>(call.sizes, call.level_sizes);
  const at::Tensor sums = at::zeros(call.value.sizes(), call.value.options().dtype(at::kLong));
  const at::Tensor bound = bound_of_sums(call);
  auto* integers = reinterpret_cast<unsigned long long*>(sums.mutable_data_ptr<int64_t>());
  launch_backward<Value, T>(call, problem, std::integral_constant<int, 1>(),
                            std::integral_constant<int, 16>(),
                            FixedPointSum<T>{integers, bound.const_data_ptr<double>()});
  const at::Tensor grad_value = at::empty(call.value.sizes(), call.value.options());
  const int64_t needed = (sums.numel() + kThreads - 1) / kThreads;
  const auto grid = static_cast<unsigned>(std::min<int64_t>(needed, 1 << 16));
  from_fixed_point_kernel<Value><<<grid, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      sums.numel(), integers, bound.const_data_ptr<double>(),
      grad_value.mutable_data_ptr<Value>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return grad_value;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_cuda(
    const at::Tensor& grad_output, const at::Tensor& value, at::IntArrayRef level_sizes,
    const at::Tensor& sampling_locations, const at::Tensor& attention_weights,
    bool deterministic) {
  const Sizes sizes = check_inputs(value, level_sizes, sampling_locations, attention_weights);
  check_tensor(grad_output, "grad_output",
               {sizes.images, sizes.queries, sizes.heads * sizes.channels}, value.scalar_type(),
               value.device());
  const c10::cuda::CUDAGuard guard(value.device());
  const Backward call{sizes,
                      level_sizes,
                      value.contiguous(),
                      sampling_locations.contiguous(),
                      attention_weights.contiguous(),
                      grad_output.contiguous(),
                      at::empty(sampling_locations.sizes(), sampling_locations.options()),
                      at::empty(attention_weights.sizes(), attention_weights.options())};
  if (grad_output.numel() == 0 || sizes.points == 0) {
    return {at::zeros(value.sizes(), value.options()), call.grad_locations.zero_(),
            call.grad_attention.zero_()};
  }
  at::Tensor grad_value;
  for_dtype(value.scalar_type(), [&](auto stored, auto summed) {
    using Value = decltype(stored);
    using T = decltype(summed);
    grad_value = deterministic ? backward_by_integers<Value, T>(call)
                               : backward_by_atomics<Value, T>(call);
  });
  return {grad_value, call.grad_locations, call.grad_attention};
}

}  // namespace

TORCH_LIBRARY_IMPL(msdetr, CUDA, library) {
  library.impl("ms_deform_attn", &forward_cuda);
  library.impl("ms_deform_attn_backward", &backward_cuda);
}

}  // namespace msdetr::cuda
