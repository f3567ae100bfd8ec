// Runs the CUDA kernels on a CPU, thread by thread, so that their indexing, shuffles and barriers
// are tested where there is no GPU. Every thread of a block is a fiber; a barrier or a shuffle
// switches to the next fiber until all that take part have arrived.
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __restrict__
#define __launch_bounds__(threads)
#define __grid_constant__
#define __CUDA_ARCH__ 900

struct Index {
  unsigned x;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

Index threadIdx, blockIdx, gridDim;

namespace emulation {

constexpr int kThreads = 256;
constexpr size_t kStack = 1 << 17;

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(kStack);
  bool done = false;
};

struct Barrier {
  int waiting = 0;
  long passed = 0;
};

ucontext_t scheduler;
std::vector<Fiber> fibers(kThreads);
std::function<void()> kernel;
Barrier block_barrier;
Barrier warp_barriers[kThreads / 32][32][33];
char exchanged[kThreads][16];

void switch_to_scheduler() {
  const unsigned self = threadIdx.x;
  swapcontext(&fibers[self].context, &scheduler);
  threadIdx.x = self;
}

void arrive(Barrier& barrier, int expected) {
  const long round = barrier.passed;
  if (++barrier.waiting == expected) {
    barrier.waiting = 0;
    ++barrier.passed;
    return;
  }
  while (barrier.passed == round) {
    switch_to_scheduler();
  }
}

void run_fiber() {
  kernel();
  fibers[threadIdx.x].done = true;
}

void run_block() {
  for (Fiber& fiber : fibers) {
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, run_fiber, 0);
  }
  for (bool running = true; running;) {
    running = false;
    for (int thread = 0; thread < kThreads; ++thread) {
      if (!fibers[thread].done) {
        running = true;
        threadIdx.x = thread;
        swapcontext(&scheduler, &fibers[thread].context);
      }
    }
  }
}

void launch(unsigned blocks, std::function<void()> body) {
  kernel = std::move(body);
  gridDim.x = blocks;
  for (unsigned block = 0; block < blocks; ++block) {
    blockIdx.x = block;
    run_block();
  }
}

}  // namespace emulation

using std::isfinite;
using std::min;

void __syncthreads() { emulation::arrive(emulation::block_barrier, emulation::kThreads); }

void __syncwarp(unsigned mask = 0xffffffffu) {
  if (!(mask >> (threadIdx.x % 32) & 1)) {
    std::abort();  // a thread outside the mask
  }
  auto& barrier = emulation::warp_barriers[threadIdx.x / 32][__builtin_ctz(mask)]
                                          [__builtin_popcount(mask)];
  emulation::arrive(barrier, __builtin_popcount(mask));
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int offset) {
  std::memcpy(emulation::exchanged[threadIdx.x], &value, sizeof(T));
  __syncwarp(mask);
  const unsigned other = threadIdx.x ^ offset;
  if (!(mask >> (other % 32) & 1)) {
    std::abort();  // a lane that takes no part
  }
  std::memcpy(&value, emulation::exchanged[other], sizeof(T));
  __syncwarp(mask);
  return value;
}

template <typename T>
void atomicAdd(T* target, T value) {
  *target += value;
}

float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

void atomicAdd(float4* target, float4 value) {
  if (reinterpret_cast<uintptr_t>(target) % sizeof(float4) != 0) {
    std::abort();  // misaligned
  }
  *target = {target->x + value.x, target->y + value.y, target->z + value.z, target->w + value.w};
}

#include "cuda_kernels.cuh"

namespace {

using namespace msdetr;
using namespace msdetr::cuda;

// A 16-bit storage type, as the GPU's bfloat16: the first half of a float, rounded to even.
struct Brain {
  uint16_t bits;

  Brain() = default;
  explicit Brain(float number) {
    uint32_t all;
    std::memcpy(&all, &number, sizeof(all));
    bits = static_cast<uint16_t>((all + 0x7fff + (all >> 16 & 1)) >> 16);
  }
  operator float() const {
    const uint32_t all = static_cast<uint32_t>(bits) << 16;
    float number;
    std::memcpy(&number, &all, sizeof(number));
    return number;
  }
};

template <typename Value, typename T>
struct Arguments {
  Sizes sizes;
  const int64_t* level_sizes;
  double bound;
  const Value* value;
  const T* locations;
  const T* attention;
  const Value* grad_output;
  Value* output;
  Value* grad_value;
  T* grad_locations;
  T* grad_attention;

