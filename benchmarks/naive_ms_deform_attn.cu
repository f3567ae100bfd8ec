// The plainest kernel: one thread per query, head and channel, each doing all the arithmetic of its
// samples alone. A baseline for benchmarks/ms_deform_attn.py, not used by the package.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <cstdint>
#include <tuple>

namespace {

constexpr int kThreads = 256;
constexpr int kMaxLevels = 8;

struct Problem {
  int levels, points, heads, channels;
  int64_t cells, queries, threads;
  int height[kMaxLevels], width[kMaxLevels], start[kMaxLevels];
};

Problem describe(const at::Tensor& value, at::IntArrayRef level_sizes,
                 const at::Tensor& locations) {
  Problem problem{};
  problem.levels = static_cast<int>(level_sizes.size() / 2);
  TORCH_CHECK(problem.levels <= kMaxLevels, "too many levels");
  problem.points = static_cast<int>(locations.size(4));
  problem.heads = static_cast<int>(value.size(2));
  problem.channels = static_cast<int>(value.size(3));
  problem.cells = value.size(1);
  problem.queries = locations.size(1);
  problem.threads = value.size(0) * problem.queries * problem.heads * problem.channels;
  int start = 0;
  for (int level = 0; level < problem.levels; ++level) {
    problem.height[level] = static_cast<int>(level_sizes[2 * level]);
    problem.width[level] = static_cast<int>(level_sizes[2 * level + 1]);
    problem.start[level] = start;
    start += problem.height[level] * problem.width[level];
  }
  return problem;
}

// Calls visit(cell index or -1, weight, d weight / dx, d weight / dy) for the corners of a sample.
template <typename Visit>
__device__ void for_corners(const Problem& problem, int level, const float* location,
                            const Visit& visit) {
  const int height = problem.height[level];
  const int width = problem.width[level];
  const float x = location[0] * width - 0.5f;
  const float y = location[1] * height - 0.5f;
  const int left = static_cast<int>(floorf(x));
  const int top = static_cast<int>(floorf(y));
  for (int corner = 0; corner < 4; ++corner) {
    const int column = left + corner % 2;
    const int row = top + corner / 2;
    const float along = corner % 2 ? x - left : 1 - (x - left);
    const float down = corner / 2 ? y - top : 1 - (y - top);
    if (column >= 0 && column < width && row >= 0 && row < height) {
      visit(problem.start[level] + row * width + column, along * down,
            (corner % 2 ? down : -down) * width, (corner / 2 ? along : -along) * height);
    }
  }
}

struct Place {
  int64_t sample;  // of the query and head
  int64_t value;   // of cell 0, this head and channel
};

__device__ Place place_of(const Problem& problem, int64_t thread) {
  const int64_t channel = thread % problem.channels;
  const int64_t query_head = thread / problem.channels;
  const int64_t head = query_head % problem.heads;
  const int64_t image = query_head / problem.heads / problem.queries;
  return {query_head * problem.levels * problem.points,
          (image * problem.cells * problem.heads + head) * problem.channels + channel};
}

__global__ void forward_kernel(Problem problem, const float* value, const float* locations,
                               const float* weights, float* output) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (thread >= problem.threads) {
    return;
  }
  const Place place = place_of(problem, thread);
  const int64_t stride = static_cast<int64_t>(problem.heads) * problem.channels;
  float sum = 0;
  for (int point = 0; point < problem.levels * problem.points; ++point) {
    const int64_t sample = place.sample + point;
    for_corners(problem, point / problem.points, locations + 2 * sample,
                [&](int cell, float weight, float, float) {
                  sum += weights[sample] * weight * value[place.value + cell * stride];
                });
  }
  output[thread] = sum;
}

__global__ void backward_kernel(Problem problem, const float* grad_output, const float* value,
                                const float* locations, const float* weights, float* grad_value,
                                float* grad_locations, float* grad_weights) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (thread >= problem.threads) {
    return;
  }
  const Place place = place_of(problem, thread);
  const int64_t stride = static_cast<int64_t>(problem.heads) * problem.channels;
  const float grad = grad_output[thread];
  for (int point = 0; point < problem.levels * problem.points; ++point) {
    const int64_t sample = place.sample + point;
    float to_weight = 0;
    float to_x = 0;
    float to_y = 0;
    for_corners(problem, point / problem.points, locations + 2 * sample,
                [&](int cell, float weight, float dx, float dy) {
                  const int64_t index = place.value + cell * stride;
                  atomicAdd(grad_value + index, weights[sample] * weight * grad);
                  to_weight += weight * grad * value[index];
                  to_x += dx * weights[sample] * grad * value[index];
                  to_y += dy * weights[sample] * grad * value[index];
                });
    atomicAdd(grad_weights + sample, to_weight);
    atomicAdd(grad_locations + 2 * sample, to_x);
    atomicAdd(grad_locations + 2 * sample + 1, to_y);
  }
}

unsigned blocks(const Problem& problem) {
  return static_cast<unsigned>((problem.threads + kThreads - 1) / kThreads);
}

at::Tensor forward(const at::Tensor& value, at::IntArrayRef level_sizes,
                   const at::Tensor& locations, const at::Tensor& weights) {
  const c10::cuda::CUDAGuard guard(value.device());
  const Problem problem = describe(value, level_sizes, locations);
  const at::Tensor output = at::empty(
      {value.size(0), problem.queries, problem.heads * problem.channels}, value.options());
  forward_kernel<<<blocks(problem), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      problem, value.const_data_ptr<float>(), locations.const_data_ptr<float>(),
      weights.const_data_ptr<float>(), output.mutable_data_ptr<float>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return output;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& grad_output,
                                                        const at::Tensor& value,
                                                        at::IntArrayRef level_sizes,
                                                        const at::Tensor& locations,
                                                        const at::Tensor& weights) {
  const c10::cuda::CUDAGuard guard(value.device());
  const Problem problem = describe(value, level_sizes, locations);
  const at::Tensor grad_value = at::zeros(value.sizes(), value.options());
  const at::Tensor grad_locations = at::zeros(locations.sizes(), locations.options());
  const at::Tensor grad_weights = at::zeros(weights.sizes(), weights.options());
  backward_kernel<<<blocks(problem), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      problem, grad_output.const_data_ptr<float>(), value.const_data_ptr<float>(),
      locations.const_data_ptr<float>(), weights.const_data_ptr<float>(),
      grad_value.mutable_data_ptr<float>(), grad_locations.mutable_data_ptr<float>(),
      grad_weights.mutable_data_ptr<float>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return {grad_value, grad_locations, grad_weights};
}

}  // namespace

TORCH_LIBRARY(msdetr_naive, library) {
  library.def(
      "forward(Tensor value, int[] level_sizes, Tensor locations, Tensor weights) -> Tensor");
  library.def(
      "backward(Tensor grad, Tensor value, int[] level_sizes, Tensor locations, Tensor weights)"
      " -> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(msdetr_naive, CUDA, library) {
  library.impl("forward", &forward);
  library.impl("backward", &backward);
}
