// Matrix products of a warpgroup: 64 rows of A by N rows of B, both K-major in shared memory, accumulators in registers.
// An accumulator's element i of a thread lies in row (lane / 4) + 8 · (i / 2 % 2) of its warp's 16 rows and in column
// 8 · (i / 4) + 2 · (lane % 4) + i % 2.
#pragma once

#include <cstdint>

namespace detinfer {

/// Descriptor of a K-major matrix in shared memory with the 128-byte swizzle: rows of 64 bf16, 8 rows follow
/// group_bytes after 8. The address is 1024-aligned up to the k offset.
__device__ __forceinline__ uint64_t k_major_descriptor(uint32_t address, uint32_t group_bytes) {
  constexpr uint64_t kSwizzle128 = uint64_t(1) << 62;
  return uint64_t((address & 0x3FFFF) >> 4) | uint64_t(1) << 16 | uint64_t(group_bytes >> 4) << 32 | kSwizzle128;
}

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits until at most kGroups committed groups are still under way.
template <int kGroups>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
}

/// Keeps the compiler from moving uses of registers that a product in flight owns.
template <int N>
__device__ __forceinline__ void pin(float (&r)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(r[i])::"memory");
}

/// d += one k16 step of 64 rows by N columns. @param a, b descriptors
template <int N>
__device__ __forceinline__ void wgmma_step(float (&d)[N / 2], uint64_t a, uint64_t b);

#define DETINFER_R0_3 "%0, %1, %2, %3"
#define DETINFER_R0_7 DETINFER_R0_3 ", %4, %5, %6, %7"
#define DETINFER_R0_15 DETINFER_R0_7 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define DETINFER_R0_23 DETINFER_R0_15 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define DETINFER_R0_31 DETINFER_R0_23 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define DETINFER_R0_47 \
  DETINFER_R0_31 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define DETINFER_R0_59 DETINFER_R0_47 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59"
#define DETINFER_R0_63 DETINFER_R0_59 ", %60, %61, %62, %63"
#define DETINFER_R0_67 DETINFER_R0_63 ", %64, %65, %66, %67"
#define DETINFER_R0_71 DETINFER_R0_67 ", %68, %69, %70, %71"
#define DETINFER_R0_79 DETINFER_R0_71 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define DETINFER_R0_87 DETINFER_R0_79 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define DETINFER_R0_95 DETINFER_R0_87 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define DETINFER_R0_111 \
  DETINFER_R0_95        \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define DETINFER_R0_127 \
  DETINFER_R0_111       \
  ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define DETINFER_F4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define DETINFER_F8(i) DETINFER_F4(i), DETINFER_F4(i + 4)
#define DETINFER_F16(i) DETINFER_F8(i), DETINFER_F8(i + 8)
#define DETINFER_F32(i) DETINFER_F16(i), DETINFER_F16(i + 16)

// The first step of a chain adds to zeroed registers: a scale of zero would be a run-time predicate in every step.
#define DETINFER_WGMMA(N, registers, a_at, b_at, ...)                                                              \
  template <>                                                                                                      \
  __device__ __forceinline__ void wgmma_step<N>(float(&d)[N / 2], uint64_t a, uint64_t b) {                         \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\nwgmma.mma_async.sync.aligned.m64n" #N                     \
                 "k16.f32.bf16.bf16 {" registers "}, " a_at ", " b_at ", p, 1, 1, 0, 0;\n}"                         \
                 : __VA_ARGS__                                                                                     \
                 : "l"(a), "l"(b));                                                                                \
  }

DETINFER_WGMMA(8, DETINFER_R0_3, "%4", "%5", DETINFER_F4(0))
DETINFER_WGMMA(16, DETINFER_R0_7, "%8", "%9", DETINFER_F8(0))
DETINFER_WGMMA(32, DETINFER_R0_15, "%16", "%17", DETINFER_F16(0))
DETINFER_WGMMA(48, DETINFER_R0_23, "%24", "%25", DETINFER_F16(0), DETINFER_F8(16))
DETINFER_WGMMA(64, DETINFER_R0_31, "%32", "%33", DETINFER_F32(0))
DETINFER_WGMMA(96, DETINFER_R0_47, "%48", "%49", DETINFER_F32(0), DETINFER_F16(32))
DETINFER_WGMMA(120, DETINFER_R0_59, "%60", "%61", DETINFER_F32(0), DETINFER_F16(32), DETINFER_F8(48), DETINFER_F4(56))
DETINFER_WGMMA(128, DETINFER_R0_63, "%64", "%65", DETINFER_F32(0), DETINFER_F32(32))
DETINFER_WGMMA(136, DETINFER_R0_67, "%68", "%69", DETINFER_F32(0), DETINFER_F32(32), DETINFER_F4(64))
DETINFER_WGMMA(144, DETINFER_R0_71, "%72", "%73", DETINFER_F32(0), DETINFER_F32(32), DETINFER_F8(64))
DETINFER_WGMMA(160, DETINFER_R0_79, "%80", "%81", DETINFER_F32(0), DETINFER_F32(32), DETINFER_F16(64))
DETINFER_WGMMA(176, DETINFER_R0_87, "%88", "%89", DETINFER_F32(0), DETINFER_F32(32), DETINFER_F16(64),
               DETINFER_F8(80))
DETINFER_WGMMA(192, DETINFER_R0_95, "%96", "%97", DETINFER_F32(0), DETINFER_F32(32), DETINFER_F32(64))
DETINFER_WGMMA(224, DETINFER_R0_111, "%112", "%113", DETINFER_F32(0), DETINFER_F32(32), DETINFER_F32(64),
               DETINFER_F16(96))
DETINFER_WGMMA(256, DETINFER_R0_127, "%128", "%129", DETINFER_F32(0), DETINFER_F32(32), DETINFER_F32(64),
               DETINFER_F32(96))

#undef DETINFER_WGMMA
#undef DETINFER_F32
#undef DETINFER_F16
#undef DETINFER_F8
#undef DETINFER_F4
#undef DETINFER_R0_127
#undef DETINFER_R0_111
#undef DETINFER_R0_95
#undef DETINFER_R0_87
#undef DETINFER_R0_79
#undef DETINFER_R0_71
#undef DETINFER_R0_67
#undef DETINFER_R0_63
#undef DETINFER_R0_59
#undef DETINFER_R0_47
#undef DETINFER_R0_31
#undef DETINFER_R0_23
#undef DETINFER_R0_15
#undef DETINFER_R0_7
#undef DETINFER_R0_3

}  // namespace detinfer