  int64_t values() const { return sizes.images * sizes.cells * sizes.heads * sizes.channels; }
};

template <typename Value, typename T, int Count, int Lanes>
void run_by_atomics(const Arguments<Value, T>& call, const Problem& problem, unsigned blocks) {
  const auto sum_into = [&](T* sums) {
    emulation::launch(blocks, [&] {
      backward_kernel<Value, T, Count, Lanes>(problem, call.value, call.locations, call.attention,
                                              call.grad_output, AtomicSum<T>{sums},
                                              Gradients<T>{call.grad_locations,
                                                           call.grad_attention});
    });
  };
  if constexpr (std::is_same_v<Value, T>) {
    sum_into(call.grad_value);
  } else {
    std::vector<float4> sums(call.values() / 4 + 1);  // aligned as the GPU's memory
    sum_into(&sums.front().x);
    for (int64_t i = 0; i < call.values(); ++i) {
      call.grad_value[i] = static_cast<Value>((&sums.front().x)[i]);
    }
  }
}

template <typename Value, typename T, int Count, int Lanes>
void run_by_integers(const Arguments<Value, T>& call, const Problem& problem, unsigned blocks) {
  std::vector<unsigned long long> sums(call.values());
  emulation::launch(blocks, [&] {
    backward_kernel<Value, T, Count, Lanes>(problem, call.value, call.locations, call.attention,
                                            call.grad_output,
                                            FixedPointSum<T>{sums.data(), &call.bound},
                                            Gradients<T>{call.grad_locations,
                                                         call.grad_attention});
  });
  emulation::launch(2, [&] {
    from_fixed_point_kernel<Value>(call.values(), sums.data(), &call.bound, call.grad_value);
  });
}

template <typename Value, typename T, int Count, int Lanes>
int run(const Arguments<Value, T>& call) {
  const Problem problem = describe<T>(call.sizes, call.level_sizes);
  const auto blocks = static_cast<unsigned>(call.sizes.images * call.sizes.heads * problem.tiles);
  emulation::launch(blocks, [&] {
    forward_kernel<Value, T, Count, Lanes>(problem, call.value, call.locations, call.attention,
                                           call.output);
  });
  if (call.bound == 0) {
    run_by_atomics<Value, T, Count, Lanes>(call, problem, blocks);
  } else {
    run_by_integers<Value, T, Count, Lanes>(call, problem, blocks);
  }
  return 0;
}

}  // namespace

// Every entry takes channels per lane and lanes; it returns 1 for a width that is not compiled in.
// `bound` of 0 asks for floating-point atomics.
extern "C" int emulate_float(int count, int lanes, const Arguments<float, float>* call) {
  switch (count * 100 + lanes) {
    case 116:
      return run<float, float, 1, 16>(*call);
    case 404:
      return run<float, float, 4, 4>(*call);
    case 408:
      return run<float, float, 4, 8>(*call);
    default:
      return 1;
  }
}

extern "C" int emulate_double(int count, int lanes, const Arguments<double, double>* call) {
  switch (count * 100 + lanes) {
    case 116:
      return run<double, double, 1, 16>(*call);
    case 204:
      return run<double, double, 2, 4>(*call);
    case 208:
      return run<double, double, 2, 8>(*call);
    default:
      return 1;
  }
}

extern "C" int emulate_bfloat16(int count, int lanes, const Arguments<Brain, float>* call) {
  switch (count * 100 + lanes) {
    case 116:
      return run<Brain, float, 1, 16>(*call);
    case 408:
      return run<Brain, float, 4, 8>(*call);
    case 804:
      return run<Brain, float, 8, 4>(*call);
    case 808:
      return run<Brain, float, 8, 8>(*call);
    default:
      return 1;
  }
}
