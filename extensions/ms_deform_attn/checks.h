// Checks shared by the CPU and the CUDA kernels; messages name the expected and the actual value.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdint>

#include "sizes.h"

namespace msdetr {

inline void check_tensor(const at::Tensor& tensor, const char* name, at::IntArrayRef shape,
                         at::ScalarType dtype, at::Device device) {
  TORCH_CHECK(tensor.sizes() == shape, name, " must have shape ", shape, ", got ", tensor.sizes());
  TORCH_CHECK(tensor.scalar_type() == dtype, name, " must be ", dtype, ", got ",
              tensor.scalar_type());
  TORCH_CHECK(tensor.device() == device, name, " must be on ", device, ", got ", tensor.device());
}

// The dtype of coordinates, weights and sums.
inline at::ScalarType accumulate_dtype(const at::Tensor& value) {
  return value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

inline Sizes check_inputs(const at::Tensor& value, at::IntArrayRef level_sizes,
                          const at::Tensor& locations, const at::Tensor& weights) {
  TORCH_CHECK(value.dim() == 4, "value must be [B, S, M, D], got shape ", value.sizes());
  TORCH_CHECK(locations.dim() == 6,
              "sampling_locations must be [B, Q, M, L, P, 2], got shape ", locations.sizes());
  TORCH_CHECK(!level_sizes.empty() && level_sizes.size() % 2 == 0,
              "level sizes must be H, W of every level, got ", level_sizes);
  Sizes sizes{value.size(0),     value.size(1),
              value.size(2),     value.size(3),
              locations.size(1), static_cast<int64_t>(level_sizes.size() / 2),
              locations.size(4)};
  int64_t cells = 0;
  for (size_t level = 0; level < level_sizes.size(); level += 2) {
    const int64_t height = level_sizes[level];
    const int64_t width = level_sizes[level + 1];
    TORCH_CHECK(height > 0 && width > 0, "level sizes must be positive, got ", level_sizes);
    TORCH_CHECK(height < (1 << 24) && width < (1 << 24),
                "level sizes must be below 2^24, got ", level_sizes);
    cells += height * width;
  }
  TORCH_CHECK(cells == sizes.cells, "value must have ", cells, " cells for level sizes ",
              level_sizes, ", got ", sizes.cells);
  TORCH_CHECK(cells <= INT32_MAX, "value must have fewer than 2^31 cells, got ", cells);
  const at::ScalarType dtype = accumulate_dtype(value);
  check_tensor(locations, "sampling_locations",
               {sizes.images, sizes.queries, sizes.heads, sizes.levels, sizes.points, 2}, dtype,
               value.device());
  check_tensor(weights, "attention_weights",
               {sizes.images, sizes.queries, sizes.heads, sizes.levels, sizes.points}, dtype,
               value.device());
  return sizes;
}

}  // namespace msdetr
