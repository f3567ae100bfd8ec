// Arithmetic of one bilinear sample, shared by the CPU and the CUDA kernels.
//
// A location in [0, 1] spans a map of `size` cells whose centres lie at (i + 0.5) / size. Along one
// axis it falls between two neighbouring cells, low and high; cells outside the map count as zero.
// Indices are clamped into the map and the weights of outside cells are zero, so that callers read
// without branches. Outside weights come from a product, so a location that is not finite makes its
// sample NaN instead of disappearing.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define MSDETR_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define MSDETR_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace msdetr {

// The two cells of one axis. `inside` is 1 or 0; weight = inside * (distance to the other cell).
template <typename T>
struct Axis {
  int32_t low;
  int32_t high;
  T low_inside;
  T high_inside;
  T low_weight;
  T high_weight;
};

// False for NaN, so that the result is always a valid index.
template <typename T>
MSDETR_HOST_DEVICE T clamp_index(T index, T last) {
  const T not_negative = index > T(0) ? index : T(0);
  return not_negative < last ? not_negative : last;
}

template <typename T>
MSDETR_HOST_DEVICE Axis<T> locate(T location, T size) {
  const T position = location * size - T(0.5);
  const T low = std::floor(position);
  const T fraction = position - low;
  const T last = size - T(1);
  Axis<T> axis;
  axis.low = static_cast<int32_t>(clamp_index(low, last));
  axis.high = static_cast<int32_t>(clamp_index(low + T(1), last));
  axis.low_inside = (low >= T(0) && low <= last) ? T(1) : T(0);
  axis.high_inside = (low >= T(-1) && low < last) ? T(1) : T(0);
  axis.low_weight = (T(1) - fraction) * axis.low_inside;
  axis.high_weight = fraction * axis.high_inside;
  return axis;
}

// Gradients of one sample from the four dot products of the output gradient with the cells
// (low_low: low row, low column). `dx` and `dy` are with respect to the location in [0, 1].
template <typename T>
struct SampleGradient {
  T weight;
  T dx;
  T dy;
};

template <typename T>
MSDETR_HOST_DEVICE SampleGradient<T> differentiate(const Axis<T>& x, const Axis<T>& y, T low_low,
                                                   T low_high, T high_low, T high_high) {
  SampleGradient<T> gradient;
  const T low_row = x.low_weight * low_low + x.high_weight * low_high;
  const T high_row = x.low_weight * high_low + x.high_weight * high_high;
  gradient.weight = y.low_weight * low_row + y.high_weight * high_row;
  gradient.dx = y.low_weight * (x.high_inside * low_high - x.low_inside * low_low) +
                y.high_weight * (x.high_inside * high_high - x.low_inside * high_low);
  gradient.dy = y.high_inside * high_row - y.low_inside * low_row;
  return gradient;
}

}  // namespace msdetr
